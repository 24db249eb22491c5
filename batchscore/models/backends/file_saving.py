"""Saves a model file of any format that describes itself, called as a run calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchscore.errors import ModelError
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Call, Facts, OutputSpec
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.saving import Asked, Draft, Saver
from batchscore.models.backends.tree_saving import call_of_card
from batchscore.models.card import InputTensor
from batchscore.models.features import dump_features, input_shapes, required_columns
from batchscore.models.folder import completed
from batchscore.models.inputs import ModelInput
from batchscore.models.loadable import Model, ModelOutput, read_weights
from batchscore.models.validate import validated

_PREPROCESSING = "preprocessing.json"


class FileSaver(Saver):
    """A `Model` of one file, of which nothing is declared yet."""

    unused = ("args", "inputs")

    def require_savable(self, model: Any) -> None:
        """Requires a file that says itself what it reads."""
        backend = backend_of(model.format)
        if backend.files_run_code:
            raise ModelError(
                f"model {model.folder}/{model.weights}: loading it can run code that is in it; if "
                "you trust it, give bs.save_model what torch.export.load returns, in Python"
            )
        if backend.needs_architecture:
            raise ModelError(
                f"model {model.folder}/{model.weights}: holds the weights of a network, and no "
                "code that builds it; in Python, give bs.save_model the network itself, or name "
                "the file in a job with its format, architecture, inputs and sha256"
            )

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Takes columns and inputs of the file, or as they are asked for."""
        found = _completed(model, asked)
        declared = {
            each.name: validated(
                InputTensor, {"type": each.dtype, "shape": each.shape}, f"input {each.name}"
            )
            for each in found.inputs
        }
        columns = {each.name: each.columns for each in found.inputs}
        return Draft(columns, declared, found.features)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns the file as it is, and its features."""
        files = {model.weights: read_weights(model)}
        card: dict[str, Any] = {
            "format": model.format,
            "weights": model.weights,
            "inputs": {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()},
        }
        if asked.call is not None:
            card["call"] = call_of_card(asked)
        if draft.features is not None:
            files[_PREPROCESSING] = dump_features(draft.features).encode()
            card["preprocessing"] = _PREPROCESSING
        return card, files

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the calls that a run makes of the file."""
        found = _completed(model, asked)
        specs = tuple(OutputSpec(each.name, each.dtype, each.shape) for each in found.outputs)
        loaded = backend_of(found.format).load(found, "cpu", prove=True)
        return loaded.called(Call(specs, varying=draft.varying))


def _completed(model: Model, asked: Asked) -> Model:
    """Returns a file with its inputs, features and outputs, as its backend and the caller say."""
    facts = backend_of(model.format).inspect(model)
    given, inputs = asked.columns or {}, facts.inputs
    for name in given:
        if inputs and name not in inputs:
            raise ModelError(f"columns: the model has no input {name!r}; {nearest(name, inputs)}")
    outputs = _renamed(facts, asked.outputs)
    shapes = {name: inputs.get(name, (len(columns),)) for name, columns in given.items()}
    model = replace(
        model,
        call=call_of_card(asked),
        outputs=outputs,
        inputs=tuple(
            ModelInput(name, facts.input_type, shapes[name], tuple(columns))
            for name, columns in given.items()
        ),
    )
    if asked.features is None:
        return completed(model, "columns")
    columns = required_columns(asked.features)
    made = tuple(
        ModelInput(name, kind, shape, columns)
        for name, (kind, shape) in input_shapes(asked.features).items()
    )
    return completed(replace(model, inputs=made, features=asked.features), "features")


def _renamed(facts: Facts, names: Sequence[str]) -> tuple[ModelOutput, ...]:
    """Returns the outputs under the names that were asked for."""
    known = facts.declared
    if names and len(names) != len(known):
        raise ModelError(
            f"outputs: {[*names]}, and the model has {counted(len(known), 'output')}; give a name "
            "for each"
        )
    pairs = zip(names, known, strict=True) if names else ((each.name, each) for each in known)
    return tuple(ModelOutput(name, each.dtype, each.shape) for name, each in pairs)


FILE_SAVER = FileSaver()
