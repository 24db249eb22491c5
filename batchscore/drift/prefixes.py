"""Lead from the leading bits of a number straight to its bucket, where they tell it.

Suffixes: `_b` buckets, `_m` some of them, `_p` prefixes, `_s` shifts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.ordering import Keys, Layout, bit_length

# Values that are looked up. Fewer would stay nearer to the core, but between two steps other
# threads take the interpreter, and to get it back takes longer than the step.
AT_ONCE = 65536
_PREFIXES = 1 << 20  # entries of a table, two bytes each; only those around buckets are touched
# A table of so many prefixes begins with 0, which then need not be subtracted from each prefix.
_MOST_FROM_ZERO = 1 << 16
_WIDER = 3  # buckets up to 2**3 times as wide as a prefix have entries
_DOUBLING = 0.01  # of all values must be found more by a table that is twice as long
_WORTH = 0.5  # of all values must be found, else the search is not worth its time


class Room(threading.local):
    """Where a thread looks up values, again and again: fresh memory would cost more than that."""

    def __init__(self) -> None:
        self.places_n: NDArray[np.intp] = np.empty(AT_ONCE, np.intp)
        self.found_n: NDArray[np.int16] = np.empty(AT_ONCE, np.int16)


@dataclass(frozen=True)
class PrefixTable:
    """The buckets by the leading bits of words, which values of one dtype are read as.

    Entry p is of the words w with `w >> shift == first + p`: 1 + b if all of them belong into
    bucket b, 0 if that is not known. The first and the last, 0, are of all words before and behind.
    """

    layout: Layout
    shift: np.unsignedinteger[Any]
    first: np.int64
    entries_p: NDArray[np.int16]

    def find(self, values_n: NDArray[Any], room: Room) -> NDArray[np.intp]:
        """Returns 1 + bucket of each value of the layout's dtype, 0 where it is not known.

        Args:
            values_n: `AT_ONCE` at most.
            room: Holds the result until it is used again.
        """
        places_n, found_n = room.places_n[: values_n.size], room.found_n[: values_n.size]
        np.right_shift(self.layout.words(values_n), self.shift, out=places_n, casting="same_kind")
        # What lies before the first becomes negative, and the first entry, as what lies behind the
        # last becomes the last.
        if self.first:
            places_n -= self.first
        self.entries_p.take(places_n, mode="clip", out=found_n)
        np.copyto(places_n, found_n)
        return places_n


def prefix_table(
    layout: Layout, first_keys_b: Keys, last_keys_b: Keys, counts_b: NDArray[np.int64]
) -> PrefixTable | None:
    """Returns the table that leads most values to their buckets; None if it leads under half.

    Args:
        layout: How the values will be read.
        first_keys_b: The smallest keys that belong into the buckets.
        last_keys_b: The largest keys that do.
        counts_b: What the buckets hold; fewer than 2**15 buckets.
    """
    lows_b, highs_b = layout.word_range(first_keys_b, last_keys_b)
    full_b = lows_b <= highs_b
    widths_b = np.where(full_b, highs_b - lows_b, 0).astype(np.uint64) + np.uint64(1)
    shifts_b = np.minimum(bit_length(widths_b) - 1, layout.most_shift)
    counts_s = np.bincount(shifts_b, counts_b * full_b, minlength=64 + _WIDER)
    held_s = np.convolve(counts_s, np.ones(_WIDER + 1))[_WIDER:]
    total = counts_b.sum()
    scores_s = held_s + _DOUBLING * total * np.arange(held_s.size)
    for shift in np.argsort(-scores_s).tolist():
        if held_s[shift] < _WORTH * total:
            continue
        rows_m = np.flatnonzero(full_b & (shift <= shifts_b) & (shifts_b <= shift + _WIDER))
        word_shift = lows_b.dtype.type(shift)
        if (highs_b[rows_m].max() >> word_shift) - (lows_b[rows_m].min() >> word_shift) < _PREFIXES:
            return _filled(layout, word_shift, lows_b[rows_m], highs_b[rows_m], rows_m)
    return None


def _filled(
    layout: Layout,
    shift: np.unsignedinteger[Any],
    lows_m: NDArray[Any],
    highs_m: NDArray[Any],
    buckets_m: NDArray[np.intp],
) -> PrefixTable:
    one = lows_m.dtype.type(1)
    # As an array, which wraps around in silence below the smallest number.
    (first,) = (lows_m.min(keepdims=True) >> shift).astype(np.int64) - 1
    if first > 0 and (highs_m.max() >> shift) < _MOST_FROM_ZERO:
        first = np.int64(0)
    left_out = (one << shift) - one
    # Only prefixes that lie within a bucket as a whole, so that nothing needs a second look.
    starts_m = ((lows_m >> shift) + (lows_m & left_out != 0)).astype(np.int64) - first
    stops_m = ((highs_m >> shift) + (highs_m & left_out == left_out)).astype(np.int64) - first
    entries_p = np.zeros(int(stops_m.max()) + 1, np.int16)
    while starts_m.size:
        wide_m = np.flatnonzero(starts_m < stops_m)
        starts_m, stops_m, buckets_m = starts_m[wide_m], stops_m[wide_m], buckets_m[wide_m]
        entries_p[starts_m] = buckets_m + 1
        starts_m += 1
    return PrefixTable(layout, shift, first, entries_p)
