"""The measure of a number that is far more frequent than those around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.declaration import Difference, MeasureSpec
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.shares import compare_shares, percent
from batchscore.drift.spikes import spikes


def _frequent(sides: NumberSides) -> Iterator[Difference]:
    """Yields the change of each frequent value, the largest first."""
    p_b, q_b = sides.aligned.p_b, sides.aligned.q_b
    found = [
        _change(sides, bucket, int(p_b[bucket]), int(q_b[bucket]))
        for bucket in spikes(sides.aligned, sides.coarse_b).tolist()
    ]
    yield from sorted(found, key=lambda each: -(each.value or 0.0))


def _change(sides: NumberSides, bucket: int, p: int, q: int) -> Difference:
    found, name = compare_shares(p, sides.n, q, sides.m), sides.name(bucket)
    assert found.chance is not None
    assert found.shares is not None
    # Any of the buckets might have been the frequent one.
    buckets = sides.aligned.p_b.size
    return replace(
        found,
        floor=_corrected(found.floor, buckets),
        chance=min(1.0, found.chance * buckets),
        detail=f"{name}: {found.detail}",
        shares=replace(found.shares, value=name),
    )


def _corrected(floor: Callable[[float], float] | None, buckets: int) -> Callable[[float], float]:
    return lambda alpha: floor(alpha / buckets) if floor else math.inf


def _more_or_less(shares: Shares, title: str) -> str:
    is_, was = percent(shares.now), percent(shares.before)
    return f"{shares.value} is {is_} of the values, was {was} in {title}"


MEASURES = (
    MeasureSpec(
        name="frequent",
        kinds=("numbers",),
        find=_frequent,
        label="frequent number",
        meaning="change of the share of a number that is far more frequent than those around it",
        tested=True,
        defaults=Thresholds(0.05, 0.1),
        most=1,
        words="a difference of",
        changed=_more_or_less,
        of_places=True,
        samples="a number with 5 % of the values or more, five times as frequent as those next to "
        "it, such as an imputed mean: difference of its share",
        noise="Fisher's exact test at alpha' / buckets",
    ),
)
