"""Count numbers in a canonical histogram whose content depends on the values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.keys import OCTAVES, Keys, KeySpace, Layout, Octaves, bit_length
from batchscore.drift.prefixes import PrefixTable, prefix_table

CAP = 4096

Counts = NDArray[np.int64]
Shifts = NDArray[np.uint8]

_CHUNK = 16384  # keys counted at a time: the temporaries stay in the second-level cache
_VALUES = 65536  # values that a table looks up at a time; a bound on the temporaries
_FIRST = 16384  # keys that the first buckets are made of
_PENDING = 8192  # keys without a known bucket that are gathered before the buckets are rebuilt
_GAP = 4  # buckets up to so many steps apart have the empty ones between them indexed too
_HASH = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)


@dataclass(frozen=True)
class Buckets:
    """The buckets of a histogram in ascending order.

    Bucket b holds the keys k with `k >> shifts_b[b] == prefixes_b[b]`; `counts_b[b]` > 0 of them.
    """

    shifts_b: Shifts
    prefixes_b: Keys
    counts_b: Counts

    @property
    def first_keys_b(self) -> Keys:
        """The smallest key of each bucket."""
        return self.prefixes_b << self.shifts_b

    @property
    def last_keys_b(self) -> Keys:
        """The largest key of each bucket."""
        return self.first_keys_b | _widths(self.shifts_b)


@dataclass(frozen=True)
class _Index:
    """Tables that lead from a key to its bucket without a search."""

    keep_o: Keys
    edges_b: Keys
    slots_s: NDArray[np.int16]
    hash_shift: np.uint64


class Histogram:
    """At most `CAP` buckets over keys of one `KeySpace`, bitwise the same for the same multiset.

    Within an octave all buckets drop the same number of low bits, its shift. The budget is the
    largest 2**j with sum over octaves of min(2**j, distinct keys) <= `CAP`; an octave's shift is
    the least that leaves at most 2**j buckets. Up to `CAP` distinct keys all are kept exactly.

    The law that any partition, order and merge tree give the same bits rests on three facts:
    budgets only fall and shifts only grow as keys come; prefixes of prefixes are prefixes; and a
    coarsened octave has more distinct keys than any later budget, so their number is not needed.

    `update` and `merge` change this object; `merge` leaves the other's content as it was.
    """

    def __init__(self, space: KeySpace) -> None:
        """Start without any keys."""
        self.space = space
        self._shifts_o: Shifts = np.zeros(OCTAVES, np.uint8)
        self._edges_b: Keys = np.empty(0, np.uint64)
        self._counts_b: Counts = np.empty(0, np.int64)
        # Made when keys come, not when buckets change: who merges, or reads, never needs them.
        self._index: _Index | None = None
        self._table: PrefixTable | None = None
        self._tabled: Layout | None = None
        self._pending: list[Keys] = []
        self._pending_size = 0
        self._n = 0
        self._lowest: np.uint64 | None = None
        self._highest: np.uint64 | None = None

    @property
    def n(self) -> int:
        """How many keys were counted."""
        return self._n

    @property
    def key_range(self) -> tuple[int, int] | None:
        """The smallest and the largest key, exactly; None while nothing was counted."""
        if self._lowest is None or self._highest is None:
            return None
        return int(self._lowest), int(self._highest)

    def update(self, keys_n: Keys) -> None:
        """Count `keys_n`, uint64 keys of this histogram's space in any order."""
        if not keys_n.size:
            return
        self._n += keys_n.size
        self._widen(keys_n.min(), keys_n.max())
        self._count_chunks(keys_n)

    def update_values(self, values_n: NDArray[Any]) -> None:
        """Count finite values that cast to the space's dtype without loss, faster than their keys.

        The content is bitwise that of `update` with the keys of the values.
        """
        layout = self.space.layouts.get(values_n.dtype.str[1:])
        if layout is None:
            values_n = values_n.astype(self.space.dtype, copy=False)
            layout = self.space.layouts.get(values_n.dtype.str[1:])
        if layout is None:
            self.update(self.space.encode(values_n))
        elif values_n.size:
            self._n += values_n.size
            self._widen(*self._encoded(np.array([values_n.min(), values_n.max()])))
            self._count_values(layout, values_n)

    def merge(self, other: Histogram) -> None:
        """Count all that `other`, a histogram of the same space, has counted."""
        self._flush()
        other._flush()
        if other._lowest is None or other._highest is None:
            return
        self._n += other._n
        self._widen(other._lowest, other._highest)
        self._shifts_o = np.maximum(self._shifts_o, other._shifts_o)
        self._fold(other._edges_b, other._counts_b)

    def buckets(self) -> Buckets:
        """Return the buckets; equal for equal multisets of keys."""
        self._flush()
        filled_b = np.flatnonzero(self._counts_b)
        edges_b = self._edges_b[filled_b]
        shifts_b = self._shifts_o[self.space.octave(edges_b)]
        return Buckets(shifts_b, edges_b >> shifts_b, self._counts_b[filled_b])

    @classmethod
    def from_buckets(
        cls, space: KeySpace, buckets: Buckets, key_range: tuple[int, int] | None
    ) -> Histogram:
        """Restore the histogram that `buckets` and `key_range` were taken from.

        Raises ValueError where no histogram has such buckets, so that damage is not counted on.
        """
        histogram = cls(space)
        edges_b = buckets.first_keys_b
        octaves_b = space.octave(edges_b)
        histogram._shifts_o[octaves_b] = buckets.shifts_b
        if np.any(octaves_b != space.octave(buckets.last_keys_b)):
            raise ValueError("a bucket reaches beyond its octave")
        _check(buckets, histogram._shifts_o[octaves_b], key_range)
        if key_range is not None:
            histogram._n = int(buckets.counts_b.sum())
            histogram._widen(np.uint64(key_range[0]), np.uint64(key_range[1]))
            histogram._fold(edges_b, buckets.counts_b)
        if not np.array_equal(histogram._edges_b[histogram._counts_b > 0], edges_b):
            raise ValueError("the buckets exceed their budget")
        return histogram

    def _widen(self, lowest: np.uint64, highest: np.uint64) -> None:
        self._lowest = lowest if self._lowest is None else min(self._lowest, lowest)
        self._highest = highest if self._highest is None else max(self._highest, highest)

    def _encoded(self, values_n: NDArray[Any]) -> Keys:
        return self.space.encode(values_n.astype(self.space.dtype, copy=False))

    def _count_values(self, layout: Layout, values_n: NDArray[Any]) -> None:
        start = 0
        while start < values_n.size:
            table = self._table_for(layout)
            if table is None:
                stop = start + (_CHUNK if self._edges_b.size else _FIRST)
                self._count(self._encoded(values_n[start:stop]))
            else:
                stop = start + _VALUES
                self._find(table, values_n[start:stop])
            start = stop

    def _table_for(self, layout: Layout) -> PrefixTable | None:
        if self._tabled is not layout and self._edges_b.size:
            last_keys_b = self._edges_b | _widths(self._shifts_o[self.space.octave(self._edges_b)])
            self._table = prefix_table(layout, self._edges_b, last_keys_b, self._counts_b)
            self._tabled = layout
        return self._table

    def _find(self, table: PrefixTable, values_n: NDArray[Any]) -> None:
        found_n = table.find(values_n)
        counts_b = np.bincount(found_n, minlength=self._counts_b.size + 1)
        self._counts_b += counts_b[1:]
        if counts_b[0]:
            self._count_chunks(self._encoded(values_n.take(np.flatnonzero(found_n == 0))))

    def _count_chunks(self, keys_n: Keys) -> None:
        start = 0
        while start < keys_n.size:
            stop = start + (_CHUNK if self._edges_b.size else _FIRST)
            self._count(keys_n[start:stop])
            start = stop

    def _count(self, keys_n: Keys) -> None:
        rest_n = self._look_up(keys_n) if self._edges_b.size else keys_n.copy()
        if rest_n.size:
            self._pending.append(rest_n)
            self._pending_size += rest_n.size
            if self._pending_size >= (_PENDING if self._edges_b.size else _FIRST):
                self._flush()

    def _look_up(self, keys_n: Keys) -> Keys:
        """Count the keys whose bucket the index knows, return the left edges of the others."""
        if self._index is None:
            self._index = _build_index(self._edges_b, self._counts_b, self._shifts_o)
        index = self._index
        edges_n = keys_n & index.keep_o.take(self.space.octave(keys_n))
        buckets_n = index.slots_s.take(_slots(edges_n, index.hash_shift)).astype(np.intp)
        self._counts_b += np.bincount(buckets_n, minlength=self._counts_b.size)
        wrong_m = np.flatnonzero(index.edges_b.take(buckets_n) != edges_n)
        if wrong_m.size:
            wrong_buckets_m = buckets_n.take(wrong_m)
            self._counts_b -= np.bincount(wrong_buckets_m, minlength=self._counts_b.size)
        return edges_n.take(wrong_m)

    def _flush(self) -> None:
        if self._pending:
            keys_n = np.concatenate(self._pending)
            self._pending, self._pending_size = [], 0
            keys_n.sort()
            starts_b = _starts(keys_n)
            self._fold(keys_n[starts_b], np.diff(starts_b, append=keys_n.size))

    def _fold(self, edges_n: Keys, counts_n: Counts) -> None:
        """Add counts at keys, coarsen what is over its budget."""
        edges_n = np.concatenate([self._edges_b, edges_n])
        counts_n = np.concatenate([self._counts_b, counts_n])
        filled_m = np.flatnonzero(counts_n)
        edges_n, counts_n = self._coarsened(edges_n[filled_m]), counts_n[filled_m]
        order_n = np.argsort(edges_n, kind="stable")
        edges_n, counts_n = _sum_equal(edges_n[order_n], counts_n[order_n])
        self._shifts_o = _raised_shifts(edges_n, self.space.octave(edges_n), self._shifts_o)
        edges_b, counts_b = _sum_equal(self._coarsened(edges_n), counts_n)
        octaves_b = self.space.octave(edges_b)
        missing_m = _missing(edges_b, octaves_b, self._shifts_o[octaves_b])
        places_m = np.searchsorted(edges_b, missing_m)
        self._edges_b = np.insert(edges_b, places_m, missing_m)
        self._counts_b = np.insert(counts_b, places_m, 0)
        self._index = self._table = self._tabled = None

    def _coarsened(self, keys_n: Keys) -> Keys:
        return keys_n & ~_widths(self._shifts_o[self.space.octave(keys_n)])


