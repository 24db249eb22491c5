"""The accumulator of numbers, times among them: a canonical histogram, and what is not finite.

Suffixes: `_b` buckets, `_d` distinct values, `_e` the two ends of a range, `_m` the finite values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.arrays import valid_values
from batchscore.drift.accumulator import Part
from batchscore.drift.histogram import CAP, Buckets, Histogram
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED, UNSIGNED, KeySpace
from batchscore.messages.values import clock_text, duration_text

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
SPACES = {space.name: space for space in (FLOAT, PROBABILITY, SIGNED, UNSIGNED)}

_FLOATS = ("halffloat", "float", "double")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_UNIT = r"\[(s|ms|us|ns)"
_SPAN = re.compile(rf"(time32|time64|duration){_UNIT}\]")
_MOMENT = re.compile(rf"date32\[(day)\]|date64\[(ms)\]|timestamp{_UNIT}(, tz=.*)?\]", re.DOTALL)
_DECIMAL = re.compile(r"decimal(32|64|128|256)\(")
_DECIMALS: Mapping[int, Any] = MappingProxyType(
    {32: pa.decimal32, 64: pa.decimal64, 128: pa.decimal128, 256: pa.decimal256}
)
_EXACT_DIGITS, _EXACT_POWER = 15, 22  # integers and powers of ten that floats hold exactly
_COUNTS = ("nan", "pos_inf", "neg_inf", "below", "above", "zeros")


@dataclass
class Numbers:
    """Counts numbers of one Arrow type.

    Finite numbers are in `histogram`, zeros too. NaN and the infinities are only counted, and so
    are numbers `below` 0 and `above` 1 where the space is that of probabilities.
    """

    type: str
    space: KeySpace
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    below: int = 0
    above: int = 0
    zeros: int = 0
    histogram: Histogram = field(init=False)

    kind: ClassVar[str] = "numbers"
    extra: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Starts without any number."""
        self.histogram = Histogram(self.space)

    @property
    def n(self) -> int:
        """How many numbers were taken, NaN and infinities among them."""
        apart = self.nan + self.pos_inf + self.neg_inf + self.below + self.above
        return self.histogram.n + apart

    def update(self, values_n: NDArray[Any]) -> None:
        """Takes numbers of any dtype that casts to the space's without loss."""
        if not values_n.size:
            return
        # NaN and infinities show in the ends, which cost less than a look at each number.
        ends = values_n.min(), values_n.max()
        taken_m = values_n
        if values_n.dtype.kind == "f" and not (math.isfinite(ends[0]) and math.isfinite(ends[1])):
            finite_n = np.isfinite(values_n)
            self._count_not_finite(values_n[~finite_n])
            taken_m = values_n[finite_n]
        if self.space is PROBABILITY and not (ends[0] >= 0 and ends[1] <= 1):
            taken_m = self._within(taken_m)
        self.zeros += int(np.count_nonzero(taken_m == 0))
        self.histogram.update_values(taken_m, ends if taken_m is values_n else None)

    def update_counted(self, values_d: NDArray[np.int64], counts_d: NDArray[np.int64]) -> None:
        """Takes each integer as often as its count, above 0, says."""
        self.zeros += int(counts_d[values_d == 0].sum())
        self.histogram.update_counted(self.space.encode(values_d), counts_d)

    def merge(self, other: Numbers) -> None:
        """Adds what `other`, of the same space, has taken."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.histogram.merge(other.histogram)

    def scalars(self) -> dict[str, Any]:
        """Returns the counts that are not 0, the space, and the exact minimum and maximum."""
        counts = {name: getattr(self, name) for name in _COUNTS if getattr(self, name)}
        return {"space": self.space.name, **counts, **self._range()}

    def parts(self) -> dict[str, Part]:
        """Returns the buckets."""
        buckets = self.histogram.buckets()
        return {"buckets": Part(buckets.prefixes_b, buckets.counts_b, buckets.shifts_b)}

    @classmethod
    def restore(cls, type_: str, scalars: Mapping[str, Any], parts: Mapping[str, Part]) -> Numbers:
        """Reverses `scalars` and `parts`; ValueError where they do not fit each other."""
        space = SPACES[scalars["space"]]
        numbers = cls(type_, space, **{k: _count(scalars[k]) for k in _COUNTS if k in scalars})
        unknown = set(scalars) - {*_COUNTS, "space", "min", "max"} or set(parts) - {"buckets"}
        if unknown:
            raise ValueError(f"numbers have no {min(unknown)!r}")
        key_range = _key_range(space, scalars.get("min"), scalars.get("max"))
        numbers.histogram = Histogram.from_buckets(space, _buckets(parts), key_range)
        if numbers.zeros > numbers.histogram.n:
            raise ValueError("there are more zeros than numbers")
        return numbers

    def summary(self) -> dict[str, Any]:
        """Returns counts, and of the finite numbers minimum, maximum, mean, sigma, quantiles.

        They are exact up to 4096 distinct numbers, else taken from the middles of buckets; None
        without any. Dates, times and timestamps are ISO 8601, durations as `2 days 09:30:00.5`;
        sigma is in the type's own unit.
        """
        counts = {name: getattr(self, name) for name in ("nan", "pos_inf", "neg_inf")}
        if self.space is PROBABILITY:
            counts |= {"below": self.below, "above": self.above}
        return {**counts, "zeros": self.zeros, **_statistics(self.type, self.histogram)}

    def _count_not_finite(self, values_m: NDArray[Any]) -> None:
        above, below = np.count_nonzero(values_m > 0), np.count_nonzero(values_m < 0)
        self.pos_inf += int(above)
        self.neg_inf += int(below)
        self.nan += int(values_m.size - above - below)

    def _within(self, values_n: NDArray[Any]) -> NDArray[Any]:
        below_n, above_n = values_n < 0, values_n > 1
        below, above = int(np.count_nonzero(below_n)), int(np.count_nonzero(above_n))
        self.below += below
        self.above += above
        return values_n[~(below_n | above_n)] if below or above else values_n

    def _range(self) -> dict[str, int | str]:
        if self.histogram.key_range is None:
            return {}
        ends = self.space.decode(np.array(self.histogram.key_range, np.uint64)).tolist()
        low, high = (end.hex() if isinstance(end, float) else end for end in ends)
        return {"min": low, "max": high}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _buckets(parts: Mapping[str, Part]) -> Buckets:
    part = parts.get("buckets")
    if part is None:
        return Buckets(np.empty(0, np.uint8), np.empty(0, np.uint64), np.empty(0, np.int64))
    if part.shift_r is None or part.value_r or part.key_r.size > CAP:
        raise ValueError("these are not buckets")
    return Buckets(part.shift_r, part.key_r, part.count_r)


def _key_range(space: KeySpace, low: Any, high: Any) -> tuple[int, int] | None:
    if low is None and high is None:
        return None
    floats = space.dtype.kind == "f"
    if not all(type(end) is (str if floats else int) for end in (low, high)):
        raise ValueError(f"minimum {low!r} or maximum {high!r} is of the wrong kind")
    ends = [float.fromhex(end) for end in (low, high)] if floats else [low, high]
    ends_e = np.array(ends, space.dtype)
    if not np.all(np.isfinite(ends_e)):
        raise ValueError("minimum and maximum must be finite")
    if space is PROBABILITY and not 0 <= ends[0] <= ends[1] <= 1:
        raise ValueError("minimum and maximum must be from 0 to 1")
    lowest, highest = space.encode(ends_e).tolist()
    return lowest, highest


def key_space(type_: str) -> KeySpace | None:
    """Returns the keys of an Arrow type's numbers, None where its values are not numbers."""
    if type_ in _FLOATS or _DECIMAL.match(type_):
        return FLOAT
    if type_ == "uint64":
        return UNSIGNED
    return SIGNED if type_ in _INTEGERS or is_time(type_) else None


