"""The scikit-learn backend as the registry knows it; scikit-learn is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.columnar.texts import TEXT
from batchscore.errors import ModelError
from batchscore.models.backends.facts import DEFAULT_OUTPUT, Facts, OutputSpec
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.sklearn.described import DescribedFile, read_skops_file
from batchscore.models.backends.sklearn.pipeline_results import EstimatorCall, settle_results
from batchscore.models.backends.tree_files import INPUT, importing, naming_file, require_package
from batchscore.models.loadable import read_weights

if TYPE_CHECKING:
    from batchscore.models.loadable import Model


class SklearnBackend(Backend):
    """Estimators and pipelines of scikit-learn, `.skops`."""

    packages = ("scikit-learn", "scipy")
    unpinned = ("sklearn",)
    names_columns = True
    takes_call = True
    takes_texts = True
    explains = True
    is_fragile = True
    preloads = ("batchscore.models.backends.sklearn.predictor",)

    def require(self) -> None:
        """Looks for scikit-learn, and does not import it."""
        require_package("sklearn")

    def inspect(self, model: Model) -> Facts:
        """Returns what the file says, after a look at the types that it holds."""
        found = described(read_weights(model), model)
        with naming_file(model):
            return facts_of(found, model)

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Builds the estimator of the file."""
        self.require()
        with importing("sklearn"):
            from batchscore.models.backends.sklearn.predictor import load_pipeline

        found = described(read_weights(model), model)
        with naming_file(model):
            return load_pipeline(model, found, call_of_skops(found, model), threads)

    def prepare(self) -> None:
        """Imports scikit-learn and what calls it."""
        self.require()
        with importing("sklearn"):
            import batchscore.models.backends.sklearn.predictor  # noqa: F401


def described(content: bytes, model: Model) -> DescribedFile:
    """Returns what a file's content says; ModelError with its path where it cannot be read."""
    with naming_file(model):
        return read_skops_file(content)


def call_of_skops(found: DescribedFile, model: Model) -> EstimatorCall:
    """Returns what of a file is called, by its card."""
    require_prediction(found)
    return settle_results(model.call, found.role, found.results)


def require_prediction(found: DescribedFile) -> None:
    """Raises ModelError for a file whose last step only transforms."""
    if found.role in ("transformer", "mixed"):
        raise ModelError(
            f"its last step predicts nothing (steps: {', '.join(found.estimators)}); save a "
            "pipeline that ends with a classifier, a regressor, or what finds outliers or clusters"
        )


def facts_of(found: DescribedFile, model: Model) -> Facts:
    """Returns what a file says as all backends say it."""
    call = call_of_skops(found, model)
    name = model.outputs[0].name if model.outputs else DEFAULT_OUTPUT
    given = next((each.name for each in model.inputs if each.dtype != TEXT), INPUT)
    said = {"estimators": ", ".join(found.estimators), "call": call.said(found.labels)}
    if found.labels:
        said["classes"] = ", ".join(map(str, found.labels))
    is_named = found.names or found.has_frame
    return Facts(
        inputs={given: (len(found.frame.numbers),)} if found.frame.numbers else {},
        outputs={name: call.shape},
        versions={"scikit-learn": found.version},
        columns=found.frame.file_columns if is_named else (),
        input_type="float64",
        declared=(OutputSpec(name, call.kind, call.shape),),
        said=said,
    )


BACKEND = SklearnBackend()
