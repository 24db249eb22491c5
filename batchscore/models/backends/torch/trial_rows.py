"""Which rows show best, in tiles of one shape, whether a network's scores depend on other rows."""

from __future__ import annotations

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.models.backends.facts import TILE_ROWS, RowTrial, Sample
from batchscore.models.backends.torch.buckets import (
    FEWEST_ROWS,
    STEPS_A_ROW,
    bucket_lengths,
    bucket_rows,
)

# All calls of the network come to so many tiles, and a block fills at least one of the run's.
_TILES = 15
# Where the network sees a single row at a time.
_FEW_CALLS = 16
# So many batches of the run, if these are smaller than a sample.
_FEW_BATCHES = 3


def pick(sample: Sample) -> RowTrial:
    """Returns as many rows as fit into a tile or two of one shape, and tiles to try.

    The first tile is smaller than the run's. The other, the run's own, is for a network that does
    not take smaller ones.
    """
    usual, length = _of_one_length(sample)
    rows = _call_rows(sample, length)
    tile = bucket_rows(length, rows) if length else rows
    most = max(tile + tile // 2, _FEW_CALLS)
    if len(usual) > sample.batch_rows:
        most = min(most, _FEW_BATCHES * sample.batch_rows)
    count = min(most, len(usual))
    # What lies farther on in the input is at the sample's end.
    places = np.arange(count, dtype=np.int64) * len(usual) // count
    return RowTrial(usual[places], tuple(dict.fromkeys((rows, sample.call_rows))))


def _of_one_length(sample: Sample) -> tuple[Array, int]:
    """Returns the rows of the commonest length that rows are padded to, and it; 0 if none are."""
    if sample.lengths_b is None:
        return np.arange(sample.rows, dtype=np.int64), 0
    lengths = bucket_lengths(sample.max_length)
    buckets_b = np.searchsorted(lengths, sample.lengths_b)
    bucket = int(np.bincount(buckets_b).argmax())
    usual = np.argsort(buckets_b != bucket, kind="stable")
    count = max(_FEW_CALLS, int((buckets_b == bucket).sum()))
    return np.sort(usual[:count]), int(lengths[bucket])


def _call_rows(sample: Sample, length: int) -> int:
    """Returns rows of a call, fewer than a run's: all calls are to cost less than a block does.

    Rows of varying length are still several to a tile if they are in a run.
    """
    least = max(FEWEST_ROWS, FEWEST_ROWS * length // STEPS_A_ROW)
    share = max(sample.batch_rows, TILE_ROWS) // _TILES
    return min(sample.call_rows, max(least, share // FEWEST_ROWS * FEWEST_ROWS))
