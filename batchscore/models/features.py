"""The fitted preprocessing: readable JSON that turns raw columns into a model's inputs.

Suffixes: `_bf` rows by features, `_pk` positions of a table by its values, `_k` positions of one
value.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray

from batchscore.columnar.arrays import binary_array, raw_values, to_arrow, to_numpy
from batchscore.columnar.tables import as_batch
from batchscore.errors import InputError, ModelError, StepError
from batchscore.messages.wording import counted
from batchscore.models.validate import Frozen, validated

MISSING, UNSEEN, FIRST_KNOWN = 0, 1, 2

Part = Literal["month", "day", "weekday", "week", "day_of_year", "hour", "minute"]

# part -> (first value, number of values)
_RANGES = {
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (0, 7),
    "week": (1, 53),
    "day_of_year": (1, 366),
    "hour": (0, 24),
    "minute": (0, 60),
}
_EXTRACT = {
    "month": pc.month,
    "day": pc.day,
    "weekday": pc.day_of_week,
    "week": pc.iso_week,
    "day_of_year": pc.day_of_year,
    "hour": pc.hour,
    "minute": pc.minute,
}
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
NUMBER = (
    "a number or boolean",
    (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean),
)
# Columns are laid side by side in blocks of this many rows, so that a block stays in cache.
_BLOCK_ROWS = 4096


class Numeric(Frozen):
    """A number, standardised: one float32, `(clip(value or impute) - mean) / std`.

    Null and NaN count as missing and become `impute`. Infinities are clipped like any other value.
    """

    kind: Literal["numeric"] = "numeric"
    column: str
    impute: float
    mean: float
    std: Annotated[float, pydantic.Field(gt=0)]
    clip: tuple[float, float] | None = None

    @pydantic.field_validator("clip")
    @classmethod
    def _ordered(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and clip[0] > clip[1]:
            raise ValueError(f"the lower bound {clip[0]} is above the upper bound {clip[1]}")
        return clip


class Categorical(Frozen):
    """A category: one int64 index, 0 missing, 1 unseen, 2 and up the vocabulary in its order."""

    kind: Literal["categorical"] = "categorical"
    column: str
    vocabulary: tuple[pydantic.StrictStr, ...] | tuple[pydantic.StrictInt, ...]

    @pydantic.field_validator("vocabulary")
    @classmethod
    def _distinct(cls, vocabulary: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if not vocabulary or len(set(vocabulary)) != len(vocabulary):
            raise ValueError("needs at least one value, and each only once")
        whole = [value for value in vocabulary if isinstance(value, int)]
        if whole and not (_fits(whole, -(2**63), 2**63) or _fits(whole, 0, 2**64)):
            raise ValueError("holds integers that fit neither int64 nor uint64")
        return vocabulary

    @functools.cached_property
    def value_set(self) -> Any:
        """The vocabulary as an Arrow array (string, int64 or uint64), built once."""
        if isinstance(self.vocabulary[0], int):
            small = max(map(int, self.vocabulary)) < 2**63
            return to_arrow(np.array(self.vocabulary, np.int64 if small else np.uint64))
        texts = [str(value).encode() for value in self.vocabulary]
        return binary_array(texts, pa.large_string()).cast(pa.string())

    @property
    def size(self) -> int:
        """How many indices there are: the rows that an embedding table needs."""
        return FIRST_KNOWN + len(self.vocabulary)


class Calendar(Frozen):
    """A part of a date or time; weeks begin on Monday (weekday 0).

    With a `timezone` the part is local time there, else the time as the column's own zone tells it.
    `cyclic` gives two float32, sine and cosine of the part as an angle, and (0, 0) where it is
    missing. `scaled` gives one float32 from 0 (first) to 1 (last), and 0.5 where it is missing.
    An integer column is read as the part itself; a value out of the part's range is missing.
    """

    kind: Literal["calendar"] = "calendar"
    column: str
    part: Part
    encoding: Literal["cyclic", "scaled"] = "cyclic"
    timezone: str | None = None

    @pydantic.field_validator("timezone")
    @classmethod
    def _known_zone(cls, timezone: str | None) -> str | None:
        try:
            return timezone and ZoneInfo(timezone).key
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"{timezone!r} is not a zone of this machine's tz database") from error


Feature = Annotated[Numeric | Categorical | Calendar, pydantic.Field(discriminator="kind")]


class FeatureLists(Frozen):
    """What `preprocessing.json` holds: the features of each model input."""

    inputs: dict[str, tuple[Feature, ...]]

    @pydantic.field_validator("inputs")
    @classmethod
    def _one_dtype(cls, inputs: dict[str, tuple[Feature, ...]]) -> dict[str, tuple[Feature, ...]]:
        if not inputs:
            raise ValueError("needs at least one model input")
        for name, features in inputs.items():
            if len({_is_index(feature) for feature in features}) != 1:
                raise ValueError(
                    f"input {name!r} needs one or more features, all categorical (int64) or none "
                    "(float32); put categories into an input of their own"
                )
        return inputs


@dataclass(frozen=True)
class Features:
    """Which features make up each model input; the features of an input share a dtype.

    Args:
        inputs: By model input, its features in order. `fit_features` fits them to training rows.

    Raises:
        ModelError: A feature is not one, or the features of an input do not go together.
    """

    inputs: Mapping[str, tuple[Feature, ...]]

    def __post_init__(self) -> None:
        lists = validated(
            FeatureLists, {"inputs": self.inputs}, "Features", "fit_features makes valid ones"
        )
        object.__setattr__(self, "inputs", lists.inputs)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Pickles of versions in which it was pydantic's have the fields one level deeper.
        vars(self).update(state.get("__dict__", state))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `encode` reads, each once, in order of first use."""
        return required_columns(self)

    @property
    def widths(self) -> dict[str, int]:
        """By model input, how many values a row has."""
        return {name: width for name, (_, width) in input_shapes(self).items()}

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """By categorical column, how many indices there are: the rows of its embedding table."""
        members = [each for found in self.inputs.values() for each in found]
        return {each.column: each.size for each in members if isinstance(each, Categorical)}

    def encode(self, table: Any) -> dict[str, NDArray[Any]]:
        """Returns each model input as an array (rows, values) of float32 or int64.

        A run encodes rows in the same way, to the bit. torch takes the arrays as they are.

        Args:
            table: Rows with the columns that the features read: of Arrow, pandas or Polars, or a
                dict of NumPy arrays.

        Raises:
            InputError: A column is missing, or of a type that its feature does not read.
        """
        # torch warns of arrays that cannot be written to.
        encoded = encode(self, as_batch(table, "table")).items()
        return {name: to_numpy(column).copy() for name, column in encoded}


