"""Writes a torch network in memory to a model folder: what is known of it, and its files."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.saving import Asked, Draft, Saver, draft_of_features
from batchscore.models.backends.torch.save import (
    calls_in_memory,
    find_code,
    float_type,
    forward_inputs,
    keeping_threads,
    require_savable,
    weights_of,
)
from batchscore.models.features import dump_features
from batchscore.models.sampled_inputs import declare_inputs

_WEIGHTS = "weights.safetensors"


class TorchSaver(Saver):
    """Networks: their weights as safetensors, and the code of their class."""

    unused = ("call",)
    if_differs = (
        "Give the args that it was built with, keep what scores depend on in parameters or "
        "registered buffers, and draw no random numbers in forward"
    )

    def scoring(self) -> AbstractContextManager[None]:
        """Returns what gives torch its threads back."""
        return keeping_threads()

    def require_savable(self, model: Any) -> None:
        """Requires a plain network, in eval mode, on the CPU."""
        require_savable(model)

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> Draft:
        """Finds the inputs by the features, the columns, or the names of forward's arguments."""
        if asked.features is not None:
            if asked.columns or asked.inputs:
                raise InputError(
                    "features: already say which columns make each input, and its type; leave "
                    "columns and inputs out"
                )
            return draft_of_features(asked.features)
        found = asked.columns or _by_name(model, rows)
        sources = {name: tuple(each) for name, each in found.items()}
        if none := [name for name, each in sources.items() if not each]:
            raise InputError(
                f"columns: {none[0]!r} lists no column; name one or more columns of the sample"
            )
        given = asked.inputs or {}
        return Draft(sources, declare_inputs(rows, sources, float_type(model), given), None)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns the architecture and the inputs, and the files of code and weights."""
        args = dict(asked.args or {})
        code = find_code(model, args)
        files = {**code.sources, _WEIGHTS: weights_of(model)}
        card: dict[str, Any] = {"format": "safetensors", "weights": _WEIGHTS}
        card |= {"architecture": code.architecture, "architecture_args": args}
        card["inputs"] = {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()}
        if draft.features is not None:
            files["preprocessing.json"] = dump_features(draft.features).encode()
            card["preprocessing"] = "preprocessing.json"
        return card, files

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns calls of the network as a run makes them."""
        return calls_in_memory(model, [*draft.columns], asked.outputs, draft.varying)


def _by_name(model: Any, rows: pa.RecordBatch) -> dict[str, tuple[str, ...]]:
    """Returns the inputs that a network takes by its arguments' names, each a column."""
    names, (needed, possible) = rows.schema.names, forward_inputs(model)
    missing = [name for name in needed if name not in names]
    taken = [*needed, *(each for each in possible if each in names)]
    if not taken:
        raise InputError(
            "model: its forward names no argument that a column can fill; name the inputs there, "
            f"such as forward(self, x), and give columns={{'x': {[*names[:3]]}}} or features"
        )
    if missing:
        example = {missing[0]: [*names[:3]]}
        raise InputError(
            f"sample: has no column {missing[0]!r}, which forward takes; it has "
            f"{', '.join(names[:40])}. Rename one, give columns={example} to stack some into an "
            "input, or give features"
        )
    return {name: (name,) for name in taken}


SAVER = TorchSaver()
