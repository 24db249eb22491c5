"""The measures of two samples in bins: deciles of numbers, or categories.

Suffixes: `_k` bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batchscore.drift import divergences
from batchscore.drift.findings import Thresholds
from batchscore.drift.measures.declaration import GROUP, Difference, Kind, MeasureSpec
from batchscore.drift.measures.noise import chi2_chance, chi2_floor, pooled_size
from batchscore.drift.measures.shares import percent

Counts = NDArray[np.int64]

_BITS = 8 * math.log(2)  # a squared Jensen-Shannon distance over s, times this, is a chi-square
_SIGMAS = 3  # of the noise, that a change hidden in folds may add to what they show
_KINDS: tuple[Kind, ...] = ("numbers", "categories")


@dataclass(frozen=True)
class Bins:
    """The counts of reference and current in the same bins, and their test against noise.

    The test is one: the Jensen-Shannon distance of the smoothed shares that PSI is made of, whose
    square over s is about a chi-square. PSI itself has too heavy a tail for that. So have the
    unsmoothed distances, the Hellinger distance most, where many bins have few counts.

    Args:
        p_k: The reference's counts.
        q_k: The current counts.
        sees: Which share of a change among values shows in the bins; below 1 where several values
            share a bin by chance.
        of: What these bins are, for people, in that case.
    """

    p_k: Counts
    q_k: Counts
    sees: float = 1.0
    of: str = ""

    @cached_property
    def smoothed(self) -> tuple[float, int]:
        """The squared distance of the smoothed shares, and the bins that it compares."""
        return divergences.smoothed_js2(self.p_k, self.q_k)

    @property
    def s(self) -> float:
        """The factor of the noise: 1/n + 1/m."""
        return pooled_size(int(self.p_k.sum()), int(self.q_k.sum()))

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the test."""
        return max(1, self.smoothed[1] - 1)

    @cached_property
    def chance(self) -> float:
        """The chance that noise alone differs as much."""
        return chi2_chance(_BITS * self.smoothed[0] / self.s, self.freedom)

    def most(self, factor: float, power: float) -> float:
        """Returns about what an effect may be among values: noise taken off, and hidden changes on.

        Three standard deviations of the noise are what the bins may have failed to show.
        """
        noise = self.freedom * self.s
        shown = max(0.0, _BITS * self.smoothed[0] - noise)
        shown += _SIGMAS * self.s * math.sqrt(2 * self.freedom)
        return float((shown / self.sees / factor) ** power)

    def floor(self, factor: float, power: float, alpha: float) -> float:
        """Returns what noise may reach, for an effect that is (χ² · s / factor) ** power."""
        return float((chi2_floor(alpha, self.freedom) * self.s / factor) ** power)


class InBins(Protocol):
    """Sides that can be compared in bins."""

    @property
    def bins(self) -> Bins:
        """The counts."""
        ...

    def bin_name(self, place: int) -> str:
        """Returns what a bin holds, for people."""
        ...


Distance = Callable[[Counts, Counts], float | None]


def _tested(distance: Distance, factor: float, power: float, sides: InBins) -> Iterator[Difference]:
    bins = sides.bins
    effect = distance(bins.p_k, bins.q_k)
    found = Difference(effect, partial(bins.floor, factor, power), bins.chance, detail=_most(sides))
    if effect is None or bins.sees == 1:
        yield found
        return
    high = max(effect, bins.most(factor, power))
    high = high if power == 1 else min(1.0, high)
    between = f"between {effect:.3g} and about {high:.3g}, {bins.of}"
    yield replace(found, low=effect, high=high, detail=between)


def _shown(distance: Distance, sides: InBins) -> Iterator[Difference]:
    bins = sides.bins
    detail = f"at least, {bins.of}" if bins.sees < 1 else _most(sides)
    yield Difference(distance(bins.p_k, bins.q_k), detail=detail)


def _most(sides: InBins) -> str:
    """Returns the bin whose share changed most, with both shares; nothing where none did."""
    p_k, q_k = (side_k / max(1, int(side_k.sum())) for side_k in (sides.bins.p_k, sides.bins.q_k))
    place = int(np.abs(q_k - p_k).argmax())
    if p_k[place] == q_k[place]:
        return ""
    return f"{sides.bin_name(place)}: {percent(p_k[place])} → {percent(q_k[place])}"


def _chi2(sides: InBins) -> Iterator[Difference]:
    bins = sides.bins
    statistic, _, p_value = divergences.chi2(bins.p_k, bins.q_k)
    of = f"; at least, {bins.of}" if bins.sees < 1 else ""
    yield Difference(statistic, detail=f"{bins.smoothed[1]} bins, p {p_value:.3g}{of}")


MEASURES = (
    MeasureSpec(
        name="psi",
        kinds=_KINDS,
        find=partial(_tested, divergences.psi, 1, 1),
        label="PSI",
        meaning="population stability index over ten bins, or over categories",
        tested=True,
        defaults=Thresholds(0.1, 0.25),
        decides=True,
        words="PSI",
        power=2,
        remedy=GROUP,
        samples="numbers in 10 bins between the reference's deciles, where a value of 5 % or "
        "more at a decile is a bin of its own; categories, rare ones as one",
        noise="8 ln 2 · JS² / s ≥ χ² of bins − 1 at alpha', where JS is the Jensen-Shannon "
        "distance of PSI's own smoothed shares",
    ),
    MeasureSpec(
        name="js",
        kinds=_KINDS,
        find=partial(_tested, divergences.js_distance, _BITS, 0.5),
        label="Jensen-Shannon",
        meaning="distance, base 2",
        tested=True,
        most=1,
        words="Jensen-Shannon distance",
        samples="the bins of `psi`: Jensen-Shannon distance, base 2",
        noise="as `psi`",
    ),
    MeasureSpec(
        name="hellinger",
        kinds=_KINDS,
        find=partial(_tested, divergences.hellinger, 8, 0.5),
        label="Hellinger",
        meaning="distance of the two distributions",
        tested=True,
        most=1,
        words="Hellinger distance",
        samples="the bins of `psi`: Hellinger distance",
        noise="as `psi`",
    ),
    MeasureSpec(
        name="total_variation",
        kinds=_KINDS,
        find=partial(_shown, divergences.total_variation),
        label="total variation",
        meaning="half the sum of all differences of shares",
        samples="the bins of `psi`: half the sum of all differences of shares",
    ),
    MeasureSpec(
        name="l_infinity",
        kinds=_KINDS,
        find=partial(_shown, divergences.l_infinity),
        label="L∞",
        meaning="largest difference of one share",
        samples="the bins of `psi`: largest difference of one share",
    ),
    MeasureSpec(
        name="chi2",
        kinds=_KINDS,
        find=_chi2,
        label="χ²",
        meaning="two-sample statistic, without Yates",
        samples="the bins of `psi`: two-sample χ² without Yates, with its p",
    ),
    MeasureSpec(
        name="cramers_v",
        kinds=_KINDS,
        find=partial(_shown, divergences.cramers_v),
        label="Cramér's V",
        meaning="χ² as an effect from 0 to 1",
        samples="the bins of `psi`: χ² as an effect from 0 to 1",
    ),
)