def load_features(text: str | bytes) -> Features:
    """Returns the features that `dump_features` wrote.

    Raises:
        ModelError: The text is not JSON, or not of features.
    """
    try:
        found = json.loads(text, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"preprocessing is not JSON: {error}; write it with dump_features"
        ) from error
    if not isinstance(found, dict):
        raise ModelError(f"preprocessing must be a JSON object, found {type(found).__name__}")
    return Features(validated(FeatureLists, found, "preprocessing").inputs)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"preprocessing has the key {duplicate!r} twice; keep one")
    return found


def dump_features(features: Features) -> str:
    """Return `features` as JSON with one feature a line; the same features give the same text."""
    blocks = []
    for name, members in features.inputs.items():
        plain = [member.model_dump(exclude_none=True) for member in members]
        lines = [json.dumps(each, ensure_ascii=False) for each in plain]
        blocks.append(f"    {json.dumps(name)}: [\n      " + ",\n      ".join(lines) + "\n    ]")
    return '{\n  "inputs": {\n' + ",\n".join(blocks) + "\n  }\n}\n"


def required_columns(features: Features) -> tuple[str, ...]:
    """Return the raw columns that `encode` reads, each once, in order of first use."""
    return tuple(dict.fromkeys(f.column for members in features.inputs.values() for f in members))


