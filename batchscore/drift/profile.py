"""Profile the columns of record batches in mergeable, canonical accumulators."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchscore.drift.histogram import Histogram
from batchscore.drift.keys import FLOAT, SIGNED, UNSIGNED, KeySpace
from batchscore.errors import InputError

TEXT_BYTES = 64  # smallest and largest strings are kept up to this length
PERCENTS = (1, 5, 25, 50, 75, 95, 99)

_FLOATS = ("halffloat", "float", "double")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_UNIT = r"\[(s|ms|us|ns)"
_TIME = re.compile(rf"(?:time32|time64|duration){_UNIT}\]")
_MOMENT = re.compile(rf"date32\[(day)\]|date64\[(ms)\]|timestamp{_UNIT}(, tz=.*)?\]", re.DOTALL)
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_DTYPES: Mapping[str, str] = MappingProxyType(
    {"halffloat": "f2", "float": "f4", "double": "f8", "uint8": "u1", "uint16": "u2"}
    | {"uint32": "u4", "uint64": "u8"}
)


@dataclass
class ColumnProfile:
    """What is known of one column; `update` and `merge` change it.

    `type` is the Arrow type's name, a dictionary's that of its values. `count` is rows, nulls
    among them. Finite numbers are in `histogram`, zeros too; NaN and the infinities are only
    counted. `text_range` holds the smallest and largest string or binary value in bytes, cut to
    `TEXT_BYTES`. Types that are neither have only `count` and `nulls`.
    """

    type: str
    count: int = 0
    nulls: int = 0
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    zeros: int = 0
    histogram: Histogram | None = field(init=False)
    text_range: tuple[bytes, bytes] | None = None

    def __post_init__(self) -> None:
        """Choose the histogram that the type needs."""
        space = key_space(self.type)
        self.histogram = None if space is None else Histogram(space)

    def update(self, array: pa.Array) -> None:
        """Add the values of `array`, which has this column's type."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        self.count += len(array)
        self.nulls += array.null_count
        if self.histogram is not None:
            self._add_numbers(self.histogram, valid_values(array))
        elif is_text(self.type):
            self._widen_text(_text_range(array))

    def merge(self, other: ColumnProfile) -> None:
        """Add what `other`, a profile of the same type, has seen."""
        self.count += other.count
        self.nulls += other.nulls
        self.nan += other.nan
        self.pos_inf += other.pos_inf
        self.neg_inf += other.neg_inf
        self.zeros += other.zeros
        self._widen_text(other.text_range)
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)

    def summary(self) -> dict[str, Any]:
        """Return JSON-able statistics.

        Numbers: minimum, maximum, quantiles, mean and population sigma of the finite values, None
        without any. They are exact up to 4096 distinct values, else taken from the middles of
        buckets. Dates and timestamps are ISO 8601; their sigma is in the type's own unit.
        """
        summary: dict[str, Any] = {"type": self.type, "count": self.count, "nulls": self.nulls}
        if self.histogram is not None:
            summary |= {"nan": self.nan, "pos_inf": self.pos_inf, "neg_inf": self.neg_inf}
            summary |= {"zeros": self.zeros} | _number_statistics(self.type, self.histogram)
        elif is_text(self.type):
            ends = self.text_range or (None, None)
            texts = [None if end is None else _readable(self.type, end) for end in ends]
            summary |= {"min": texts[0], "max": texts[1]}
        return summary

    def _add_numbers(self, histogram: Histogram, values_n: NDArray[Any]) -> None:
        if values_n.dtype.kind == "f":
            finite_n = np.isfinite(values_n)
            if not finite_n.all():
                self._count_not_finite(values_n[~finite_n])
                values_n = values_n[finite_n]
        self.zeros += int(np.count_nonzero(values_n == 0))
        space = histogram.space
        histogram.update(space.encode(values_n.astype(space.dtype, copy=False)))

    def _count_not_finite(self, values_m: NDArray[Any]) -> None:
        above, below = np.count_nonzero(values_m > 0), np.count_nonzero(values_m < 0)
        self.pos_inf += int(above)
        self.neg_inf += int(below)
        self.nan += int(values_m.size - above - below)

    def _widen_text(self, ends: tuple[bytes, bytes] | None) -> None:
        if ends is not None:
            low, high = self.text_range or ends
            self.text_range = min(low, ends[0]), max(high, ends[1])


