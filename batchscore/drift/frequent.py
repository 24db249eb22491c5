"""A bounded, mergeable sketch of the most frequent values and their texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

TABLE = 4096  # values that are held at most


class Frequent:
    """Misra-Gries counts of values by hash, with a text for each.

    Up to `TABLE` distinct values the counts are exact. Beyond, each is at most n / `TABLE` too
    low, and every value that is more frequent than that is there. Which others are there, and how
    much too low their counts are, depends on how the values were split.

    Attributes:
        hashes_t: ascending.
        counts_t: all above 0.
        labels: the text of each hash.
    """

    def __init__(self) -> None:
        self.hashes_t: Hashes = np.empty(0, np.uint64)
        self.counts_t: Counts = np.empty(0, np.int64)
        self.labels: dict[int, bytes] = {}

    def add(self, hashes_d: Hashes, counts_d: Counts, label: Callable[[int], bytes]) -> None:
        """Adds counts of values; `label` returns the text of the value in one of the rows (d,)."""
        rows_k, cut = _strongest(counts_d)
        known_t = self.hashes_t
        hashes_s = np.concatenate([known_t, hashes_d[rows_k]])
        counts_s = np.concatenate([self.counts_t, counts_d[rows_k] - cut])
        hashes_t, counts_t = sum_by_hash(hashes_s, counts_s)
        rows_t, cut = _strongest(counts_t)
        self.hashes_t, self.counts_t = hashes_t[rows_t], counts_t[rows_t] - cut
        if not np.array_equal(known_t, self.hashes_t):
            self._relabel(hashes_d[rows_k], rows_k, label)

    def merge(self, other: Frequent) -> None:
        """Adds what `other` holds."""
        hashes = other.hashes_t.tolist()
        self.add(other.hashes_t, other.counts_t, lambda row: other.labels[hashes[row]])

    def _relabel(
        self, hashes_k: Hashes, rows_k: NDArray[np.intp], label: Callable[[int], bytes]
    ) -> None:
        kept = self.hashes_t.tolist()
        labels, self.labels = self.labels, {}
        rows = dict(zip(hashes_k.tolist(), rows_k.tolist(), strict=True))
        for each in kept:
            known = labels.get(each)
            self.labels[each] = label(rows[each]) if known is None else known


def sum_by_hash(hashes_n: Hashes, counts_n: Counts) -> tuple[Hashes, Counts]:
    """Returns the distinct hashes, ascending, each with the sum of its counts."""
    order_n = np.argsort(hashes_n)
    hashes_n, counts_n = hashes_n[order_n], counts_n[order_n]
    starts_d = np.flatnonzero(np.r_[hashes_n.size > 0, hashes_n[1:] != hashes_n[:-1]])
    return hashes_n[starts_d], np.add.reduceat(counts_n, starts_d) if starts_d.size else counts_n


def _strongest(counts_d: Counts) -> tuple[NDArray[np.intp], np.int64]:
    """Returns the rows of at most `TABLE` counts, and what each of them loses to the others."""
    if counts_d.size <= TABLE:
        return np.arange(counts_d.size), np.int64(0)
    place = counts_d.size - TABLE - 1
    cut: np.int64 = np.partition(counts_d, place)[place]
    return np.flatnonzero(counts_d > cut), cut
