"""Fits a model's preprocessing to training rows: which column, encoded how, for which input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arguments import checks_arguments, checks_fields
from batchscore.columnar.tables import as_batch
from batchscore.errors import ArgumentError, InputError
from batchscore.messages.wording import counted, nearest, one_line
from batchscore.models.column_values import NUMBER, TEXTS, floats, plain_type, plain_values
from batchscore.models.features import (
    Calendar,
    Categorical,
    Feature,
    FeatureLists,
    Features,
    Numeric,
    Part,
)
from batchscore.models.validate import validated


@checks_fields
@dataclass(frozen=True)
class Number:
    """A number to standardise: gaps become the median, and outliers are clipped.

    Args:
        column: Column of numbers or booleans.
        clip_quantiles: Quantiles of the training rows that values are clipped to; None: no clip.
    """

    column: str
    clip_quantiles: tuple[float, float] | None = (0.001, 0.999)


@checks_fields
@dataclass(frozen=True)
class Category:
    """A category to number: 0 is missing, 1 is unseen, then the most frequent values.

    Args:
        column: Column of texts or integers.
        max_size: Values that get an index of their own, at most; at least 1.
        min_count: Training rows that a value needs to get one; at least 1.

    Raises:
        ArgumentError: A number is below 1.
    """

    column: str
    max_size: int = 1000
    min_count: int = 1

    def __post_init__(self) -> None:
        for name in ("max_size", "min_count"):
            if (given := getattr(self, name)) < 1:
                raise ArgumentError(
                    f"Category of {one_line(repr(self.column))}: {name} is {given:,}; expected 1 "
                    "or more"
                )


@checks_fields
@dataclass(frozen=True)
class DatePart:
    """A part of a date or time, such as its hour or its weekday.

    Args:
        column: Column of dates, times or timestamps; or of integers, which are the part itself.
        part: Which part.
        encoding: `cyclic` gives sine and cosine, `scaled` one number from 0 to 1.
        timezone: Zone whose local time counts, such as `America/New_York`.
    """

    column: str
    part: Part
    encoding: Literal["cyclic", "scaled"] = "cyclic"
    timezone: str | None = None


Encoding: TypeAlias = str | Number | Category | DatePart


@checks_arguments
def fit_features(table: Any, inputs: Mapping[str, Sequence[Encoding]]) -> Features:
    """Fits the preprocessing of a model to its training rows.

    Args:
        table: Training rows: a table of Arrow, pandas or Polars, or a dict of NumPy arrays.
        inputs: The features of each model input, in order. A column's name alone means `Number`
            for numbers and booleans, and `Category` for texts. Categories need an input of their
            own, since they are int64 and all others float32.

    Returns:
        What `save_model` takes as `features`; its `encode` makes the model's inputs of a table.

    Raises:
        InputError: A column is missing, or cannot be encoded as asked.
        ModelError: The features of an input do not go together, or a part is unknown.

    >>> import batchscore as bs
    >>> rows = {"age": [30, 40, 50], "plan": ["free", "paid", "free"]}
    >>> features = bs.fit_features(rows, {"numbers": ["age"], "categories": ["plan"]})
    >>> features.encode(rows)["categories"].tolist()
    [[2], [3], [2]]
    """
    rows = pa.Table.from_batches([as_batch(table, "table")])
    fitted = {name: [_fit(rows, each) for each in members] for name, members in inputs.items()}
    return Features(validated(FeatureLists, {"inputs": fitted}, "inputs").inputs)


def _fit(table: pa.Table, asked: Encoding) -> Feature:
    encoding = _by_type(table, asked) if isinstance(asked, str) else asked
    if isinstance(encoding, Number):
        return fit_numeric(table, encoding.column, encoding.clip_quantiles)
    if isinstance(encoding, Category):
        return fit_categorical(table, encoding.column, encoding.max_size, encoding.min_count)
    _check_column(table, encoding.column)
    return validated(Calendar, asdict(encoding), f"DatePart of {encoding.column!r}")


def _by_type(table: pa.Table, column: str) -> Number | Category:
    _check_column(table, column)
    kind = plain_type(table.column(column).type)
    if any(test(kind) for test in TEXTS):
        return Category(column)
    if any(test(kind) for test in NUMBER[1]):
        return Number(column)
    raise InputError(
        f"column {column!r} is {kind}, and nothing says how to encode it; give a part of it, such "
        f"as bs.DatePart({column!r}, 'weekday'), or leave it out"
    )


def fit_numeric(
    table: pa.Table, column: str, clip_quantiles: tuple[float, float] | None = (0.001, 0.999)
) -> Numeric:
    """Fit a Numeric: the median fills gaps, the quantiles clip; mean and deviation come after both.

    Raises InputError where the column has no finite value, or the quantiles are none.
    """
    _check_fit(table, column, *NUMBER)
    values_b = floats(table.column(column))
    known_b = values_b[np.isfinite(values_b)]
    if not len(known_b):
        raise InputError(f"column {column!r} has no finite value to fit; leave the feature out")
    impute = float(np.median(known_b))
    clip = None
    if clip_quantiles is not None:
        _check_quantiles(column, *clip_quantiles)
        low, high = np.quantile(known_b, clip_quantiles)
        clip = (float(low), float(high))
    filled_b = np.where(np.isfinite(values_b), values_b, impute)
    used_b = filled_b if clip is None else np.clip(filled_b, *clip)
    # A constant column has no deviation; it then encodes as zeros.
    std = float(used_b.std()) or 1.0
    return Numeric(column=column, impute=impute, mean=float(used_b.mean()), std=std, clip=clip)


def _check_quantiles(column: str, low: float, high: float) -> None:
    if not 0 <= low < high <= 1:
        raise InputError(
            f"Number of {column!r}: clip_quantiles are ({low}, {high}); expected a lower and a "
            "higher number from 0 to 1, such as (0.001, 0.999), or None"
        )


def fit_categorical(
    table: pa.Table, column: str, max_size: int = 1000, min_count: int = 1
) -> Categorical:
    """Fit a Categorical: values seen `min_count` times, the `max_size` most frequent, ties sorted.

    Raises InputError where no value is frequent enough.
    """
    _check_fit(table, column, "string or integer", (*TEXTS, pa.types.is_integer))
    chunks = [plain_values(chunk).drop_null() for chunk in table.column(column).chunks]
    found = pc.value_counts(pa.chunked_array(chunks or [pa.nulls(0)]))
    pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    frequent = sorted((-count, value) for value, count in pairs if count >= min_count)
    if not frequent:
        times = counted(min_count, "time")
        raise InputError(f"column {column!r} has no value that appears {times}; lower min_count")
    return Categorical(column=column, vocabulary=tuple(value for _, value in frequent[:max_size]))


def _check_fit(table: pa.Table, column: str, expected: str, fits: Sequence[Any]) -> None:
    _check_column(table, column)
    kind = plain_type(table.column(column).type)
    if not pa.types.is_null(kind) and not any(test(kind) for test in fits):
        raise InputError(f"column {column!r} is {kind}, expected {expected}; cast it")


def _check_column(table: pa.Table, column: str) -> None:
    times = table.schema.names.count(column)
    if times != 1:
        remedy = "rename one" if times else nearest(column, table.schema.names)
        raise InputError(
            f"column {column!r} is in the table {counted(times, 'time')}, expected once; {remedy}"
        )