def _widths(shifts_n: Shifts) -> Keys:
    """Return last key - first key of buckets: the mask of the bits that they drop."""
    widths_n: Keys = (_ONE << shifts_n.astype(np.uint64)) - _ONE
    return widths_n


def _slots(edges_n: Keys, hash_shift: np.uint64) -> NDArray[np.intp]:
    slots_n: NDArray[np.intp] = ((edges_n * _HASH) >> hash_shift).view(np.intp)
    return slots_n


def _sum_equal(keys_n: Keys, counts_n: Counts) -> tuple[Keys, Counts]:
    """Return the distinct ones of sorted keys, each with the sum of its counts."""
    starts_b = _starts(keys_n)
    if starts_b.size == keys_n.size:
        return keys_n, counts_n
    return keys_n[starts_b], np.add.reduceat(counts_n, starts_b)


def _starts(values_n: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of equal values begins."""
    new_n = np.ones(values_n.size, np.bool_)
    np.not_equal(values_n[1:], values_n[:-1], out=new_n[1:])
    return np.flatnonzero(new_n)


def _missing(edges_b: Keys, octaves_b: Octaves, shifts_b: Shifts) -> Keys:
    """Return the empty buckets within short gaps of coarsened octaves, where values will come."""
    steps_m = (edges_b[1:] - edges_b[:-1]) >> shifts_b[:-1]
    same_m = (octaves_b[1:] == octaves_b[:-1]) & (shifts_b[1:] > 0)
    starts_m = np.flatnonzero(same_m & (steps_m > 1) & (steps_m <= _GAP))
    sizes_m = steps_m[starts_m].astype(np.intp) - 1
    steps_n = np.arange(1, sizes_m.sum() + 1) - np.repeat(sizes_m.cumsum() - sizes_m, sizes_m)
    owners_n = np.repeat(starts_m, sizes_m)
    missing_n: Keys = edges_b[owners_n] + (steps_n.astype(np.uint64) << shifts_b[owners_n])
    return missing_n


def _raised_shifts(edges_n: Keys, octaves_n: Octaves, shifts_o: Shifts) -> Shifts:
    """Return the shifts, by octave, that keep sorted distinct edges within their budget."""
    starts_g = _starts(octaves_n)
    present_g = octaves_n[starts_g]
    distinct_g = np.diff(starts_g, append=edges_n.size)
    budget = _budget(np.where(shifts_o[present_g] == 0, distinct_g, CAP))
    if not np.any(distinct_g > budget):
        return shifts_o
    # Neighbours fall into one bucket once the shift reaches the bit length of their difference;
    # those of two octaves never do.
    joins_n = bit_length(edges_n ^ np.roll(edges_n, 1))
    joins_n[starts_g] = 64
    joins_n += np.repeat(65 * np.arange(starts_g.size), distinct_g)
    joined_gs = np.bincount(joins_n, minlength=65 * starts_g.size).reshape(-1, 65).cumsum(axis=1)
    fits_gs = distinct_g[:, None] - joined_gs <= budget
    raised_o: Shifts = shifts_o.copy()
    raised_o[present_g] = np.maximum(shifts_o[present_g], fits_gs.argmax(axis=1))
    return raised_o


def _budget(distinct_g: Counts) -> int:
    """Return the largest 2**j <= CAP with sum of min(2**j, distinct) <= CAP."""
    budgets_j = 2 ** np.arange(CAP.bit_length())
    totals_j = np.minimum(distinct_g, budgets_j[:, None]).sum(axis=1)
    return int(budgets_j[np.count_nonzero(totals_j <= CAP) - 1])


def _build_index(edges_b: Keys, counts_b: Counts, shifts_o: Shifts) -> _Index:
    slot_bits = max(6, edges_b.size.bit_length() + 3)
    hash_shift = np.uint64(64 - slot_bits)
    slots_s = np.zeros(1 << slot_bits, np.int16)
    # Of buckets that share a slot the fullest, written last, is found at once; the keys of the
    # others are gathered and sorted.
    order_b = np.argsort(counts_b, kind="stable")
    slots_s[_slots(edges_b[order_b], hash_shift)] = order_b
    return _Index(~_widths(shifts_o), edges_b, slots_s, hash_shift)


def _check(buckets: Buckets, shifts_b: Shifts, key_range: tuple[int, int] | None) -> None:
    edges_b = buckets.first_keys_b
    if (key_range is None) != (edges_b.size == 0):
        raise ValueError("buckets and the range of values must be both there or both missing")
    if key_range is None:
        return
    if np.any(edges_b >> buckets.shifts_b != buckets.prefixes_b):
        raise ValueError("a bucket's prefix is longer than its shift allows")
    if np.any(shifts_b != buckets.shifts_b):
        raise ValueError("an octave has two shifts")
    if np.any(edges_b[1:] <= edges_b[:-1]) or np.any(buckets.counts_b <= 0):
        raise ValueError("buckets must ascend and hold at least one value each")
    last_keys_b = buckets.last_keys_b
    ends = [(key_range[0], 0), (key_range[1], -1)]
    if not all(int(edges_b[b]) <= key <= int(last_keys_b[b]) for key, b in ends):
        raise ValueError("minimum or maximum lie outside the first or last bucket")
