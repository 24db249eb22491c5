"""What vectors and class scores are also seen by: norms, entropies, margins, best classes.

Suffixes: `_bd` rows by elements of a vector, `_b2` rows by their two largest elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.arrays import to_arrow, to_numpy, valid_values

Array = NDArray[Any]
Floats = NDArray[np.float64]

_CELLS = 1 << 16  # numbers worked on at a time, so that temporaries stay in cache


def finite_matrix(array: pa.Array) -> Array:
    """Returns the rows (b, d) of a FixedSizeList column of floats that are all there and finite.

    Args:
        array: Array without nulls; its lists may hold nulls.
    """
    assert isinstance(array, pa.FixedSizeListArray)
    width, flat = array.type.list_size, array.flatten()
    if flat.null_count:
        array = array.filter(to_arrow(_whole(flat, width)))
        flat = array.flatten()
    values_bd = valid_values(flat).reshape(len(array), width)
    finite_b = np.isfinite(values_bd).all(axis=1)
    return values_bd if finite_b.all() else values_bd[finite_b]


def _whole(flat: pa.Array, width: int) -> NDArray[np.bool_]:
    return np.asarray(to_numpy(flat.is_valid()).reshape(-1, width).all(axis=1))


@np.errstate(over="ignore")
def norms(values_bd: Array) -> Floats:
    """Returns the Euclidean norm (b,) of each row, whatever the other rows are.

    It is infinite where its square is beyond the largest float.
    """
    norms_b = np.empty(len(values_bd))
    for rows in _slices(values_bd):
        squares_bd = values_bd[rows].astype(np.float64)
        squares_bd *= squares_bd
        norms_b[rows] = np.sqrt(_row_sums(squares_bd))
    return norms_b


@np.errstate(over="ignore")
def entropies(shares_bd: Array) -> Floats:
    """Returns the entropy (b,), in nats, of each row of class shares; values <= 0 count as none."""
    entropies_b = np.empty(len(shares_bd))
    for rows in _slices(shares_bd):
        shares = np.maximum(shares_bd[rows].astype(np.float64), 0.0)
        logs = np.log(np.where(shares > 0, shares, 1.0))
        entropies_b[rows] = -_row_sums(shares * logs) + 0.0
    return entropies_b


@np.errstate(over="ignore")
def margins(scores_bd: Array) -> Floats:
    """Returns the best less the second best score (b,) of each row; of a single class the score."""
    if scores_bd.shape[1] == 1:
        return scores_bd[:, 0].astype(np.float64)
    top_b2 = np.partition(scores_bd, -2, axis=1)[:, -2:].astype(np.float64)
    margins_b: Floats = top_b2[:, 1] - top_b2[:, 0]
    return margins_b


def _slices(values_bd: Array) -> list[slice]:
    size = max(1, _CELLS // max(1, values_bd.shape[1]))
    return [slice(start, start + size) for start in range(0, len(values_bd), size)]


def _row_sums(values_bd: Floats) -> Floats:
    """Sums rows by adding halves, so that the order, and the bits, depend on the width alone."""
    while values_bd.shape[1] > 1:
        half = values_bd.shape[1] // 2
        folded = values_bd[:, :half] + values_bd[:, half : 2 * half]
        if values_bd.shape[1] % 2:
            folded[:, 0] += values_bd[:, -1]
        values_bd = folded
    return values_bd[:, 0]
