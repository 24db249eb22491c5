"""Which rows of a sample are tried elsewhere: halves, single rows, and those to begin with.

Suffixes: `_bk` rows by numbers of a column, `_k` these numbers.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, leaf_numbers, take_rows, to_arrow, to_numpy
from batchscore.plan.alike import differing_rows
from batchscore.stages.block import Block

# Of the rows that a stage rejects so many are tried elsewhere: each takes a dozen calls to isolate.
_REJECTS = 8
# Steps of the golden ratio spread rows over a batch evenly, and sort them by nothing.
_GOLDEN_RATIO = (5**0.5 - 1) / 2
# Of longer vectors the first numbers are looked at.
_MOST_NUMBERS = 4096
# A row that is at the end of one column is farther from the middle than one that is near two ends.
_POWER = 8


def halves(block: Block, known: Block) -> tuple[Array, Array]:
    """Returns the places of rows that are tried elsewhere, in two parts that mix all of them."""
    kept_b = np.isin(to_numpy(block.rows_b), to_numpy(known.rows_b))
    places = np.sort(
        np.concatenate([np.flatnonzero(kept_b), np.flatnonzero(~kept_b)[:_REJECTS]])
    ).astype(np.int64)
    mixed = places[np.argsort(np.arange(1, len(places) + 1) * _GOLDEN_RATIO % 1)]
    middle = len(mixed) // 2
    return (mixed[:middle], mixed[middle:]) if middle else (mixed, mixed)


def lone_rows(block: Block, known: Block) -> list[Array]:
    """Returns places of single rows: of a middling value, of the largest, of the smallest.

    A code, a rank or a share of the largest, made of one row alone, differs for one of them. The
    last is a rejected row, if there is one.
    """
    order = np.argsort(_sums(known), kind="stable")
    kept = to_numpy(known.rows_b)
    rejected = np.setdiff1d(to_numpy(block.rows_b), kept)[:1]
    chosen = np.concatenate([kept[order[[len(order) // 2, -1, 0]]], rejected])
    places = _places(block, chosen)
    return [places[index : index + 1] for index in range(len(places))]


def other_beginning(block: Block, known: Block) -> Array:
    """Returns places of half of the rows, in an order that a batch could begin with as well.

    What is numbered as it is first seen gets other numbers: the first of these rows differs in
    the most values from the first row of the block. What is kept of the first batch, or of the
    largest value so far, is another: the other rows are those with middling values.
    """
    rows = len(known)
    differing_b, extreme_b = np.zeros(rows, np.int64), np.zeros(rows)
    assert known.values is not None
    for column in known.values.columns:
        values_bk = _numbers(column, rows)
        if values_bk is None:
            first_b = _taken(column, np.zeros(rows, np.int64))
            differing_b += differing_rows(first_b, column, 0.0)
        else:
            differing_b += (values_bk != values_bk[:1]).sum(axis=1)
            extreme_b += (_distances(values_bk) ** _POWER).sum(axis=1)
    first = np.lexsort((extreme_b, -differing_b))[:1]
    middling = np.argsort(extreme_b, kind="stable")
    order = np.concatenate([first, middling[middling != first]])
    return _places(block, to_numpy(known.rows_b)[order[: -(-rows // 2)]])


def _distances(values_bk: Array) -> Array:
    """Returns how far numbers are from the middle of their column: 1 at both ends, else less."""
    least_k, most_k = values_bk.min(axis=0) / 2, values_bk.max(axis=0) / 2
    half_k = most_k - least_k
    middle_k = least_k + most_k
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        distances_bk = np.abs(values_bk - middle_k) / half_k
    return np.asarray(np.nan_to_num(distances_bk, nan=0.0, posinf=0.0))


def _numbers(column: pa.Array, rows: int) -> Array | None:
    """Returns the numbers (b, k) of a column that has as many for all rows; else None."""
    numbers = leaf_numbers(column)
    if numbers is None or not len(numbers) or len(numbers) % rows:
        return None
    return np.nan_to_num(numbers.reshape(rows, -1)[:, :_MOST_NUMBERS].astype(np.float64))


def _sums(known: Block) -> Array:
    """Returns the sum (b,) of each row's numbers in the first column that has as many for all."""
    assert known.values is not None
    found = (_numbers(column, len(known)) for column in known.values.columns)
    first = next((values_bk for values_bk in found if values_bk is not None), None)
    return np.arange(len(known), dtype=np.float64) if first is None else first.sum(axis=1)


def _taken(column: pa.Array, places: Array) -> pa.Array:
    batch = pa.record_batch([column], names=["value"])
    return take_rows(batch, to_arrow(places)).column(0)


def _places(block: Block, rows: Array) -> Array:
    return np.searchsorted(to_numpy(block.rows_b), rows).astype(np.int64)