@dataclass
class TableProfile:
    """Profiles of a table's columns by name; a column is there from the first batch that has it.

    The same rows give the same profile in every partition, order and merge tree.
    """

    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> TableProfile:
        """Return the profile of no rows, neutral in `merge`."""
        return cls()

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`; nothing is added where InputError is raised.

        InputError: a column's type differs from before, or two columns have one name.
        """
        names = batch.schema.names
        types = dict(zip(names, map(type_name, batch.schema.types), strict=True))
        if len(types) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"column {twice!r} is there twice; names must differ, so rename one")
        self._require(types)
        for name, array in zip(types, batch.columns, strict=True):
            self.columns.setdefault(name, ColumnProfile(types[name])).update(array)

    def merge(self, other: TableProfile) -> None:
        """Add what `other` has seen; raises InputError where a column's types differ."""
        self._require({name: column.type for name, column in other.columns.items()})
        for name, column in other.columns.items():
            self.columns.setdefault(name, ColumnProfile(column.type)).merge(column)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the JSON-able statistics of each column, names sorted."""
        return {name: self.columns[name].summary() for name in sorted(self.columns)}

    def _require(self, types: Mapping[str, str]) -> None:
        for name, type_ in types.items():
            known = self.columns.get(name)
            if known is not None and known.type != type_:
                raise InputError(
                    f"column {name!r} is {type_}, but was {known.type} in what was profiled "
                    f"before; one column has one type, so cast it to {known.type}"
                )


def type_name(type_: pa.DataType) -> str:
    """Return the name of an Arrow type, of a dictionary type that of its values."""
    return str(type_.value_type if pa.types.is_dictionary(type_) else type_)


def key_space(type_: str) -> KeySpace | None:
    """Return the keys of a type's numbers, None where its values are not numbers."""
    if type_ in _FLOATS:
        return FLOAT
    if type_ == "uint64":
        return UNSIGNED
    return SIGNED if type_ in _INTEGERS or _is_time(type_) else None


def is_text(type_: str) -> bool:
    """Return whether values of the type are strings or binary."""
    return type_ in _TEXTS or type_.startswith("fixed_size_binary[")


def valid_values(array: pa.Array) -> NDArray[Any]:
    """Return the values of a number array that are not null, a view where all are valid."""
    validity, data = array.buffers()
    if data is None or not len(array):
        return np.empty(0, _DTYPES.get(str(array.type), "i8"))
    rows = slice(array.offset, array.offset + len(array))
    if pa.types.is_boolean(array.type):
        values_n = _bits(data, rows).astype(np.int64)
    else:
        dtype = _DTYPES.get(str(array.type), f"i{array.type.bit_width // 8}")
        values_n = np.frombuffer(data, dtype, count=rows.stop)[rows]
    if validity is None or not array.null_count:
        return values_n
    return values_n[_bits(validity, rows).view(np.bool_)]


def _is_time(type_: str) -> bool:
    return bool(_TIME.fullmatch(type_) or _MOMENT.fullmatch(type_))


def _bits(data: pa.Buffer, rows: slice) -> NDArray[np.uint8]:
    first = rows.start // 8
    bytes_n = np.frombuffer(data, np.uint8, count=-(-rows.stop // 8) - first, offset=first)
    return np.unpackbits(bytes_n, bitorder="little")[rows.start - 8 * first : rows.stop - 8 * first]


def _text_range(array: pa.Array) -> tuple[bytes, bytes] | None:
    ends = pc.min_max(array.cast(pa.large_binary()))
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return None if low is None else (low[:TEXT_BYTES], high[:TEXT_BYTES])


def _number_statistics(type_: str, histogram: Histogram) -> dict[str, Any]:
    quantiles = [f"p{percent:02d}" for percent in PERCENTS]
    if histogram.key_range is None:
        return dict.fromkeys(["min", "max", "mean", "sigma", *quantiles])
    space, buckets = histogram.space, histogram.buckets()
    range_keys = np.array(histogram.key_range, np.uint64)
    lows_b, highs_b = (
        space.decode(np.clip(keys_b, *range_keys))
        for keys_b in (buckets.first_keys_b, buckets.last_keys_b)
    )
    # Both ends have one sign, so that the difference cannot overflow.
    spans_b = highs_b - lows_b
    middles_b = lows_b + (spans_b / 2 if space is FLOAT else spans_b // 2).astype(space.dtype)
    if space is FLOAT:
        mean, sigma = _moments(middles_b, buckets.counts_b)
    else:
        # Distances from the minimum keep the precision that large integers lose as floats.
        distances_b = (buckets.first_keys_b.clip(*range_keys) - range_keys[0]) + spans_b / 2
        distance, sigma = _moments(distances_b, buckets.counts_b)
        offset = round(distance) if _is_time(type_) else distance
        mean = int(space.decode(range_keys)[0]) + offset
    totals_b = buckets.counts_b.cumsum()
    ranks = [-(-percent * histogram.n // 100) for percent in PERCENTS]
    values = middles_b[np.searchsorted(totals_b, ranks)].tolist()
    low, high = space.decode(range_keys).tolist()
    places = {"min": low, "max": high, "mean": mean} | dict(zip(quantiles, values, strict=True))
    return {name: _shown(type_, value) for name, value in places.items()} | {"sigma": sigma}


def _moments(values_b: NDArray[np.float64], counts_b: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and population sigma of values with counts, the same on every machine."""
    # Scaling by a power of two is exact and keeps sums and squares within range; fsum rounds
    # once, where NumPy's sum depends on the width of the vector unit.
    exponent = int(np.frexp(np.abs(values_b).max())[1])
    scaled_b = np.ldexp(values_b, -exponent)
    n = int(counts_b.sum())
    mean = float(scaled_b[0]) + math.fsum((scaled_b - scaled_b[0]) * counts_b) / n
    variance = math.fsum((scaled_b - mean) ** 2 * counts_b) / n
    return math.ldexp(mean, exponent), math.ldexp(math.sqrt(variance), exponent)


def _shown(type_: str, value: Any) -> Any:
    """Return a value of the type as JSON has it: dates and timestamps in ISO 8601."""
    match = _MOMENT.fullmatch(type_)
    if match is None:
        return value
    day, date_ms, unit, zone = match.groups()
    moment = np.array(value, np.int64).view(f"M8[{'D' if day else date_ms or unit}]")
    if np.isnat(moment):  # the smallest int64, which is a value in Arrow
        return value
    return str(moment.astype("M8[D]") if date_ms else moment) + ("Z" if zone else "")


def _readable(type_: str, value: bytes) -> str:
    """Return a string as text, without a last character that was cut, and binary as hex."""
    return value.decode(errors="ignore") if "string" in type_ else value.hex()