def input_shapes(features: Features) -> dict[str, tuple[str, int]]:
    """Return each model input's dtype (`float32` or `int64`) and width in values a row."""
    return {
        name: ("int64" if _is_index(members[0]) else "float32", sum(map(_width, members)))
        for name, members in features.inputs.items()
    }


def check_schema(features: Features, schema: pa.Schema) -> None:
    """Raise InputError for a column that is missing, there twice, or of a type that cannot be read.

    A column of Arrow's null type is fine: all of it is missing.
    """
    for members in features.inputs.values():
        for feature in members:
            _check_column(feature, schema)


def encode(features: Features, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return each model input as a FixedSizeList column: b rows of f float32 or int64, never null.

    The values lie in one contiguous buffer, which torch can take without a copy. What a row becomes
    does not depend, to the bit, on the batch that it is in. Raises InputError where the batch's
    schema does not fit, StepError where a column's values cannot be read.
    """
    check_schema(features, batch.schema)
    return {
        name: to_arrow(_side_by_side([c for f in members for c in _encoded(f, batch)]))
        for name, members in features.inputs.items()
    }


def _fits(values: Sequence[int], low: int, high: int) -> bool:
    return all(low <= value < high for value in values)


def _is_index(feature: Feature) -> bool:
    return isinstance(feature, Categorical)


def _width(feature: Feature) -> int:
    return 2 if isinstance(feature, Calendar) and feature.encoding == "cyclic" else 1


def _check_column(feature: Feature, schema: pa.Schema) -> None:
    found = schema.get_all_field_indices(feature.column)
    if len(found) != 1:
        raise InputError(
            f"column {feature.column!r} is in the batch {counted(len(found), 'time')}, expected "
            f"once; the model reads it as {feature.kind}. The batch has: "
            f"{', '.join(schema.names[:40])}"
        )
    dtype = schema.field(found[0]).type
    plain = plain_type(dtype)
    expected, fits = _expected(feature)
    if not pa.types.is_null(plain) and not any(test(plain) for test in fits):
        raise InputError(
            f"column {feature.column!r} has type {dtype}, expected {expected} for a "
            f"{feature.kind} feature; cast it in the job's preprocess function"
        )


def _expected(feature: Feature) -> tuple[str, Sequence[Any]]:
    """Return the kinds of column that `feature` can read, in words and as tests of a type."""
    t = pa.types
    if isinstance(feature, Numeric):
        return NUMBER
    if isinstance(feature, Calendar):
        if feature.timezone:
            zoned = "timestamp with a time zone"
            return zoned, [lambda dtype: t.is_timestamp(dtype) and dtype.tz is not None]
        if feature.part in ("hour", "minute"):
            return "timestamp, time or integer", [t.is_timestamp, t.is_time, t.is_integer]
        return "timestamp, date or integer", [t.is_timestamp, t.is_date, t.is_integer]
    if isinstance(feature.vocabulary[0], str):
        return "string", TEXTS
    return "integer or boolean", [t.is_integer, t.is_boolean]


def _encoded(feature: Feature, batch: pa.RecordBatch) -> list[NDArray[Any]]:
    """Return the feature's values, one array of b rows for each value that it has a row."""
    column = batch.column(feature.column)
    try:
        if isinstance(feature, Numeric):
            return [_standardised(feature, floats(column))]
        if isinstance(feature, Categorical):
            return [_index_of(feature, plain_values(column))]
        table_pk = _calendar_table(feature.part, feature.encoding)
        position_b = _positions(feature, plain_values(column))
        return [table_k[position_b] for table_k in table_pk.T]
    except pa.ArrowException as error:
        raise StepError(
            f"column {feature.column!r} ({column.type}) cannot be read as {feature.kind}: {error}; "
            "repair the shard, or cast the column in the job's preprocess function"
        ) from error


def _standardised(feature: Numeric, values_b: NDArray[np.float64]) -> NDArray[np.float32]:
    filled_b = np.where(np.isnan(values_b), feature.impute, values_b)
    if feature.clip is not None:
        np.clip(filled_b, *feature.clip, out=filled_b)
    filled_b -= feature.mean
    filled_b /= feature.std
    with np.errstate(over="ignore"):
        return filled_b.astype(np.float32)


def _index_of(feature: Categorical, column: pa.Array) -> NDArray[np.int64]:
    values = feature.value_set
    if pa.types.is_null(column.type):
        column = column.cast(values.type)
    elif pa.types.is_integer(values.type):
        column = column if pa.types.is_uint64(column.type) else column.cast(pa.int64())
        if column.type != values.type:
            # Decimals hold both ranges; a cast to int64 would make large values negative ones.
            column, values = column.cast(pa.decimal128(20, 0)), values.cast(pa.decimal128(20, 0))
    known = pc.index_in(column, value_set=values.cast(column.type))
    index_b = _filled(known, UNSEEN - FIRST_KNOWN).astype(np.int64) + FIRST_KNOWN
    if column.null_count:
        index_b[to_numpy(column.is_null())] = MISSING
    return index_b


def _positions(feature: Calendar, column: pa.Array) -> NDArray[np.int64]:
    """Return each row's position in the part's table; the last position is for missing values."""
    first, count = _RANGES[feature.part]
    if feature.timezone and pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit, feature.timezone))
    if pa.types.is_temporal(column.type):
        column = _EXTRACT[feature.part](column)
    # uint64 wraps below zero here, out of every part's range.
    value_b = _filled(column.cast(pa.int64(), safe=False), first - 1)
    known_b = (value_b >= first) & (value_b < first + count)
    return np.where(known_b, value_b - first, count)


