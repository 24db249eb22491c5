"""The measure of the hours of the day at which times lie.

Suffixes: `_b` buckets, `_h` hours of the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from batchscore.drift import divergences
from batchscore.drift.clock import hour_counts
from batchscore.drift.findings import Thresholds
from batchscore.drift.measures.binned import Bins
from batchscore.drift.measures.declaration import Difference, MeasureSpec
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.shares import percent


def _hours(sides: NumberSides) -> Iterator[Difference]:
    """Yields the PSI of the hours of the day; nothing of numbers that are no timestamps."""
    aligned = sides.aligned
    if sides.hour is None:
        return
    sides_h = [
        hour_counts(aligned.lows_b, aligned.highs_b, side_b, sides.hour)
        for side_b in (aligned.p_b, aligned.q_b)
    ]
    p_h, q_h = sides_h
    if p_h is None or q_h is None:
        return
    bins = Bins(p_h, q_h)
    shares_h, now_h = p_h / p_h.sum(), q_h / q_h.sum()
    hour = int(np.abs(now_h - shares_h).argmax())
    yield Difference(
        divergences.psi(p_h, q_h),
        partial(bins.floor, 1, 1),
        bins.chance,
        detail=f"from {hour:02d}:00 UTC: {percent(shares_h[hour])} → {percent(now_h[hour])}",
    )


MEASURES = (
    MeasureSpec(
        name="hour",
        kinds=("numbers",),
        find=_hours,
        label="hour of day",
        meaning="population stability index over the hours of the day, in UTC",
        tested=True,
        defaults=Thresholds(0.25, None),
        words="PSI of the hours",
        power=2,
        of_clock=True,
        samples="timestamps by the hour of the day in UTC, if the profile's buckets are an hour "
        "wide at most, as of some months",
        noise="as `psi`",
    ),
)
