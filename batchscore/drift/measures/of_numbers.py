"""The measures of two samples of numbers, other than those in bins.

Suffixes: `_b` buckets, `_k` bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.histogram import CAP
from batchscore.drift.measures.binned import Bins
from batchscore.drift.measures.declaration import Difference, Kind, MeasureSpec
from batchscore.drift.measures.noise import pooled_size
from batchscore.drift.measures.shares import compare_shares, percent, shares_floor
from batchscore.drift.ordered import (
    Aligned,
    Wasserstein,
    clipped_places,
    coarse_buckets,
    decile_bins,
    decile_starts,
    ks,
    partings,
    tail_counts,
    tail_p,
    wasserstein,
)
from batchscore.drift.rates import NumberNames

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class NumberSides:
    """Two samples of numbers in shared buckets.

    Args:
        aligned: The counts.
        names: Names their values for people.
        hour: How many units an hour has, of timestamps; None of other numbers.
    """

    aligned: Aligned
    names: NumberNames = field(default_factory=NumberNames)
    hour: float | None = None
    kind: ClassVar[Kind] = "numbers"

    @cached_property
    def n(self) -> int:
        """The values of the reference."""
        return int(self.aligned.p_b.sum())

    @cached_property
    def m(self) -> int:
        """The current values."""
        return int(self.aligned.q_b.sum())

    @property
    def s(self) -> float:
        """The factor of the noise: 1/n + 1/m."""
        return pooled_size(self.n, self.m)

    @property
    def too_few(self) -> bool:
        """Whether a side is empty."""
        return not self.n or not self.m

    @cached_property
    def coarse_b(self) -> NDArray[np.bool_]:
        """Which buckets are so wide that it matters how values moved within them."""
        return coarse_buckets(self.aligned)

    def name(self, bucket: int) -> str:
        """Returns the value of a bucket for people."""
        return self.names.of_bucket(self.aligned, bucket)

    @cached_property
    def bins(self) -> Bins:
        """The counts between the reference's deciles."""
        return Bins(*decile_bins(self.aligned))

    def bin_name(self, place: int) -> str:
        """Returns between which values a bin lies."""
        starts_k = decile_starts(self.aligned)
        last = starts_k[place + 1] - 1 if place + 1 < starts_k.size else self.aligned.p_b.size - 1
        low, high = self.aligned.lows_b[starts_k[place]], self.aligned.highs_b[last]
        if starts_k.size == 1 or low == high:
            return self.names.shown(float(low))
        if place == 0:
            return f"up to {self.names.shown(float(high))}"
        if place + 1 == starts_k.size:
            return f"from {self.names.shown(float(low))}"
        return f"{self.names.shown(float(low))} to {self.names.shown(float(high))}"

    @cached_property
    def distance(self) -> Wasserstein:
        """The Wasserstein distance in several units."""
        return wasserstein(self.aligned)


def _ks(sides: NumberSides) -> Iterator[Difference]:
    (low, high), s = ks(sides.aligned, sides.coarse_b), sides.s
    yield Difference(
        low,
        lambda alpha: math.sqrt(-math.log(alpha / 2) / 2 * s),
        low=low,
        high=high,
        detail=_coarsest(sides, low, high) if high > low else _widest(sides),
    )


def _widest(sides: NumberSides) -> str:
    """Returns up to which value the cumulative shares differ most, with both."""
    p_b, q_b = sides.aligned.p_b.cumsum() / sides.n, sides.aligned.q_b.cumsum() / sides.m
    bucket = int(np.abs(q_b - p_b).argmax())
    if p_b[bucket] == q_b[bucket]:
        return ""
    high = sides.names.shown(float(sides.aligned.highs_b[bucket]))
    return f"up to {high}: {percent(p_b[bucket])} → {percent(q_b[bucket])}"


