"""Which rows of two columns differ: floats beyond a tolerance, all else where it is not equal."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, python_rows, to_numpy
from batchscore.messages.wording import one_line

# Kernels round the last digits of a float by its place in an array: 64 steps of a float32 or
# float64, 4 of a float16, which has three digits.
_ROUNDING = {16: 2.0**-8, 32: 2.0**-17, 64: 2.0**-46}
_SHOWN_CHARACTERS = 60
# So far a difference of two texts is looked for.
_MOST_CHARACTERS = 100_000


def differing_rows(known: pa.Array, made: pa.Array, tolerance: float) -> Array:
    """Returns a mask (b,) of the rows in which two columns of as many rows differ.

    Floats may differ by the tolerance and by rounding. NaN equals NaN, and -0.0 equals 0.0. Values
    count, not types: 1 equals 1.0.
    """
    if known.type == made.type and known.equals(made):
        return np.zeros(len(known), np.bool_)
    apart = _apart(known, made, tolerance)
    if apart is not None:
        return np.asarray(apart.reshape(len(known), -1).any(axis=1))
    rounding = max(_rounding(known.type), _rounding(made.type))
    pairs = zip(_values(known), _values(made), strict=True)
    return np.array([not _alike(a, b, tolerance, rounding) for a, b in pairs], np.bool_)


def describe_pair(
    known: pa.Array, made: pa.Array, row: int, tolerance: float
) -> tuple[int | None, str, str]:
    """Returns both values of a row that differs, as texts.

    Of a vector, these are the first elements that differ; the first value is their place in it.
    """
    known, made = known.slice(row, 1), made.slice(row, 1)
    apart = _apart(known, made, tolerance)
    if apart is None or apart.ndim == 1:
        return None, *_shown_pair(_values(known)[0], _values(made)[0])
    place = int(np.flatnonzero(apart)[0])
    before, after = (to_numpy(column).reshape(-1)[place].item() for column in (known, made))
    return place, *_shown_pair(before, after)


def _apart(known: pa.Array, made: pa.Array, tolerance: float) -> Array | None:
    """Returns a mask of the numbers (b, …) that differ; None where they are no such arrays."""
    pair = _numbers(known), _numbers(made)
    if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
        return None
    if all(values.dtype.kind in "biu" for values in pair if values is not None):
        return np.asarray(pair[0] != pair[1])
    rounding = max(_rounding(known.type), _rounding(made.type))
    first, second = pair[0].astype(np.float64), pair[1].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(first - second)
        allowed = tolerance + rounding * np.maximum(np.abs(first), np.abs(second))
        near = np.isfinite(gaps) & (gaps <= allowed)
    return np.asarray(~(near | (first == second) | (np.isnan(first) & np.isnan(second))))


def _numbers(column: pa.Array) -> Array | None:
    try:
        return to_numpy(column)
    except ValueError:
        return None


def _rounding(kind: pa.DataType) -> float:
    """Returns how far a type's floats may differ relative to their size; 0 where it has none."""
    if isinstance(kind, pa.BaseExtensionType):
        return _rounding(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _rounding(kind.value_type)
    if pa.types.is_floating(kind):
        return _ROUNDING[kind.bit_width]
    return max((_rounding(kind.field(i).type) for i in range(kind.num_fields)), default=0.0)


def _values(column: pa.Array) -> list[Any]:
    return [row["value"] for row in python_rows(pa.record_batch([column], names=["value"]))]


def _alike(known: Any, made: Any, tolerance: float, rounding: float) -> bool:
    if isinstance(known, (list, tuple)) and isinstance(made, (list, tuple)):
        pairs = zip(known, made, strict=False)
        return len(known) == len(made) and all(_alike(*p, tolerance, rounding) for p in pairs)
    if isinstance(known, dict) and isinstance(made, dict):
        same = list(known) == list(made)
        return same and all(_alike(known[k], made[k], tolerance, rounding) for k in known)
    if (
        _is_number(known)
        and _is_number(made)
        and isinstance(known, float) + isinstance(made, float)
    ):
        return _near(float(known), float(made), tolerance, rounding)
    return bool(known == made)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal))


def _near(known: float, made: float, tolerance: float, rounding: float) -> bool:
    if known == made or (math.isnan(known) and math.isnan(made)):
        return True
    gap = abs(known - made)
    return math.isfinite(gap) and gap <= tolerance + rounding * max(abs(known), abs(made))


def _shown_pair(known: Any, made: Any) -> tuple[str, str]:
    """Returns two values as texts, which differ where the values do."""
    pair = _shown(known), _shown(made)
    if pair[0] != pair[1]:
        return pair
    first, second = (one_line(repr(value), _MOST_CHARACTERS) for value in (known, made))
    pairs = enumerate(zip(first, second, strict=False))
    start = next((place for place, pair in pairs if pair[0] != pair[1]), 0) - _SHOWN_CHARACTERS // 2
    if start > 0:
        first, second = f"…{first[start:]}", f"…{second[start:]}"
    return one_line(first, _SHOWN_CHARACTERS), one_line(second, _SHOWN_CHARACTERS)


def _shown(value: Any) -> str:
    text = f"{value:.9g}" if isinstance(value, float) else repr(value)
    return one_line(text, _SHOWN_CHARACTERS)
