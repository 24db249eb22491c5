"""The fitted preprocessing: readable JSON that turns raw columns into a model's inputs.

Suffixes: `_pk` positions of a table by its values, `_k` positions of one
value.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.columnar.tables import as_batch
from batchscore.columnar.text_columns import TEXT_OR_INTEGER, texts_from_arrow
from batchscore.columnar.texts import TEXT
from batchscore.errors import InputError, ModelError, StepError
from batchscore.messages.wording import counted
from batchscore.models.column_values import (
    NUMBER,
    TEXTS,
    filled_with,
    floats,
    plain_type,
    plain_values,
    side_by_side,
)
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Coded, Plain
from batchscore.models.validate import Frozen, validated
from batchscore.models.vocabulary import ABSENT, HasVocabulary, Vocabulary

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


# What a feature of texts reads if it says which of the two training had.
_TEXT_TYPES = {"text": ("text", TEXTS), "integer": ("integer", (pa.types.is_integer,))}


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


class Categorical(Frozen, HasVocabulary):
    """A category: one int64 index, 0 missing, 1 unseen, 2 and up the vocabulary in its order."""

    kind: Literal["categorical"] = "categorical"
    column: str
    vocabulary: Vocabulary

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


Feature = Annotated[
    Numeric | Categorical | Calendar | Plain | Coded | Verbatim,
    pydantic.Field(discriminator="kind"),
]


class FeatureLists(Frozen):
    """What `preprocessing.json` holds: the features of each model input."""

    inputs: dict[str, tuple[Feature, ...]]

    @pydantic.field_validator("inputs")
    @classmethod
    def _one_dtype(cls, inputs: dict[str, tuple[Feature, ...]]) -> dict[str, tuple[Feature, ...]]:
        if not inputs:
            raise ValueError("needs at least one model input")
        for name, features in inputs.items():
            kinds = {_dtype(feature) for feature in features}
            if TEXT in kinds and len(features) > 1:
                raise ValueError(
                    f"input {name!r} has a text feature and others; give the text an input of its "
                    "own"
                )
            if len(kinds) != 1:
                raise ValueError(
                    f"input {name!r} needs one or more features of one type: all categorical "
                    "(int64), or all of them float32, or plain and coded ones of float64; put "
                    "others into an input of their own"
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
        return {name: math.prod(shape) for name, (_, shape) in input_shapes(self).items()}

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """By categorical column, how many indices there are: the rows of its embedding table."""
        members = [each for found in self.inputs.values() for each in found]
        return {each.column: each.size for each in members if isinstance(each, Categorical)}

    def encode(self, table: Any) -> dict[str, NDArray[Any]]:
        """Returns each model input as an array (rows, values) of float32, float64 or int64.

        A run encodes rows in the same way, to the bit. torch takes the arrays as they are. An
        input that is a text is an array (rows,) of texts.

        Args:
            table: Rows with the columns that the features read: of Arrow, pandas or Polars, or a
                dict of NumPy arrays.

        Raises:
            InputError: A column is missing, or of a type that its feature does not read.
        """
        # torch warns of arrays that cannot be written to.
        encoded = encode(self, as_batch(table, "table")).items()
        return {
            name: texts_from_arrow(column).spelled()
            if isinstance(column, pa.DictionaryArray)
            else to_numpy(column).copy()
            for name, column in encoded
        }


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


def input_shapes(features: Features) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return each model input's dtype (float32, float64, int64 or text) and shape of a row."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, members in features.inputs.items():
        kind = _dtype(members[0])
        found[name] = (kind, () if kind == TEXT else (sum(map(_width, members)),))
    return found


def entry_columns(features: Features) -> tuple[str, ...]:
    """Return the column of each number of the model inputs, in order."""
    members = [f for found in features.inputs.values() for f in found]
    return tuple(f.column for f in members for _ in range(_width(f)))


def check_schema(features: Features, schema: pa.Schema) -> None:
    """Raise InputError for a column that is missing, there twice, or of a type that cannot be read.

    A column of Arrow's null type is fine: all of it is missing.
    """
    for members in features.inputs.values():
        for feature in members:
            _check_column(feature, schema)


def encode(features: Features, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return each model input as a FixedSizeList column: b rows of f numbers, never null.

    A text is a column of `to_text_column`, null where a row has none. Numbers lie in one contiguous
    buffer, which torch can take without a copy. What a row becomes does not depend, to the bit, on
    the batch that it is in. Raises InputError where the batch's schema does not fit, StepError
    where a column's values cannot be read.
    """
    check_schema(features, batch.schema)
    return {name: _input(members, batch) for name, members in features.inputs.items()}


def _input(members: Sequence[Feature], batch: pa.RecordBatch) -> pa.Array:
    only = members[0]
    if isinstance(only, Verbatim):
        with _readable(only, batch):
            texts = only.encode(batch.column(only.column))
        return texts
    return to_arrow(side_by_side([c for f in members for c in _encoded(f, batch)]))


def _dtype(feature: Feature) -> str:
    if isinstance(feature, Verbatim):
        return TEXT
    if isinstance(feature, Plain | Coded):
        return feature.type
    return "int64" if isinstance(feature, Categorical) else "float32"


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
    if isinstance(feature, Numeric | Plain):
        return NUMBER
    if isinstance(feature, Verbatim):
        return _TEXT_TYPES.get(feature.type or "", TEXT_OR_INTEGER)
    if isinstance(feature, Calendar):
        if feature.timezone:
            zoned = "timestamp with a time zone"
            return zoned, [lambda dtype: t.is_timestamp(dtype) and dtype.tz is not None]
        if feature.part in ("hour", "minute"):
            return "timestamp, time or integer", [t.is_timestamp, t.is_time, t.is_integer]
        return "timestamp, date or integer", [t.is_timestamp, t.is_date, t.is_integer]
    if feature.is_text:
        return "string", TEXTS
    return "integer or boolean", [t.is_integer, t.is_boolean]


def reads_integers(feature: Feature) -> bool:
    """Tell whether a feature reads integers, and no floats."""
    _, fits = _expected(feature)
    return pa.types.is_integer in fits and pa.types.is_floating not in fits


def _encoded(feature: Feature, batch: pa.RecordBatch) -> list[NDArray[Any]]:
    """Return the feature's values, one array of b rows for each value that it has a row."""
    with _readable(feature, batch):
        values = _values(feature, batch.column(feature.column))
    return values


def _values(feature: Feature, column: pa.Array) -> list[NDArray[Any]]:
    if isinstance(feature, Numeric):
        return [_standardised(feature, floats(column))]
    if isinstance(feature, Categorical):
        return [_index_of(feature, column)]
    if isinstance(feature, Plain | Coded):
        return [feature.encode(column)]
    assert isinstance(feature, Calendar)
    table_pk = _calendar_table(feature.part, feature.encoding)
    position_b = _positions(feature, plain_values(column))
    return [table_k[position_b] for table_k in table_pk.T]


@contextmanager
def _readable(feature: Feature, batch: pa.RecordBatch) -> Iterator[None]:
    """Names the column in an error of Arrow's."""
    column = batch.column(feature.column)
    try:
        yield
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
    column = plain_values(column)
    index_b = feature.places(column)
    index_b[index_b == ABSENT] = UNSEEN - FIRST_KNOWN
    index_b += FIRST_KNOWN
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
    value_b = filled_with(column.cast(pa.int64(), safe=False), first - 1)
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
