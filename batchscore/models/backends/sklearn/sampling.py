"""The frame that a pipeline takes, found by its sample and by trying single values on it.

Suffixes: `_f` features, `_bf` rows by features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.array_type import Array
from batchscore.columnar.arrays import to_numpy
from batchscore.columnar.texts import Texts, make_texts
from batchscore.errors import BatchscoreError, InputError
from batchscore.messages.wording import nearest
from batchscore.models.backends.facts import Inputs
from batchscore.models.backends.sklearn.fitted_values import FittedValues, fitted_values
from batchscore.models.backends.sklearn.frames import FrameColumn, Null, TrainingFrame
from batchscore.models.backends.sklearn.node_checks import VECTORIZERS
from batchscore.models.backends.sklearn.predictor import PipelinePredictor
from batchscore.models.column_values import TEXTS, nearest_floats, plain_type, plain_values

_EXACT = 1 << 53
_STRANGE = 123_456_789
"""A whole number that no category is, beyond those of the sample."""


def frame_of(
    estimator: Any, rows: pa.RecordBatch, names: Sequence[str], sample: Any = None
) -> TrainingFrame:
    """Returns the frame of a pipeline, by the types of rows of its training.

    Args:
        estimator: The pipeline.
        rows: The sample.
        names: Of the columns that the pipeline reads.
        sample: The sample as it was given, which may be pandas' own.

    Raises:
        InputError: A column is missing, or of a type that no pipeline takes.
        ModelError: The pipeline reads free texts.
    """
    is_array = not hasattr(estimator, "feature_names_in_")
    known = fitted_values(estimator, names)
    given = sample if is_pandas(sample) else {}
    columns = tuple(_column(each, rows, known, given.get(each)) for each in names)
    return TrainingFrame(columns, is_array, reads_series(estimator))


def reads_series(estimator: Any) -> bool:
    """Tells whether an estimator reads one column of texts, without a frame around it."""
    each = estimator
    while type(each).__name__ == "Pipeline":
        each = each.steps[0][1]
    return type(each).__name__ in VECTORIZERS


def _column(name: str, rows: pa.RecordBatch, known: FittedValues, given: Any) -> FrameColumn:
    if name in known.unused:
        return FrameColumn(name, is_read=False)
    if name not in rows.schema.names:
        raise InputError(
            f"sample: has no column {name!r}, which the model reads; "
            f"{nearest(name, rows.schema.names)}"
        )
    column = rows.column(name)
    kind = plain_type(column.type)
    if name in known.free:
        return FrameColumn(name, "free", nulls="reject")
    null: Null = "none" if known.takes_none(name) else "nan"
    # A gap of pandas' categories is never None, and one of Polars' is.
    if isinstance(column, pa.DictionaryArray) and (null == "nan" or given is not None):
        own = dict.fromkeys([*column.dictionary.to_pylist(), *known.of(name)])
        return FrameColumn(name, "category", _same(name, [*own]), null)
    if any(test(kind) for test in TEXTS):
        texts = [each for each in known.of(name) if isinstance(each, str)]
        # A column that nothing tells apart has values all the same.
        return FrameColumn(name, "text", tuple(texts) or ("",), null)
    if pa.types.is_boolean(kind):
        is_object = known.are_objects(name)
        null = null if is_object else "nan"
        return _typed(FrameColumn(name, "bool", null=null, is_object=is_object), given)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        _require_exact(name, known)
        names = {"halffloat": "float16", "float": "float32", "double": "float64"}
        return _typed(FrameColumn(name, names.get(str(kind), str(kind))), given)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return FrameColumn(name, "float64")
    raise InputError(
        f"sample: column {name!r} is {column.type}, and pipelines take numbers, texts, categories "
        "and booleans; make one of these of it before, such as in a preprocess function"
    )


def _require_exact(name: str, known: FittedValues) -> None:
    """Requires what an encoder tells apart to be numbers that a float64 holds."""
    large = [each for each in known.of(name) if isinstance(each, int) and abs(each) > _EXACT]
    if len(large) > 1:  # one alone is what an imputer fills in
        raise InputError(
            f"sample: column {name!r} holds categories that are whole numbers beyond 2**53, such "
            f"as {large[0]}, which are no longer exact as numbers; train on texts of them"
        )


def is_pandas(sample: Any) -> bool:
    """Tells whether rows are a DataFrame of pandas."""
    return type(sample).__name__ == "DataFrame" and type(sample).__module__.startswith("pandas")


def _typed(column: FrameColumn, given: Any) -> FrameColumn:
    """Returns a column of numbers with what Arrow does not tell of pandas' own one."""
    if given is not None and str(given.dtype) == "boolean":
        return replace(column, type="float64")  # which scikit-learn makes of it, gaps or none
    if given is None or given.dtype != object:
        return column
    null: Null = "none" if any(each is None for each in given) else "nan"
    return replace(column, is_object=True, null=null)


def _same(name: str, values: list[Any]) -> Any:
    kinds = sorted({type(each).__name__ for each in values})
    if kinds not in (["int"], ["str"]):
        raise InputError(
            f"sample: column {name!r} has categories of type {' and '.join(kinds) or 'null'}; "
            "expected texts, or whole numbers: train on such categories"
        )
    return tuple(values)


