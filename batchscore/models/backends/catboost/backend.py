"""The CatBoost backend as the registry knows it; CatBoost itself is imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.columnar.texts import TEXT
from batchscore.models.backends.catboost.cbm_file import CbmFile, read_cbm_file
from batchscore.models.backends.facts import DEFAULT_OUTPUT, Facts, OutputSpec
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.tree_calls import TreeCall, settle_call
from batchscore.models.backends.tree_files import INPUT, importing, naming_file, require_package
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

_KINDS = {
    "Logloss": "binary",
    "CrossEntropy": "binary",
    "Focal": "binary",
    "MultiClass": "classes",
    "MultiClassOneVsAll": "classes",
    "MultiLogloss": "labels",
    "MultiCrossEntropy": "labels",
}


class CatBoostBackend(Backend):
    """Model files of CatBoost, `.cbm`, which name their columns."""

    packages = ("catboost",)
    unpinned = ("catboost",)
    names_columns = True
    explains = True
    takes_call = True
    takes_texts = True
    is_fragile = True
    preloads = ("batchscore.models.backends.catboost.predictor",)

    def require(self) -> None:
        """Looks for CatBoost, and does not import it."""
        require_package("catboost")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at its trees."""
        return facts_of(described(read_weights(model), model), model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the file; a call uses one thread."""
        self.require()
        with importing("catboost"):
            from batchscore.models.backends.catboost.predictor import load_trees

        content = read_weights(model)
        return load_trees(model, content, described(content, model))

    def prepare(self) -> None:
        """Imports CatBoost and what calls it."""
        self.require()
        with importing("catboost"):
            import batchscore.models.backends.catboost.predictor  # noqa: F401


def described(content: bytes, model: Model) -> CbmFile:
    """Returns what a file's content says; ModelError with its path where it cannot be read."""
    with naming_file(model):
        return read_cbm_file(content)


def call_of_file(found: CbmFile, given: Mapping[str, Any]) -> TreeCall:
    """Returns what of a file is called, by its card; as CatBoost's own classes by default."""
    kind = _KINDS.get(found.loss, "value")
    loss = found.loss or "an unknown loss function"
    return settle_call(given, kind, loss, found.trees, found.trees)


def facts_of(found: CbmFile, model: Model) -> Facts:
    """Returns what a file says as all backends say it."""
    with naming_file(model):
        call = call_of_file(found, model.call)
    # A class is one number, whatever it was chosen from.
    shape = () if found.dimension == 1 or call.returns == "class" else (found.dimension,)
    name = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    kind = "int64" if call.returns == "class" else "float64"
    numbers = [each.name for each in model.inputs if each.dtype != TEXT] or [INPUT]
    width = sum(not each.is_text for each in found.columns)
    return Facts(
        inputs={numbers[0]: (width,)} if width else {},
        outputs={name: shape},
        versions={"catboost": ".".join(map(str, found.version)) or "unknown"},
        columns=found.columns,
        declared=(OutputSpec(name, kind, shape),),
        counts={"trees": found.trees},
        said={
            "loss function": found.loss or "unknown",
            "classes": ", ".join(map(str, found.classes)) or "none",
            "call": call.said,
        },
    )


BACKEND = CatBoostBackend()