def _medians(sides: NumberSides) -> str:
    """Returns the medians of both sides; nothing where they are the same."""
    halves = ((sides.aligned.p_b, sides.n), (sides.aligned.q_b, sides.m))
    before, now = (
        sides.name(int(np.searchsorted(side_b.cumsum(), -(-n // 2)))) for side_b, n in halves
    )
    return f"median {before} → {now}" if before != now else ""


def _coarsest(sides: NumberSides, low: float, high: float) -> str:
    """Returns why KS is known within bounds only, and by how much."""
    aligned = sides.aligned
    bucket = int(np.where(sides.coarse_b, partings(aligned), 0.0).argmax())
    share = (aligned.p_b[bucket] + aligned.q_b[bucket]) / (sides.n + sides.m)
    return (
        f"between {low:.3g} and {high:.3g}, since {percent(share)} of the values lie "
        f"{sides.names.range_of(aligned, bucket)}, which is one bucket of the profile"
    )


def _w1(sides: NumberSides) -> Iterator[Difference]:
    s, distance = sides.s, sides.distance
    effect, spread = distance.clipped_over_sigma, distance.j_over_sigma
    if effect is None or spread is None:
        yield _no_distance(sides.aligned)
        return
    expected, scale = math.sqrt(2 / math.pi) * spread, _pooled_scale(sides.aligned)

    def floor(alpha: float) -> float:
        return math.sqrt(s) * (expected + scale * math.sqrt(-2 * math.log(alpha)))

    yield Difference(effect, floor, detail=_medians(sides))


def _no_distance(aligned: Aligned) -> Difference:
    """Returns Wasserstein's distance without a value: undecided, unless there is one value only."""
    if aligned.exact and aligned.p_b.size == 1:
        return Difference(None)
    why = "the reference's clipped values have no spread"
    return Difference(None, lambda alpha: math.inf, detail=why)


def _pooled_scale(aligned: Aligned) -> float:
    """Returns the standard deviation of both clipped samples pooled over the reference's, if more.

    A small reference may by chance have a far smaller one than its source, for example where most
    values are 0. Noise depends on the source.
    """
    places_b = clipped_places(aligned)
    with np.errstate(over="ignore", invalid="ignore"):
        units_b = (places_b - places_b[0]) / (places_b[-1] - places_b[0])
    variance = _variance(units_b, aligned.p_b)
    pooled = _variance(units_b, aligned.p_b + aligned.q_b)
    return math.sqrt(pooled / variance) if pooled > variance > 0 else 1.0


def _variance(units_b: NDArray[np.float64], counts_b: Counts) -> float:
    n = int(counts_b.sum())
    mean = math.fsum((units_b * counts_b).tolist()) / n
    return math.fsum(((units_b - mean) ** 2 * counts_b).tolist()) / n


def _tail(sides: NumberSides) -> Iterator[Difference]:
    n, m = sides.n, sides.m
    outside, outside_now = tail_counts(sides.aligned)
    floor = shares_floor(min(outside + 1, n), n, outside_now, m)
    yield replace(
        compare_shares(outside, n, outside_now, m),
        # The edges are values of the reference itself, which leaves one value more outside.
        floor=lambda alpha: floor(alpha) + 1 / n,
        chance=tail_p(sides.aligned),
    )


def _beyond(shares: Shares, title: str) -> str:
    is_, was = percent(shares.now), percent(shares.before)
    return f"{is_} of the values lie beyond the tails, {was} did in {title}"


MEASURES = (
    MeasureSpec(
        name="ks",
        kinds=("numbers",),
        find=_ks,
        label="KS",
        meaning="largest difference of the two cumulative shares, with certified bounds",
        tested=True,
        defaults=Thresholds(0.1, 0.2),
        most=1,
        decides=True,
        words="KS",
        remedy=f"round the column to at most {CAP:,} distinct values",
        of_places=True,
        samples="numbers; the certified lower bound, apart from moves of less than 0.02 of the "
        "reference's standard deviations within a bucket",
        noise="KS ≥ √(s · ln(2/alpha') / 2)",
    ),
    MeasureSpec(
        name="w1",
        kinds=("numbers",),
        find=_w1,
        label="Wasserstein-1 / sigma",
        meaning="mean distance moved, tails clipped, over the reference's sigma",
        tested=True,
        defaults=Thresholds(0.1, 0.25),
        words="Wasserstein distance",
        of_places=True,
        samples="numbers clipped to the 0.5 % and 99.5 % of the reference's finite values; in the "
        "reference's standard deviations",
        noise="W1 ≥ √s · (√(2/π) · J/σ + r · √(2 ln(1/alpha'))), J = ∫√(F(1−F)) of both together, "
        "r their standard deviation over the reference's, at least 1",
    ),
    MeasureSpec(
        name="w1_unclipped",
        kinds=("numbers",),
        find=lambda sides: [Difference(sides.distance.over_sigma, detail=_medians(sides))],
        label="Wasserstein-1 / sigma, unclipped",
        meaning="the same with the tails",
        of_places=True,
        samples="all numbers: Wasserstein distance in the reference's standard deviations",
    ),
    MeasureSpec(
        name="w1_iqr",
        kinds=("numbers",),
        find=lambda sides: [Difference(sides.distance.over_iqr, detail=_medians(sides))],
        label="Wasserstein-1 / IQR",
        meaning="the same over the reference's interquartile range",
        of_places=True,
        samples="all numbers: Wasserstein distance in the reference's interquartile ranges",
    ),
    MeasureSpec(
        name="tail",
        kinds=("numbers",),
        find=_tail,
        label="tail share",
        meaning="share outside the reference's 0.5 % and 99.5 % edges",
        tested=True,
        defaults=Thresholds(0.01, 0.05),
        most=1,
        words="a difference of",
        changed=_beyond,
        of_places=True,
        samples="share of numbers outside the reference's 0.5 % and 99.5 %, difference",
        noise="Fisher's exact test, for edges that are values of the reference",
    ),
)
