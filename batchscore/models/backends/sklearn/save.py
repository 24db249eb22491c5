"""Writes a fitted pipeline in memory to a model folder, with scikit-learn's scores of a sample.

Suffixes: `_gc` raw scores by columns.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from batchscore.columnar.array_type import Array
from batchscore.errors import InputError, ModelError
from batchscore.messages.wording import counted, one_line, reason, type_of
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.saving import Asked, Draft, Saver, draft_of_features
from batchscore.models.backends.sklearn.backend import described, require_prediction
from batchscore.models.backends.sklearn.described import DescribedFile, read_skops_file
from batchscore.models.backends.sklearn.frames import MEMBER, TrainingFrame, dump_frame
from batchscore.models.backends.sklearn.linear_parts import take_apart
from batchscore.models.backends.sklearn.pipeline_results import (
    EstimatorCall,
    call_estimator,
    found_results,
    settle_results,
)
from batchscore.models.backends.sklearn.predictor import built, predictor_of, quiet
from batchscore.models.backends.sklearn.sampling import (
    frame_of,
    own_rows,
    reads_series,
    with_policies,
)
from batchscore.models.backends.sklearn.skops_archive import SCHEMA
from batchscore.models.backends.tree_files import INPUT, importing, require_package
from batchscore.models.backends.tree_saving import KnownCalls, call_of_card, output_name
from batchscore.models.file_columns import feature_of, features_of
from batchscore.models.loadable import Model, read_weights

_WEIGHTS = "model.skops"
_TRIED_ROWS = 8


@dataclass(frozen=True)
class PipelineDraft(Draft):
    """What is known of a pipeline, with its file.

    Args:
        content: The file.
        file: What it says.
        call: What of it is called.
    """

    content: bytes
    file: DescribedFile
    call: EstimatorCall


class SklearnSaver(Saver):
    """Fitted estimators and pipelines."""

    unused = ("args", "features", "inputs")

    def opened(self, model: Model) -> Any:
        """Returns the estimator of a file."""
        return built(described(read_weights(model), model))

    def require_savable(self, model: Any) -> None:
        """Requires a fitted estimator whose file can be scored."""
        estimator = _estimator(model)
        try:
            check_is_fitted(estimator)
        except NotFittedError as error:
            raise ModelError("model is not fitted; call its fit before saving it") from error
        require_prediction(read_skops_file(_dumped(estimator)))

    def draft(self, model: Any, rows: pa.RecordBatch, asked: Asked) -> PipelineDraft:
        """Takes columns, types and policies from the pipeline, the sample and their trial."""
        estimator = _estimator(model)
        names, name = _names(estimator, rows, asked), next(iter(asked.columns or {}), INPUT)
        content = _dumped(estimator)
        frame = frame_of(estimator, rows, names, asked.sample)
        found = replace(read_skops_file(content), frame=frame)
        given = own_rows(rows, frame, asked.sample)
        results = _results(estimator, found, given[:_TRIED_ROWS])
        found = replace(found, results=results)
        call = settle_results(call_of_card(asked), found.role, results)
        frame = with_policies(frame, predictor_of(built(found), found, call, 1), rows, estimator)
        whole = _packed(content, dump_frame(frame, results, _means(estimator, given, frame)))
        made = read_skops_file(whole)
        members = tuple(
            feature_of("sample", each.name, each, "float64") for each in frame.file_columns
        )
        features = features_of(name, members)
        draft = draft_of_features(features)
        return PipelineDraft(draft.columns, draft.declared, features, whole, made, call)

    def described(
        self, model: Any, draft: Draft, asked: Asked
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns what is called, and the file."""
        assert isinstance(draft, PipelineDraft)
        said: dict[str, Any] = {"returns": draft.call.returns}
        if draft.call.is_of_class:
            said["positive"] = draft.call.positive
        card = {
            "format": "sklearn",
            "weights": _WEIGHTS,
            "call": said,
            "inputs": {n: t.model_dump(exclude_unset=True) for n, t in draft.declared.items()},
        }
        return card, {_WEIGHTS: draft.content}

    def calls(self, model: Any, rows: pa.RecordBatch, draft: Draft, asked: Asked) -> Calls:
        """Returns the scores that scikit-learn's own call has for a frame of these rows."""
        assert isinstance(draft, PipelineDraft)
        with quiet():
            try:
                given = own_rows(rows, draft.file.frame, asked.sample)
                made = call_estimator(_estimator(model), draft.call, given)
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"sample: scikit-learn cannot score it ({one_line(error, 200)}); give rows of "
                    "the training's columns and types"
                ) from error
        return KnownCalls({output_name(asked): made})


