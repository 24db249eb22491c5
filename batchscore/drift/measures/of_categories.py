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
    category_changes,
    is_rare,
    pool_rare,
    unseen,
)
from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.binned import Bins
from batchscore.drift.measures.declaration import Difference, Kind, MeasureSpec
from batchscore.drift.measures.noise import normal_floor
from batchscore.drift.measures.shares import compare_shares, percent

_FREQUENT, _RISE = 0.01, 3  # a category with this share that has become so many times as frequent
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
        return Bins(*pool_rare(self.aligned.p_c, self.aligned.q_c))

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

    yield Difference(
        max(0.0, found.share - found.expected),
        floor,
        detail=f"{percent(found.share)}, {percent(found.expected)} expected",
        shares=Shares(found.expected, found.share),
    )


def _category(sides: CategorySides) -> Iterator[Difference]:
    """Yields the largest changes, the largest first, and categories that became frequent."""
    changes = category_changes(sides.aligned)
    change_c = np.abs(changes.q_share_c - changes.p_share_c)
    risen_c = (changes.q_share_c >= _FREQUENT) & (changes.q_share_c >= _RISE * changes.p_share_c)
    # Of two values one changes as much as the other: a rate is that of the rarer one.
    largest_c = np.lexsort((-changes.q_c, changes.p_c, -np.round(change_c, _DIGITS)))
    tested_c = risen_c[largest_c]
    tested_c[:_LARGEST] |= change_c[largest_c[:_LARGEST]] >= _LEAST
    tested_c[0] = True
    for cell in largest_c[tested_c].tolist():
        label = sides.label(int(changes.cell_c[cell]))
        yield _change(changes, cell, label, bool(risen_c[cell]))


def _change(changes: CategoryChanges, cell: int, label: str, risen: bool) -> Difference:
    p, q, cells = int(changes.p_c[cell]), int(changes.q_c[cell]), changes.cell_c.size
    found = compare_shares(p, changes.n, q, changes.m)
    assert found.chance is not None
    assert found.shares is not None
    return replace(
        found,
        floor=lambda alpha: found.floor(alpha / cells) if found.floor else math.inf,
        chance=min(1.0, found.chance * cells),
        detail=", ".join([f"{label}: {found.detail}", *([_times(p)] if risen else [])]),
        shares=replace(found.shares, value=label),
        warns=risen,
    )


def _times(before: int) -> str:
    return f"{_RISE} times as often" if before else "a new value"


def _risen(shares: Shares) -> str:
    return "three times its share or more" if shares.before else "a new value"


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
        below=_risen,
        samples="the largest change of a category's share; a category of 1 % or more that became "
        "three times as frequent warns too",
        noise="Fisher's exact test at alpha' / categories",
    ),
)
