"""The XGBoost backend as the registry knows it; XGBoost itself is imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.models.backends.facts import DEFAULT_OUTPUT, Facts, OutputSpec
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.tree_calls import TreeCall, settle_call
from batchscore.models.backends.tree_files import (
    INPUT,
    classes_said,
    importing,
    naming_file,
    require_package,
)
from batchscore.models.backends.xgboost.model_file import ModelFile, read_model_file
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model

_KINDS = {"binary:logistic": "binary", "multi:softprob": "classes", "multi:softmax": "class"}


class XGBoostBackend(Backend):
    """Model files of XGBoost, `.ubj` and `.json`, which name their columns."""

    packages = ("xgboost",)
    unpinned = ("xgboost",)
    names_columns = True
    takes_call = True
    explains = True
    is_fragile = True
    unneeded = ("sklearn",)
    preloads = ("batchscore.models.backends.xgboost.predictor",)

    def require(self) -> None:
        """Looks for XGBoost, and does not import it."""
        require_package("xgboost")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at its trees."""
        return facts_of(described(read_weights(model), model), model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads the file; a call uses as many threads as are given."""
        self.require()
        with importing("xgboost"):
            from batchscore.models.backends.xgboost.predictor import load_booster

        content = read_weights(model)
        return load_booster(model, content, described(content, model), threads)

    def prepare(self) -> None:
        """Imports XGBoost and what calls it."""
        self.require()
        with importing("xgboost"):
            import batchscore.models.backends.xgboost.predictor  # noqa: F401


def described(content: bytes, model: Model) -> ModelFile:
    """Returns what a file's content says; ModelError with its path where it cannot be read."""
    with naming_file(model):
        return read_model_file(content)


def call_of_file(found: ModelFile, given: Mapping[str, Any]) -> TreeCall:
    """Returns what of a file is called, by its card; as the sklearn wrapper by default."""
    kind = _KINDS.get(found.objective, "value")
    return settle_call(given, kind, found.objective, used_rounds(found), found.rounds)


def used_rounds(found: ModelFile) -> int:
    """Returns the rounds that the sklearn wrapper uses: up to the best one of early stopping."""
    return found.rounds if found.best_round is None else found.best_round + 1


def facts_of(found: ModelFile, model: Model) -> Facts:
    """Returns what a file says as all backends say it."""
    with naming_file(model):
        call = call_of_file(found, model.call)
    width = found.classes if found.classes > 1 else found.targets
    # A class is one number, whatever it was chosen from.
    shape = () if width == 1 or call.returns == "class" else (width,)
    name = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    kind = "int64" if call.returns == "class" else "float32"
    return Facts(
        inputs={model.inputs[0].name if model.inputs else INPUT: (found.features,)},
        outputs={name: shape},
        versions={"xgboost": ".".join(map(str, found.version))},
        columns=found.columns,
        declared=(OutputSpec(name, kind, shape),),
        counts={"trees": found.trees},
        said={
            "objective": found.objective,
            **classes_said(2 if call.kind == "binary" else found.classes),
            "call": call.said,
        },
    )


BACKEND = XGBoostBackend()
