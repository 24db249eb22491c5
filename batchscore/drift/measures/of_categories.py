"""The measures of two samples of categories, other than those in bins.

Suffixes: `_c` cells, which are values or folds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from batchscore.drift.categorical import (
    AlignedCategories,
    CategoryChanges,
    Unseen,
    category_changes,
    distinct_values,
    is_rare,
    pool_rare,
    seen_share,
    unseen,
)
from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.binned import Bins
from batchscore.drift.measures.declaration import GROUP, Difference, Kind, MeasureSpec
from batchscore.drift.measures.noise import normal_floor
from batchscore.drift.measures.shares import compare_shares, percent

# A category with this share that has become so many times as frequent, or of a rate as rare.
_FREQUENT, _TIMES, _RATE = 0.002, 3, 2
_BOUNDS = 0.05  # the chance that the bounds of an estimate miss
_DIGITS = 12  # beyond them changes are alike
_LARGEST, _LEAST = 10, 0.01  # so many changes of so much are tested next to the largest, and rises


@dataclass(frozen=True)
class CategorySides:
    """Two samples of categories.

    Args:
        aligned: The counts.
        label: Names a cell of them for people.
    """

    aligned: AlignedCategories
    label: Callable[[int], str]
    kind: ClassVar[Kind] = "categories"

    @property
    def too_few(self) -> bool:
        """Whether a side is empty."""
        return not self.aligned.p_c.any() or not self.aligned.q_c.any()

    @cached_property
    def bins(self) -> Bins:
        """The counts, rare categories as one."""
        pooled = pool_rare(self.aligned.p_c, self.aligned.q_c)
        return Bins(*pooled, seen_share(self.aligned), self.of_folds)

    @property
    def of_folds(self) -> str:
        """How values are counted, for people; nothing where each is."""
        if self.aligned.exact:
            return ""
        distinct = float(f"{distinct_values(self.aligned):.2g}")
        return f"since about {distinct:,.0f} values share {self.aligned.cell_c.size:,} folds"

    def bin_name(self, place: int) -> str:
        """Returns the value of a bin, or that it holds the rare ones."""
        frequent = np.flatnonzero(~is_rare(self.aligned.p_c, self.aligned.q_c))
        if place >= frequent.size:
            return "rare values"
        return self.label(int(self.aligned.cell_c[frequent[place]]))


def _unseen(sides: CategorySides) -> Iterator[Difference]:
    aligned = sides.aligned
    found, n = unseen(aligned), int(aligned.p_c.sum())

    def floor(alpha: float) -> float:
        # A normal distribution has no room for the one value of share x that n rows may miss with
        # a chance of exp(-n x); there are at most n of such x.
        missed = math.log(n / alpha) / (n * aligned.sampled)
        return normal_floor(alpha) * math.sqrt(found.variance) + missed

    exact = Difference(
        max(0.0, found.share - found.expected),
        floor,
        detail=f"{percent(found.share)}, {percent(found.expected)} expected",
        shares=Shares(found.expected, found.share),
    )
    yield exact if aligned.sampled == 1 else _estimated(exact, found, aligned)


def _estimated(exact: Difference, found: Unseen, aligned: AlignedCategories) -> Difference:
    """Returns the share of new values as an estimate from the values of a sample."""
    assert exact.value is not None
    around = normal_floor(_BOUNDS / 2) * math.sqrt(found.of_sample)
    low, high = max(0.0, exact.value - around), min(1.0, exact.value + around)
    distinct = float(f"{distinct_values(aligned):.2g}")
    return replace(
        exact,
        low=low,
        high=high,
        estimate=True,
        detail=f"an excess between {percent(low)} and {percent(high)}, an estimate from "
        f"{aligned.hash_v.size:,} of about {distinct:,.0f} values: {exact.detail}",
    )


def _category(sides: CategorySides) -> Iterator[Difference]:
    """Yields the largest changes, the largest first, and all that became frequent or rare."""
    changes = category_changes(sides.aligned)
    p_c, q_c = changes.p_share_c, changes.q_share_c
    change_c = np.abs(q_c - p_c)
    times_c = (q_c >= _FREQUENT) & (q_c >= _TIMES * p_c)
    if p_c.size <= _RATE:  # of many values seasons make some rare
        times_c |= (p_c >= _FREQUENT) & (p_c >= _TIMES * q_c)
    # Of two values one changes as much as the other: a rate is that of the rarer one.
    largest_c = np.lexsort((-changes.q_c, changes.p_c, -np.round(change_c, _DIGITS)))
    tested_c = times_c[largest_c]
    tested_c[:_LARGEST] |= change_c[largest_c[:_LARGEST]] >= _LEAST
    tested_c[0] = True
    for cell in largest_c[tested_c].tolist():
        label = sides.label(int(changes.cell_c[cell]))
        yield _change(changes, cell, label, bool(times_c[cell]))


def _change(changes: CategoryChanges, cell: int, label: str, many_times: bool) -> Difference:
    p, q, cells = int(changes.p_c[cell]), int(changes.q_c[cell]), changes.cell_c.size
    found = compare_shares(p, changes.n, q, changes.m)
    assert found.chance is not None
    assert found.shares is not None
    return replace(
        found,
        floor=lambda alpha: found.floor(alpha / cells) if found.floor else math.inf,
        chance=min(1.0, found.chance * cells),
        detail=", ".join([f"{label}: {found.detail}", *([_often(p, q)] if many_times else [])]),
        shares=replace(found.shares, value=label),
        warns=many_times,
    )


def _often(before: int, now: int) -> str:
    if not before or not now:
        return "gone" if before else "a new value"
    return f"{_TIMES} times as {'often' if now > before else 'seldom'}"


def _many_times(shares: Shares) -> str:
    if not shares.before or not shares.now:
        return "the value is gone" if shares.before else "a new value"
    return f"{'three times' if shares.now > shares.before else 'a third of'} its share or " + (
        "more" if shares.now > shares.before else "less"
    )


def _appeared(shares: Shares, title: str) -> str:
    found, expected = percent(shares.now), percent(shares.before)
    return f"{found} of the rows have values that are not in {title} ({expected} expected)"


def _more_or_less(shares: Shares, title: str) -> str:
    is_, was = percent(shares.now), percent(shares.before)
    return f"{shares.value} is {is_} of the rows, was {was} in {title}"


MEASURES = (
    MeasureSpec(
        name="unseen",
        kinds=("categories",),
        find=_unseen,
        label="unseen share",
        meaning="share of rows whose value the reference has not",
        tested=True,
        defaults=Thresholds(0.01, 0.05),
        most=1,
        words="an excess of",
        remedy=GROUP,
        changed=_appeared,
        samples="share of rows with categories that the reference lacks, less the share to expect "
        "(Good-Turing)",
        noise="≥ z · √(u(1−u)/m + (f₁+2f₂+1)/n²) + ln(n/alpha')/n",
    ),
    MeasureSpec(
        name="category",
        kinds=("categories",),
        find=_category,
        label="one category",
        meaning="largest change of one value's share",
        tested=True,
        defaults=Thresholds(0.05, 0.1),
        most=1,
        words="a difference of",
        changed=_more_or_less,
        below=_many_times,
        samples="the largest change of a category's share; a category of 0.2 % or more that became "
        "three times as frequent warns too, and a rate that became a third",
        noise="Fisher's exact test at alpha' / categories",
    ),
)
