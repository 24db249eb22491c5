"""Columns of a table as the values that features are made of.

Suffixes: `_bf` rows by features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.arrays import raw_values, to_numpy

TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
NUMBER = (
    "a number or boolean",
    (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean),
)
# Columns are laid side by side in blocks of this many rows, so that a block stays in cache.
_BLOCK_ROWS = 4096


def floats(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers as float64, missing ones as NaN."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.empty(0), *map(floats, column.chunks)])
    return filled_with(plain_values(column).cast(pa.float64(), safe=False), math.nan)


def nearest_floats(column: pa.Array) -> pa.Array:
    """Returns numbers as float64: of a decimal the nearest one, as Python and pandas make it.

    Arrow's own cast of a decimal is off by a bit for one value in five.
    """
    if pa.types.is_decimal(column.type):
        return column.cast(pa.string()).cast(pa.float64())
    return column.cast(pa.float64(), safe=False)


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


def filled_with(column: pa.Array, missing: float) -> NDArray[Any]:
    """Return numbers as NumPy with `missing` for null; `fill_null` would import pandas."""
    values_b = raw_values(column)
    if not column.null_count:
        return values_b
    return np.where(to_numpy(column.is_null()), missing, values_b)


def side_by_side(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return f arrays of b rows as one row-major array of b rows and f values."""
    rows = len(columns[0])
    values_bf = np.empty((rows, len(columns)), columns[0].dtype)
    for start in range(0, rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        np.stack([column[block] for column in columns], axis=1, out=values_bf[block])
    return values_bf
