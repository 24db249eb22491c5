"""The LightGBM backend as the registry knows it; LightGBM itself is imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.models.backends.facts import DEFAULT_OUTPUT, Facts, OutputSpec
from batchscore.models.backends.lightgbm.text_file import TextFile, read_text_file
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.tree_calls import TreeCall, settle_call
from batchscore.models.backends.tree_files import (
    INPUT,
    classes_said,
    importing,
    naming_file,
    require_package,
)
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

_KINDS = {"binary": "binary", "multiclass": "classes", "multiclassova": "classes"}


class LightGBMBackend(Backend):
    """Model files of LightGBM, `.txt`, which name their columns."""

    packages = ("lightgbm",)
    unpinned = ("lightgbm",)
    names_columns = True
    takes_call = True
    explains = True
    is_fragile = True
    unneeded = ("pandas", "sklearn")
    preloads = ("batchscore.models.backends.lightgbm.predictor",)

    def require(self) -> None:
        """Looks for LightGBM, and does not import it."""
        require_package("lightgbm")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at its trees."""
        return facts_of(described(read_weights(model), model), model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the file; a call uses one thread."""
        self.require()
        with importing("lightgbm"):
            from batchscore.models.backends.lightgbm.predictor import load_trees

        content = read_weights(model)
        return load_trees(model, content, described(content, model))

    def prepare(self) -> None:
        """Imports LightGBM and what calls it."""
        self.require()
        with importing("lightgbm"):
            import batchscore.models.backends.lightgbm.predictor  # noqa: F401


def described(content: bytes, model: Model) -> TextFile:
    """Returns what a file's content says; ModelError with its path where it cannot be read."""
    with naming_file(model):
        return read_text_file(content)


def call_of_file(found: TextFile, given: Mapping[str, Any]) -> TreeCall:
    """Returns what of a file is called, by its card."""
    kind = _KINDS.get(found.objective, "value")
    return settle_call(given, kind, found.objective, found.rounds, found.rounds)


def facts_of(found: TextFile, model: Model) -> Facts:
    """Returns what a file says as all backends say it."""
    with naming_file(model):
        call = call_of_file(found, model.call)
    # A class is one number, whatever it was chosen from.
    shape = () if found.classes == 1 or call.returns == "class" else (found.classes,)
    name = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    kind = "int64" if call.returns == "class" else "float64"
    return Facts(
        inputs={model.inputs[0].name if model.inputs else INPUT: (found.features,)},
        outputs={name: shape},
        versions={"lightgbm": ".".join(map(str, found.version))},
        columns=found.columns,
        input_type="float64",
        declared=(OutputSpec(name, kind, shape),),
        counts={"trees": found.trees},
        said={
            "objective": found.objective,
            **classes_said(2 if call.kind == "binary" else found.classes),
            "call": call.said,
        },
    )


BACKEND = LightGBMBackend()