def with_policies(
    frame: TrainingFrame, predictor: PipelinePredictor, rows: pa.RecordBatch, estimator: Any
) -> TrainingFrame:
    """Returns the frame with what becomes of nulls and unseen values, as scikit-learn treats them.

    A row of the sample is scored with one value changed. If scikit-learn refuses it, a run rejects
    such rows by name, before they reach the pipeline.

    Args:
        frame: What the pipeline takes.
        predictor: It, loaded.
        rows: The sample.
        estimator: The pipeline in memory, whose categories of numbers are taken.
    """
    row_f, texts = _complete_row(frame, rows), _one_text(frame, rows)
    known = fitted_values(estimator, [each.name for each in frame.columns])
    settled = {}
    for place, each in enumerate(frame.numbers):
        tried = partial(_takes, predictor, texts, row_f, place)
        if not tried(np.nan):
            each = replace(each, nulls="reject")
        is_flag = pa.types.is_boolean(rows.column(each.name).type)
        if not is_flag and not tried(_strange(each, row_f[place])):
            each = replace(each, unseen="reject", values=each.values or _whole(each, known))
        settled[each.name] = each
    columns = tuple(settled.get(each.name, each) for each in frame.columns)
    return replace(frame, columns=columns)


def _strange(column: FrameColumn, value: float) -> float:
    if column.values is not None:
        return float(len(column.values))
    if not np.isfinite(value):
        return value
    if not column.type.startswith("float"):
        most = np.iinfo(column.type).max
        return float(min(_STRANGE, most if value != most else most - 1))
    # The largest float16 is 65,504.
    return float(value) + 0.5 + (1_000 if column.type == "float16" else _STRANGE)


def _takes(
    predictor: PipelinePredictor, texts: Inputs, row_f: Array, place: int, value: float
) -> bool:
    changed_f = row_f.copy()
    changed_f[place] = value
    try:
        predictor({predictor.given: changed_f[None], **texts})
    except BatchscoreError:
        return False
    return True


def _whole(column: FrameColumn, known: FittedValues) -> tuple[int, ...]:
    values = [*known.of(column.name)]
    is_float = column.type.startswith("float")
    if is_float or not values or not all(isinstance(each, int) for each in values):
        raise InputError(
            f"sample: column {column.name!r} holds categories that are {column.type}, and an "
            "encoder of it refuses others; give the encoder handle_unknown, such as 'ignore', or "
            "train on whole numbers or texts"
        )
    return tuple(int(each) for each in values)


def _complete_row(frame: TrainingFrame, rows: pa.RecordBatch) -> Array:
    """Returns the first row with the fewest gaps, as the pipeline gets it."""
    from batchscore.models.file_columns import feature_of

    columns = [
        feature_of("sample", each.name, known, "float64").encode(rows.column(each.name))
        for each, known in zip(frame.read, frame.file_columns, strict=True)
        if each.type != "free"
    ]
    if not columns:
        return np.empty(0)
    matrix_bf = np.stack(columns, axis=1)
    return np.asarray(matrix_bf[np.isnan(matrix_bf).sum(axis=1).argmin()])


def _one_text(frame: TrainingFrame, rows: pa.RecordBatch) -> dict[str, Texts]:
    """Returns a text of each column of free texts."""
    found = {}
    for name in frame.texts:
        known = [text for text in plain_values(rows.column(name)).to_pylist() if text is not None]
        found[name] = make_texts([str(known[0] if known else "").encode()])
    return found


def own_rows(rows: pa.RecordBatch, frame: TrainingFrame, sample: Any = None) -> Any:
    """Returns rows as a frame of training's types, by pandas itself; or as an array.

    Args:
        rows: The rows.
        frame: What the pipeline takes.
        sample: The rows as they were given: a frame of pandas is taken as it is.
    """
    import pandas as pd

    has_names = is_pandas(sample) and not (frame.is_array or frame.is_series)
    if has_names and all(each.name in sample for each in frame.read):
        absent = {each.name: np.nan for each in frame.columns if each.name not in sample}
        return sample.assign(**absent)[[each.name for each in frame.columns]]
    made: dict[str, Any] = {}
    for each in frame.columns:
        if not each.is_read:
            made[each.name] = np.full(rows.num_rows, np.nan)
            continue
        column = rows.column(each.name)
        if each.type == "category":
            made[each.name] = pd.Categorical(column.to_pylist(), [*(each.values or ())])
        elif each.type in ("text", "free") or each.is_object:
            gap = None if each.null == "none" else np.nan
            values = [gap if value is None else value for value in column.to_pylist()]
            made[each.name] = pd.Series(values, dtype=object)
        elif column.null_count or pa.types.is_decimal(column.type):
            made[each.name] = nearest_floats(column).to_numpy(zero_copy_only=False)
        else:
            made[each.name] = to_numpy(column)
    if frame.is_series:
        return next(iter(made.values()))
    found = pd.DataFrame(made)
    return found.to_numpy() if frame.is_array else found
