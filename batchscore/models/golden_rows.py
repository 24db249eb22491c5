"""Chooses golden rows of a sample: its extremes and gaps, and rows spread over the rest.

Suffixes: `_g` golden rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import Array, take_rows, to_arrow, to_numpy

GOLDEN_ROWS = 256
"""The most golden rows that are chosen: each process that loads the model scores them."""


def golden_places(batch: pa.RecordBatch) -> Array:
    """Returns the places (g,) of golden rows, ascending; the same for the same rows.

    Of each column whose values have an order these are the smallest value, the largest and the
    first null, for as many columns as fit into half of them. The rest is spread evenly.
    """
    rows = batch.num_rows
    if rows <= GOLDEN_ROWS:
        return np.arange(rows)
    extremes = [*dict.fromkeys(_extremes(batch))][: GOLDEN_ROWS // 2]
    spread = np.linspace(0, rows - 1, GOLDEN_ROWS - len(extremes)).astype(np.int64)
    return np.unique(np.concatenate([np.array(extremes, np.int64), spread]))


def golden_rows(batch: pa.RecordBatch, places_g: Array) -> pa.RecordBatch:
    """Returns the rows at these places."""
    return take_rows(batch, to_arrow(places_g.astype(np.int64)))


def _extremes(batch: pa.RecordBatch) -> Iterator[int]:
    for column in batch.columns:
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        known = len(column) - column.null_count
        order_b = _sorted_places(column)
        if known and len(order_b):
            yield from (int(order_b[0]), int(order_b[known - 1]))
        if column.null_count:
            yield int(np.argmax(to_numpy(column.is_null())))


def _sorted_places(column: pa.Array) -> Array:
    """Returns the places (b,) by ascending value, nulls last; none where values have no order."""
    try:
        return to_numpy(pc.array_sort_indices(column))
    except pa.ArrowNotImplementedError:
        return np.empty(0, np.uint64)
