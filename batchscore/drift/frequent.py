"""A bounded, mergeable sketch of the most frequent values and their texts.

Suffixes: `_t` values that are tracked, `_d` distinct values that are new, `_k` those of them that
are kept, `_s` both together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.arrays import to_arrow
from batchscore.drift.ordering import run_starts

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]
Label = Callable[[NDArray[np.int64]], pa.Array]
"""Takes rows (r,) to the texts of their values, large_binary (r,)."""

TABLE = 4096  # values that are held at most


class Frequent:
    """Misra-Gries counts of values by hash, with a text for each.

    Up to `TABLE` distinct values the counts are exact. Beyond, each is at most n / `TABLE` too
    low, and every value that is more frequent than that is there. Which others are there, and how
    much too low their counts are, depends on how the values were split.

    Attributes:
        hashes_t: ascending.
        counts_t: all above 0.
        labels_t: large_binary, the text of each.
    """

    def __init__(self) -> None:
        self.hashes_t: Hashes = np.empty(0, np.uint64)
        self.counts_t: Counts = np.empty(0, np.int64)
        self.labels_t: pa.Array = pa.nulls(0, pa.large_binary())

    def add(self, hashes_d: Hashes, counts_d: Counts, label: Label) -> None:
        """Adds counts of values; `label` returns the texts of those in some of the rows (d,)."""
        rows_k, cut = _strongest(counts_d)
        known_t = self.hashes_t
        hashes_s = np.concatenate([known_t, hashes_d[rows_k]])
        counts_s = np.concatenate([self.counts_t, counts_d[rows_k] - cut])
        hashes_t, counts_t = sum_by_hash(hashes_s, counts_s)
        rows_t, cut = _strongest(counts_t)
        self.hashes_t, self.counts_t = hashes_t[rows_t], counts_t[rows_t] - cut
        if not np.array_equal(known_t, self.hashes_t):
            self._relabel(known_t, hashes_d[rows_k], rows_k, label)

    def merge(self, other: Frequent) -> None:
        """Adds what `other` holds."""
        self.add(other.hashes_t, other.counts_t, lambda rows: other.labels_t.take(to_arrow(rows)))

    def label(self, hash_: int) -> bytes | None:
        """Returns a value's text; None where the value is not held."""
        row = int(np.searchsorted(self.hashes_t, np.uint64(hash_)))
        if row == self.hashes_t.size or int(self.hashes_t[row]) != hash_:
            return None
        text: bytes = self.labels_t[row].as_py()
        return text

    def _relabel(
        self, known_t: Hashes, hashes_k: Hashes, rows_k: NDArray[np.intp], label: Label
    ) -> None:
        """Keeps the texts of values that were held before, and gets the others from `label`."""
        old_t = np.isin(self.hashes_t, known_t, assume_unique=True)
        order_k = np.argsort(hashes_k)
        added_k = order_k[np.searchsorted(hashes_k[order_k], self.hashes_t[~old_t])]
        texts = pa.concat_arrays([self.labels_t, label(rows_k[added_k].astype(np.int64))])
        places_t = np.empty(self.hashes_t.size, np.int64)
        places_t[old_t] = np.searchsorted(known_t, self.hashes_t[old_t])
        places_t[~old_t] = known_t.size + np.arange(added_k.size)
        self.labels_t = texts.take(to_arrow(places_t))


def sum_by_hash(hashes_n: Hashes, counts_n: Counts) -> tuple[Hashes, Counts]:
    """Returns the distinct hashes, ascending, each with the sum of its counts."""
    order_n = np.argsort(hashes_n)
    hashes_n, counts_n = hashes_n[order_n], counts_n[order_n]
    starts_d = run_starts(hashes_n)
    return hashes_n[starts_d], np.add.reduceat(counts_n, starts_d) if starts_d.size else counts_n


def _strongest(counts_d: Counts) -> tuple[NDArray[np.intp], np.int64]:
    """Returns the rows of at most `TABLE` counts, and what each of them loses to the others."""
    if counts_d.size <= TABLE:
        return np.arange(counts_d.size), np.int64(0)
    place = counts_d.size - TABLE - 1
    cut: np.int64 = np.partition(counts_d, place)[place]
    return np.flatnonzero(counts_d > cut), cut