def is_time(type_: str) -> bool:
    """Tells whether a type is of dates, times, timestamps or durations."""
    return bool(_SPAN.fullmatch(type_) or _MOMENT.fullmatch(type_))


def number_values(array: pa.Array) -> NDArray[Any]:
    """Returns the values (n,) of a number or time array that are not null.

    Decimals are the nearest floats, the same as those of their text.
    """
    return _floats(array) if pa.types.is_decimal(array.type) else valid_values(array)


def _floats(array: pa.Array) -> NDArray[np.float64]:
    type_ = array.type
    assert pa.types.is_decimal(type_)
    if type_.precision > _EXACT_DIGITS or not 0 <= type_.scale <= _EXACT_POWER:
        return valid_values(array.cast(pa.string()).cast(pa.float64()))
    # Arrow's own cast rounds twice, and is off by a bit for some prices.
    whole = _DECIMALS[type_.bit_width](type_.precision, 0)
    unscaled = pa.Array.from_buffers(whole, len(array), array.buffers(), offset=array.offset)
    # Arrow's check of bounds refuses any of 32 bits, though 15 digits always fit.
    integers_n = valid_values(unscaled.cast(pa.int64(), safe=False))
    return np.asarray(integers_n / 10.0**type_.scale)


def _statistics(type_: str, histogram: Histogram) -> dict[str, Any]:
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
    middles_b = lows_b + (spans_b / 2 if space.dtype.kind == "f" else spans_b // 2).astype(
        space.dtype
    )
    if space.dtype.kind == "f":
        mean, sigma = _moments(middles_b, buckets.counts_b)
    else:
        # Distances from the minimum keep the precision that large integers lose as floats.
        distances_b = (buckets.first_keys_b.clip(*range_keys) - range_keys[0]) + spans_b / 2
        distance, sigma = _moments(distances_b, buckets.counts_b)
        offset = round(distance) if is_time(type_) else distance
        mean = int(space.decode(range_keys)[0]) + offset
    totals_b = buckets.counts_b.cumsum()
    ranks = [-(-percent * histogram.n // 100) for percent in PERCENTS]
    values = middles_b[np.searchsorted(totals_b, ranks)].tolist()
    low, high = space.decode(range_keys).tolist()
    places = {"min": low, "max": high, "mean": mean} | dict(zip(quantiles, values, strict=True))
    return {name: _shown(type_, value) for name, value in places.items()} | {"sigma": sigma}


def _moments(values_b: NDArray[np.float64], counts_b: NDArray[np.int64]) -> tuple[float, float]:
    """Returns mean and population sigma of values with counts, the same on every machine."""
    # Scaling by a power of two is exact and keeps sums and squares within range; fsum rounds
    # once, where NumPy's sum depends on the width of the vector unit.
    exponent = int(np.frexp(np.abs(values_b).max())[1])
    scaled_b = np.ldexp(values_b, -exponent)
    n = int(counts_b.sum())
    mean = float(scaled_b[0]) + math.fsum(((scaled_b - scaled_b[0]) * counts_b).tolist()) / n
    variance = math.fsum(((scaled_b - mean) ** 2 * counts_b).tolist()) / n
    return math.ldexp(mean, exponent), math.ldexp(math.sqrt(variance), exponent)


def shown_number(type_: str, value: float) -> str:
    """Returns a number of the type for people, at most 15 digits of it."""
    if not is_time(type_):
        return f"{value:.15g}"
    # The largest times are rounded up as floats, beyond all times.
    return str(_shown(type_, min(max(int(value), -(2**63)), 2**63 - 1)))


def _shown(type_: str, value: Any) -> Any:
    """Returns a value of the type as JSON has it: dates, times and durations as text."""
    span = _SPAN.fullmatch(type_)
    if span is not None:
        text = duration_text if span[1] == "duration" else clock_text
        return text(value, span[2])
    match = _MOMENT.fullmatch(type_)
    if match is None:
        return value
    day, date_ms, unit, zone = match.groups()
    moment = np.array(value, np.int64).view(f"M8[{'D' if day else date_ms or unit}]")
    if np.isnat(moment):  # the smallest int64, which is a value in Arrow
        return value
    return str(moment.astype("M8[D]") if date_ms else moment) + ("Z" if zone else "")