@functools.cache
def _calendar_table(part: Part, encoding: str) -> NDArray[np.float32]:
    """Return p positions (the last one missing) by k values; looked up, so equal on every batch."""
    _, count = _RANGES[part]
    if encoding == "scaled":
        rows = [[position / (count - 1)] for position in range(count)] + [[0.5]]
    else:
        angles = [2 * math.pi * position / count for position in range(count)]
        rows = [[math.sin(angle), math.cos(angle)] for angle in angles] + [[0.0, 0.0]]
    return np.array(rows, dtype=np.float32)


def floats(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers as float64, missing ones as NaN."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.empty(0), *map(floats, column.chunks)])
    return _filled(plain_values(column).cast(pa.float64(), safe=False), math.nan)


def plain_values(column: pa.Array) -> pa.Array:
    """Return values without a dictionary, and large strings in place of views."""
    # Arrow can neither take nor look up views.
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if not isinstance(column, pa.DictionaryArray):
        return column
    if pa.types.is_string_view(column.type.value_type):
        values = column.dictionary.cast(pa.large_string())
        column = pa.DictionaryArray.from_arrays(column.indices, values)
    return column.dictionary_decode()


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns a type without its dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _filled(column: pa.Array, missing: float) -> NDArray[Any]:
    """Return numbers as NumPy with `missing` for null; `fill_null` would import pandas."""
    values_b = raw_values(column)
    if not column.null_count:
        return values_b
    return np.where(to_numpy(column.is_null()), missing, values_b)


def _side_by_side(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return f arrays of b rows as one row-major array of b rows and f values."""
    rows = len(columns[0])
    values_bf = np.empty((rows, len(columns)), columns[0].dtype)
    for start in range(0, rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        np.stack([column[block] for column in columns], axis=1, out=values_bf[block])
    return values_bf
