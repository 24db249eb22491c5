"""A literal of a filter as a value of its column's type, exact or with what lies next to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

_EPOCH = datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FRACTION = re.compile(r"(.*\d)\.(\d+)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?")
_BOOLEANS = {"true": True, "false": False}
_UUID_BYTES = 16


@dataclass(frozen=True)
class Place:
    """Where a literal lies among the values of a column's type.

    Args:
        floor: The largest value that is at most the literal; None where all values are above it.
        exact: Whether that is the literal itself.
    """

    floor: pa.Scalar | None
    exact: bool


def place(literal: Any, kind: pa.DataType) -> Place:
    """Returns where a literal lies among the values of a type.

    An integer is compared as it is written, and a float as its shortest decimal text. With floats,
    a float is the nearest value of the type. A date is midnight, in UTC where there is a zone.

    Raises:
        ValueError: The literal cannot be compared with the type; says what to write instead.
    """
    for belongs, find in _FAMILIES:
        if belongs(kind):
            return find(literal, kind)
    raise ValueError("no literal can be compared with this type; filter by another column")


def is_comparable(kind: pa.DataType) -> bool:
    """Tells whether literals can be compared with a type at all."""
    return any(belongs(kind) for belongs, _ in _FAMILIES)


def next_above(floor: pa.Scalar) -> pa.Scalar:
    """Returns the smallest float of a type that is above another."""
    dtype = _float_dtype(floor.type)
    return _float_scalar(np.nextafter(dtype.type(floor.as_py()), dtype.type(np.inf)), floor.type)


def _number(literal: Any) -> Fraction:
    """Returns a number exactly; a text counts where it is one, as in a placeholder's value."""
    unlike = isinstance(literal, bool | date)
    if unlike or (isinstance(literal, str) and not _NUMBER.fullmatch(literal)):
        raise ValueError("write a number")
    return Fraction(Decimal(str(literal)))


def _grid(steps: Fraction, low: int, high: int, make: Callable[[int], pa.Scalar]) -> Place:
    """Returns the place of a number among the integers from low to high."""
    floor = steps.numerator // steps.denominator
    if floor < low:
        return Place(None, exact=False)
    return Place(make(min(floor, high)), exact=floor == steps and floor <= high)


def _integer(literal: Any, kind: pa.DataType) -> Place:
    bits = kind.bit_width
    signed = pa.types.is_signed_integer(kind)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return _grid(_number(literal), low, high, lambda n: pa.scalar(n, kind))


def _decimal(literal: Any, kind: pa.DataType) -> Place:
    assert pa.types.is_decimal(kind)
    high, scale = 10**kind.precision - 1, kind.scale
    steps = _number(literal) * Fraction(10) ** scale

    def make(steps: int) -> pa.Scalar:
        # Decimal arithmetic would round to its context's 28 digits.
        digits = tuple(map(int, str(abs(steps))))
        return pa.scalar(Decimal((int(steps < 0), digits, -scale)), kind)

    return _grid(steps, -high, high, make)


def _float(literal: Any, kind: pa.DataType) -> Place:
    dtype, number = _float_dtype(kind), _number(literal)
    with np.errstate(over="ignore"):
        nearest = dtype.type(_nearest_double(number))
    if np.isfinite(nearest) and not isinstance(literal, int):
        return Place(_float_scalar(nearest, kind), exact=True)
    exact = bool(np.isfinite(nearest)) and Fraction(float(nearest)) == number
    if not exact and (nearest > 0 if np.isinf(nearest) else Fraction(float(nearest)) > number):
        nearest = np.nextafter(nearest, dtype.type(-np.inf))
    return Place(_float_scalar(nearest, kind), exact)


