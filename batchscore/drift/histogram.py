"""Count numbers in a canonical histogram whose content depends on the values alone.

Suffixes: `_b` buckets, `_e` buckets after a first place for what has none, `_o` octaves, `_g` runs
of keys of one octave, `_gs` these by shift, `_j` budgets that are tried, `_s` slots of a hash
table, `_m` some of the keys or buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.ordering import (
    OCTAVES,
    Keys,
    KeySpace,
    Layout,
    Octaves,
    bit_length,
    run_starts,
)
from batchscore.drift.prefixes import AT_ONCE, PrefixTable, Room, prefix_table

CAP = 4096

Counts = NDArray[np.int64]
Shifts = NDArray[np.uint8]

# Values counted at a time where no table leads to their buckets: temporaries stay in the
# second-level cache, and small enough that the allocator keeps their pages, whose coming and going
# costs more than the counting.
_CHUNK = 16384
_FIRST = 32768  # keys that the first buckets are made of
_MISSED = 16384  # values that no table leads to their buckets, gathered before the index is asked
_PENDING = 8192  # keys without a known bucket that are gathered before the buckets are rebuilt
_GAP = 4  # buckets up to so many steps apart have the empty ones between them indexed too
_HASH = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_ROOM = Room()


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
        # By a table's entry: 0 takes the values whose bucket it does not know.
        self._counts_e: Counts = np.zeros(1, np.int64)
        # Made when keys come, not when buckets change: who merges, or reads, never needs them.
        self._gapless = True
        self._filled = 0  # buckets at the last fold; those that filled a gap since are more
        self._index: _Index | None = None
        self._table: PrefixTable | None = None
        self._tabled: Layout | None = None
        self._missed: list[NDArray[Any]] = []
        self._missed_size = 0
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

    def update_values(self, values_n: NDArray[Any], ends: tuple[Any, Any] | None = None) -> None:
        """Count finite values that cast to the space's dtype without loss, faster than their keys.

        The content is bitwise that of `update` with the keys of the values. `ends` are their
        minimum and maximum, for a caller who knows them.
        """
        layout = self.space.layouts.get(values_n.dtype.str[1:])
        if layout is None:
            values_n = values_n.astype(self.space.dtype, copy=False)
            layout = self.space.layouts.get(values_n.dtype.str[1:])
        if layout is None:
            self.update(self.space.encode(values_n))
        elif values_n.size:
            self._n += values_n.size
            ends = ends or (values_n.min(), values_n.max())
            lowest, highest = self._encoded(np.array(ends, values_n.dtype))
            beyond = self._is_beyond(lowest, highest)
            self._widen(lowest, highest)
            if beyond:
                self._gather_beyond(values_n, self.space.octave(np.array([lowest, highest])))
            else:
                self._count_values(layout, values_n)

    def update_counted(self, keys_n: Keys, counts_n: Counts) -> None:
        """Count each of `keys_n` as often as `counts_n`, all above 0, say."""
        if not keys_n.size:
            return
        self._n += int(counts_n.sum())
        self._widen(keys_n.min(), keys_n.max())
        order_n = keys_n.argsort()
        keys_n, counts_n = _sum_equal(keys_n.take(order_n), counts_n.take(order_n))
        places_n = self._places(keys_n)
        known_n = places_n >= 0
        np.add.at(self._counts_b, places_n[known_n], counts_n[known_n])
        if not known_n.all():
            self._fold(keys_n[~known_n], counts_n[~known_n])

    def merge(self, other: Histogram) -> None:
        """Count all that `other`, a histogram of the same space, has counted."""
        self._flush()
        other._flush()
        if other._lowest is None or other._highest is None:
            return
        self._n += other._n
        self._widen(other._lowest, other._highest)
        self._shifts_o = np.maximum(self._shifts_o, other._shifts_o)
        filled_b = np.flatnonzero(other._counts_b)
        self._fold(other._edges_b[filled_b], other._counts_b[filled_b])

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

    @property
    def _counts_b(self) -> Counts:
        return self._counts_e[1:]

    def _set_buckets(self, edges_b: Keys, counts_b: Counts) -> None:
        self._edges_b, self._counts_e = edges_b, np.append(0, counts_b)
        self._index = self._table = self._tabled = None

    def _widen(self, lowest: np.uint64, highest: np.uint64) -> None:
        self._lowest = lowest if self._lowest is None else min(self._lowest, lowest)
        self._highest = highest if self._highest is None else max(self._highest, highest)

    def _encoded(self, values_n: NDArray[Any]) -> Keys:
        return self.space.encode(values_n.astype(self.space.dtype, copy=False))

    def _count_values(self, layout: Layout, values_n: NDArray[Any]) -> None:
        while values_n.size:
            table = self._table_for(layout)
            chunk_n = values_n[: _CHUNK if table is None else AT_ONCE]
            values_n = values_n[chunk_n.size :]
            if table is None:
                self._count(self._encoded(chunk_n))
            else:
                self._find(table, chunk_n)

    def _table_for(self, layout: Layout) -> PrefixTable | None:
        if self._tabled is not layout and self._edges_b.size:
            self._fill_gaps()
            last_keys_b = self._edges_b | _widths(self._shifts_o[self.space.octave(self._edges_b)])
            self._table = prefix_table(layout, self._edges_b, last_keys_b, self._counts_b)
            self._tabled = layout
        return self._table

    def _find(self, table: PrefixTable, values_n: NDArray[Any]) -> None:
        found_n = table.find(values_n, _ROOM)
        counts_e = np.bincount(found_n, minlength=self._counts_e.size)
        self._counts_e += counts_e
        if counts_e[0]:
            missed_m = np.flatnonzero(found_n == 0)
            self._missed.append(values_n.take(missed_m))
            self._missed_size += missed_m.size
            if self._missed_size >= _MISSED:
                self._count_chunks(self._take_missed())

    def _take_missed(self) -> Keys:
        keys_m = self._encoded(np.concatenate(self._missed))
        self._missed, self._missed_size = [], 0
        return keys_m

    def _count_chunks(self, keys_n: Keys) -> None:
        for start in range(0, keys_n.size, _CHUNK):
            self._count(keys_n[start : start + _CHUNK])

    def _is_beyond(self, lowest: np.uint64, highest: np.uint64) -> bool:
        """Tell whether keys lie outside all that were counted, as the next row numbers do."""
        if self._lowest is None or self._highest is None:
            return False
        return bool(lowest > self._highest or highest < self._lowest)

    def _gather_beyond(self, values_n: NDArray[Any], ends_e: Octaves) -> None:
        """Gather values that lie outside all others; `ends_e` are the octaves of their ends."""
        for start in range(0, values_n.size, AT_ONCE):
            keys_n = self._encoded(values_n[start : start + AT_ONCE])
            keep_o = ~_widths(self._shifts_o)
            # What lies between two keys of an octave is of it, too.
            alike = ends_e[0] == ends_e[1]
            keep_n = keep_o[ends_e[0]] if alike else keep_o.take(self.space.octave(keys_n))
            self._gather(keys_n & keep_n)

    def _count(self, keys_n: Keys) -> None:
        rest_n = self._look_up(keys_n) if self._edges_b.size else keys_n.copy()
        if rest_n.size:
            self._gather(rest_n)

    def _gather(self, keys_n: Keys) -> None:
        """Keep keys without a known bucket, and fold them in once they are many."""
        self._pending.append(keys_n)
        self._pending_size += keys_n.size
        if self._pending_size >= (_PENDING if self._edges_b.size else _FIRST):
            self._flush()

    def _look_up(self, keys_n: Keys) -> Keys:
        """Count the keys whose bucket the index knows, return the left edges of the others."""
        if self._index is None:
            self._fill_gaps()
            self._index = _build_index(self._edges_b, self._counts_b, self._shifts_o)
        index = self._index
        edges_n = keys_n & index.keep_o.take(self.space.octave(keys_n))
        buckets_n = index.slots_s.take(_slots(edges_n, index.hash_shift)).astype(np.intp)
        np.add.at(self._counts_b, buckets_n, 1)
        wrong_m = np.flatnonzero(index.edges_b.take(buckets_n) != edges_n)
        if wrong_m.size:
            np.subtract.at(self._counts_b, buckets_n.take(wrong_m), 1)
        return edges_n.take(wrong_m)

    def _places(self, keys_n: Keys) -> NDArray[np.intp]:
        """Return the buckets that hold the keys, -1 where none does."""
        if not self._edges_b.size:
            return np.full(keys_n.size, -1)
        edges_n = keys_n & ~_widths(self._shifts_o.take(self.space.octave(keys_n)))
        places_n = np.searchsorted(self._edges_b, edges_n)
        return np.where(self._edges_b.take(places_n, mode="clip") == edges_n, places_n, -1)

    def _flush(self) -> None:
        """Fold all that was gathered into the buckets, and see that they keep their budget."""
        if self._missed:
            self._pending.append(self._take_missed())
        if self._pending:
            keys_n = _ascending(self._pending)
            self._pending, self._pending_size = [], 0
            starts_b = run_starts(keys_n)
            self._fold_many(keys_n.take(starts_b), _sizes(starts_b, keys_n.size))
        elif np.count_nonzero(self._counts_b) > self._filled:
            self._fold(np.empty(0, np.uint64), np.empty(0, np.int64))

    def _fold_many(self, keys_n: Keys, counts_n: Counts) -> None:
        """Fold counts at ascending keys, which are first merged where that is sure to come."""
        first, last = self.space.octave(keys_n[[0, -1]])
        # A bucket holds at most 2**shift keys, and of one octave there are at most `CAP` buckets.
        shift = ((keys_n.size - 1) // CAP).bit_length()
        if first == last and shift > self._shifts_o[first]:
            self._shifts_o[first] = shift
            keys_n, counts_n = _sum_equal(keys_n & ~_widths(self._shifts_o)[first], counts_n)
        self._fold(keys_n, counts_n)

    def _fold(self, keys_n: Keys, counts_n: Counts) -> None:
        """Add counts > 0 at ascending keys, coarsen what is over its budget."""
        if self._edges_b.size:
            keys_n, counts_n = self._joined(keys_n, counts_n)
        octaves_n = self.space.octave(keys_n)
        self._shifts_o = _raised_shifts(keys_n, octaves_n, self._shifts_o)
        keep_o = ~_widths(self._shifts_o)
        self._set_buckets(*_sum_equal(keys_n & keep_o.take(octaves_n), counts_n))
        self._gapless, self._filled = False, self._edges_b.size

    def _joined(self, keys_n: Keys, counts_n: Counts) -> tuple[Keys, Counts]:
        """Return keys and counts, and those of the filled buckets among them, ascending."""
        filled_b = np.flatnonzero(self._counts_b)
        keys_n = np.concatenate([self._edges_b.take(filled_b), keys_n])
        counts_n = np.concatenate([self._counts_b.take(filled_b), counts_n])
        order_n = np.argsort(keys_n, kind="stable")
        return keys_n.take(order_n), counts_n.take(order_n)

    def _fill_gaps(self) -> None:
        """Have the empty buckets in short gaps among the others, since values will come there."""
        if not self._gapless:
            octaves_b = self.space.octave(self._edges_b)
            shifts_b = self._shifts_o.take(octaves_b)
            self._set_buckets(*_with_gaps(self._edges_b, self._counts_b, octaves_b, shifts_b))
            self._gapless = True


def _widths(shifts_n: Shifts) -> Keys:
    """Return last key - first key of buckets: the mask of the bits that they drop."""
    widths_n: Keys = (_ONE << shifts_n.astype(np.uint64)) - _ONE
    return widths_n


def _slots(edges_n: Keys, hash_shift: np.uint64) -> NDArray[np.intp]:
    slots_n: NDArray[np.intp] = ((edges_n * _HASH) >> hash_shift).view(np.intp)
    return slots_n


def _ascending(parts: list[Keys]) -> Keys:
    keys_n = np.concatenate(parts)
    # Row numbers ascend already, and to see that takes a tenth of the time of sorting them.
    if (keys_n[1:] < keys_n[:-1]).any():
        keys_n.sort()
    return keys_n


def _sizes(starts_g: NDArray[np.intp], n: int) -> Counts:
    """Return how long runs are that begin at `starts_g`, of `n` values in all."""
    sizes_g = np.empty(starts_g.size, np.int64)
    np.subtract(starts_g[1:], starts_g[:-1], out=sizes_g[:-1])
    sizes_g[-1] = n - starts_g[-1]
    return sizes_g


def _sum_equal(keys_n: Keys, counts_n: Counts) -> tuple[Keys, Counts]:
    """Return the distinct ones of sorted keys, each with the sum of its counts."""
    starts_b = run_starts(keys_n)
    if starts_b.size == keys_n.size:
        return keys_n, counts_n
    return keys_n.take(starts_b), np.add.reduceat(counts_n, starts_b)


def _with_gaps(
    edges_b: Keys, counts_b: Counts, octaves_b: Octaves, shifts_b: Shifts
) -> tuple[Keys, Counts]:
    """Return the buckets, and the empty ones in short gaps of coarsened octaves among them."""
    steps_b = np.ones(edges_b.size, np.intp)
    steps_m = (edges_b[1:] - edges_b[:-1]) >> shifts_b[:-1]
    short_m = (octaves_b[1:] == octaves_b[:-1]) & (shifts_b[1:] > 0) & (steps_m <= _GAP)
    np.copyto(steps_b[:-1], steps_m.view(np.intp), where=short_m)
    starts_b = steps_b.cumsum() - steps_b
    all_counts_b = np.zeros(int(starts_b[-1]) + 1, np.int64)
    all_counts_b[starts_b] = counts_b
    behind_n = np.arange(all_counts_b.size) - np.repeat(starts_b, steps_b)
    edges_n = np.repeat(edges_b, steps_b)
    edges_n += behind_n.view(np.uint64) << np.repeat(shifts_b, steps_b)
    return edges_n, all_counts_b


def _raised_shifts(keys_n: Keys, octaves_n: Octaves, shifts_o: Shifts) -> Shifts:
    """Return the shifts, by octave, that keep the buckets of sorted keys within their budget."""
    starts_g = run_starts(octaves_n)
    present_g = octaves_n[starts_g]
    distinct_gs = _distinct_by_shift(keys_n, starts_g)
    budget = _budget(np.where(shifts_o[present_g] == 0, distinct_gs[:, 0], CAP))
    raised_o: Shifts = shifts_o.copy()
    raised_o[present_g] = np.maximum(shifts_o[present_g], (distinct_gs <= budget).argmax(axis=1))
    return raised_o


def _distinct_by_shift(keys_n: Keys, starts_g: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many distinct prefixes each octave of sorted keys has at each shift, 0 to 64."""
    sizes_g = _sizes(starts_g, keys_n.size)
    firsts_g = 65 * np.arange(starts_g.size)
    # Neighbours fall into one bucket once the shift reaches the bit length of their difference;
    # those of two octaves never do.
    joins_n = np.repeat(firsts_g, sizes_g)
    joins_n[1:] += bit_length(keys_n[1:] ^ keys_n[:-1])
    joins_n[starts_g] = firsts_g + 64
    joined_gs = np.bincount(joins_n, minlength=65 * starts_g.size).reshape(-1, 65).cumsum(axis=1)
    distinct_gs: NDArray[np.intp] = sizes_g[:, None] - joined_gs
    return distinct_gs


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
    order_b = np.argsort(counts_b)
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
        raise ValueError("the minimum or maximum is outside the first or last bucket")