def _estimator(model: Any) -> Any:
    if not isinstance(model, BaseEstimator):
        raise ModelError(
            f"model is {type_of(model)}; expected a fitted estimator or Pipeline of scikit-learn"
        )
    return model


def _names(estimator: Any, rows: pa.RecordBatch, asked: Asked) -> tuple[str, ...]:
    given = tuple(next(iter((asked.columns or {}).values()), ()))
    own = tuple(getattr(estimator, "feature_names_in_", ()))
    if own and given and given != own:
        raise InputError(
            "columns: the pipeline was trained on a frame, which names them; leave columns out"
        )
    names = own or given or tuple(rows.schema.names)
    count = 1 if reads_series(estimator) else len(names)
    width = int(getattr(estimator, "n_features_in_", count))
    if len(names) != width or len(asked.columns or {}) > 1:
        raise InputError(
            f"columns: the model reads {counted(width, 'column')}, and {len(names)} are given; "
            f"name them in the order of training: columns={{{INPUT!r}: [...]}}"
        )
    return tuple(str(each) for each in names)


def _results(estimator: Any, found: DescribedFile, given: Any) -> Mapping[str, Any]:
    try:
        with quiet():
            return found_results(estimator, found.role, given)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"sample: scikit-learn cannot score it ({one_line(error, 200)}); give rows of the "
            "training's columns and types"
        ) from error


def _dumped(estimator: Any) -> bytes:
    require_package("skops", "sklearn", "are saved by")
    with importing("skops"), _without_torch():
        import skops.io
    try:
        return bytes(skops.io.dumps(estimator))
    except Exception as error:  # skops raises what it likes for what it does not know
        raise ModelError(
            f"skops cannot write it ({type(error).__name__}: {reason(error)}); use estimators of "
            "scikit-learn's own, without own functions"
        ) from error


class _NoTorch(MetaPathFinder):
    """Says that torch is not there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ImportError for torch."""
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is left out while skops looks for estimators")
        return None


@contextmanager
def _without_torch() -> Iterator[None]:
    """Leaves torch out while skops imports every module of scikit-learn; one of them needs it."""
    finder = _NoTorch()
    if "torch" not in sys.modules and "skops.io" not in sys.modules:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def _means(estimator: Any, given: Any, frame: TrainingFrame) -> Array | None:
    """Returns what reasons compare a linear model's columns with; None of any other model."""
    try:
        parts = take_apart([estimator], [each.name for each in frame.columns])
    except ModelError:
        return None
    with quiet():
        mean_gc = parts.means(given)
    return mean_gc if np.isfinite(mean_gc).all() else None


def _packed(content: bytes, member: bytes) -> bytes:
    """Returns a skops file with our member, with the same bytes for the same estimator.

    skops names members and objects by their places in memory, and writes the time.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(target, "w") as made:
        schema = json.loads(given.read(SCHEMA))
        names = _renumbered(schema)
        for old, new in names.items():
            _put(made, new, given.read(old))
        _put(made, SCHEMA, json.dumps(schema, separators=(",", ":")).encode())
        _put(made, MEMBER, member)
    return target.getvalue()


def _put(made: zipfile.ZipFile, name: str, content: bytes) -> None:
    facts = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    facts.compress_type = zipfile.ZIP_DEFLATED
    made.writestr(facts, content)


def _renumbered(schema: Any) -> dict[str, str]:
    """Numbers objects and members in the order of the schema; returns members' new names."""
    objects: dict[int, int] = {}
    names: dict[str, str] = {}
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += reversed(each)
        elif isinstance(each, dict):
            if isinstance(each.get("__id__"), int) and "__loader__" in each:
                each["__id__"] = objects.setdefault(each["__id__"], len(objects) + 1)
            if isinstance(each.get("file"), str) and "__loader__" in each:
                ending = each["file"].rpartition(".")[2]
                each["file"] = names.setdefault(each["file"], f"{len(names)}.{ending}")
            waiting += reversed(each.values())
    return names


SAVER = SklearnSaver()