def _nearest_double(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _float_dtype(kind: pa.DataType) -> np.dtype[Any]:
    return np.dtype(f"f{kind.bit_width // 8}")


def _float_scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(float(value), kind)


def _boolean(literal: Any, kind: pa.DataType) -> Place:
    value = _BOOLEANS.get(literal, literal) if isinstance(literal, str) else literal
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return Place(pa.scalar(value, kind), exact=True)


def _text(literal: Any, kind: pa.DataType) -> Place:
    if not isinstance(literal, str):
        raise ValueError("write a text, in quotes")
    plain = literal if _is_string(kind) else literal.encode()
    return Place(pa.scalar(plain, kind), exact=True)


def _fixed_bytes(literal: Any, kind: pa.DataType) -> Place:
    width = kind.byte_width
    data = literal.encode() if isinstance(literal, str) else b""
    if isinstance(literal, str) and width == _UUID_BYTES and len(data) != width:
        try:
            data = UUID(literal).bytes
        except ValueError:
            data = b""
    if len(data) != width or not width:
        uuid = ", or a UUID" if width == _UUID_BYTES else ""
        raise ValueError(f"write a text of {width} bytes{uuid}, in quotes")
    return Place(pa.scalar(data, kind), exact=True)


def _instant(literal: Any, zoned: bool | None) -> Fraction:
    """Returns the seconds since 1970 of a date or date-time, or of a text that is one.

    Args:
        zoned: Whether a date-time needs an offset from UTC; None: it may have one.
    """
    expected = "a date-time with its offset, such as 2026-11-20T01:30:00Z"
    if zoned is None:
        expected = "a date, such as 2026-11-20"
    if zoned is False:
        expected = "a date-time without an offset, such as 2026-11-20T01:30:00"
    fraction = Fraction(0)
    if isinstance(literal, str):
        text, fraction = _split_fraction(literal)
        try:
            literal = datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"write {expected}") from error
    if isinstance(literal, datetime):
        if zoned is not None and (literal.tzinfo is not None) != zoned:
            raise ValueError(f"write {expected}")
        # In UTC it may be of a year that Python does not have.
        passed = literal.replace(tzinfo=None) - _EPOCH - (literal.utcoffset() or timedelta())
    elif isinstance(literal, date):
        passed = datetime.combine(literal, time()) - _EPOCH
    else:
        raise ValueError(f"write {expected}")
    whole = passed.days * 86_400 + passed.seconds
    return whole + Fraction(passed.microseconds, 10**6) + fraction


def _split_fraction(text: str) -> tuple[str, Fraction]:
    """Returns a text without the digits below a second, which Python cuts to six, and these.

    A final `Z` becomes an offset, since Python 3.10 does not know it.
    """
    text = f"{text[:-1]}+00:00" if text.endswith("Z") else text
    found = _FRACTION.fullmatch(text)
    if found is None:
        return text, Fraction(0)
    return found[1] + found[3], Fraction(int(found[2]), 10 ** len(found[2]))


def _timestamp(literal: Any, kind: pa.DataType) -> Place:
    assert pa.types.is_timestamp(kind)
    steps = _instant(literal, kind.tz is not None) * _PER_SECOND[kind.unit]
    return _int64_grid(steps, kind)


def _date(literal: Any, kind: pa.DataType) -> Place:
    seconds = _instant(literal, None)
    if pa.types.is_date64(kind):
        return _int64_grid(seconds * 1000, kind)
    return _int32_grid(seconds / 86_400, kind)


def _time(literal: Any, kind: pa.DataType) -> Place:
    assert pa.types.is_time(kind)
    expected = "write a time as a text in quotes, such as '01:30:00'"
    text, fraction = _split_fraction(literal) if isinstance(literal, str) else ("", Fraction(0))
    try:
        at = time.fromisoformat(text)
    except ValueError as error:
        raise ValueError(expected) from error
    if at.tzinfo is not None:
        raise ValueError(f"{expected}, without an offset")
    seconds = at.hour * 3600 + at.minute * 60 + at.second + fraction
    grid = _int32_grid if pa.types.is_time32(kind) else _int64_grid
    return grid(seconds * _PER_SECOND[kind.unit], kind)


def _int32_grid(steps: Fraction, kind: pa.DataType) -> Place:
    make = _cast_from(pa.int32(), kind)
    return _grid(steps, -(1 << 31), (1 << 31) - 1, make)


def _int64_grid(steps: Fraction, kind: pa.DataType) -> Place:
    make = _cast_from(pa.int64(), kind)
    return _grid(steps, -(1 << 63), (1 << 63) - 1, make)


def _cast_from(storage: pa.DataType, kind: pa.DataType) -> Callable[[int], pa.Scalar]:
    return lambda steps: pa.array([steps], storage).view(kind)[0]


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(_is_string(kind) or types.is_binary(kind) or types.is_large_binary(kind))


_Find = Callable[[Any, pa.DataType], Place]
_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], _Find], ...] = (
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_boolean, _boolean),
    (_is_text, _text),
    (pa.types.is_fixed_size_binary, _fixed_bytes),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_date, _date),
    (pa.types.is_time, _time),
)
