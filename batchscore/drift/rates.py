"""Numbers of which the reference has at most two are categories: a rate, whatever its type.

Suffixes: `_b` buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from batchscore.drift.categorical import AlignedCategories
from batchscore.drift.ordered import Aligned

_VALUES = 2


@dataclass(frozen=True)
class NumberNames:
    """Names the values of a column's numbers for people.

    Args:
        shown: Returns a value of the column's type as people read it.
    """

    shown: Callable[[float], str] = "{:.15g}".format

    def range_of(self, aligned: Aligned, bucket: int) -> str:
        """Returns between which values a bucket's lie."""
        low, high = float(aligned.lows_b[bucket]), float(aligned.highs_b[bucket])
        return f"between {self.shown(low)} and {self.shown(high)}"

    def of_bucket(self, aligned: Aligned, bucket: int) -> str:
        """Returns the value of a bucket, or about which value it holds."""
        low, high = float(aligned.lows_b[bucket]), float(aligned.highs_b[bucket])
        return self.shown(low) if low == high else f"about {self.shown(low + (high - low) / 2)}"


def is_rate(aligned: Aligned) -> bool:
    """Returns whether the reference has at most two values, and all of both are exact, finite."""
    few = int(np.count_nonzero(aligned.p_b)) <= _VALUES and aligned.exact
    return bool(few and np.isfinite(aligned.places_b).all())


def as_categories(
    aligned: Aligned, names: NumberNames
) -> tuple[AlignedCategories, Callable[[int], str]]:
    """Returns each value of a rate as a category, and what to call it."""
    cells_b = np.arange(aligned.p_b.size, dtype=np.uint64)
    p_b, q_b = aligned.p_b, aligned.q_b
    named: Mapping[int, str] = {i: names.of_bucket(aligned, i) for i in range(cells_b.size)}
    both = AlignedCategories(cells_b, p_b, q_b, cells_b, p_b, q_b, sampled=1.0, exact=True)
    return both, named.__getitem__
