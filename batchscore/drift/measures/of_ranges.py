"""The measures of how far numbers reach, and of how many values they have.

Suffixes: `_b` buckets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchscore.drift import special
from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.declaration import Difference, MeasureSpec
from batchscore.drift.measures.noise import normal_floor
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.shares import percent

Counts = NDArray[np.int64]

_LEAST = 250  # different values; of fewer, half of them may be missing by chance


def _beyond(sides: NumberSides) -> Iterator[Difference]:
    """Yields the share of current values that lie beyond all of the reference."""
    n, m, q_b = sides.n, sides.m, sides.aligned.q_b
    first, last = _ends(sides.aligned.p_b)
    below, above = int(q_b[:first].sum()), int(q_b[last + 1 :].sum())
    chance = 2 * min(all_current(below, n, m), all_current(above, n, m))
    yield Difference(
        (below + above) / m,
        lambda alpha: _most_by_chance(alpha / 2, n, m) / m,
        chance=min(1.0, chance),
        detail=_where(sides, below, above),
        shares=Shares(0.0, (below + above) / m, _where(sides, below, above)),
    )


def all_current(k: int, n: int, m: int) -> float:
    """Returns the chance that the k largest of n reference and m current values are all current.

    Of values in random order it is C(m, k) / C(n + m, k), and less if some are equal. The same
    holds for the k smallest.
    """
    if k == 0:
        return 1.0
    gamma = special.functions().gammaln
    log = gamma(m + 1) - gamma(m - k + 1) - gamma(n + m + 1) + gamma(n + m - k + 1)
    return float(math.exp(min(0.0, log)))


def _most_by_chance(alpha: float, n: int, m: int) -> float:
    """Returns about how many of the largest values are current with the chance alpha."""
    return min(float(m), math.log(alpha) / math.log(m / (n + m)))


def _ends(p_b: Counts) -> tuple[int, int]:
    """Returns the first and the last bucket that the reference has values in."""
    occupied = np.flatnonzero(p_b)
    return int(occupied[0]), int(occupied[-1])


def _where(sides: NumberSides, below: int, above: int) -> str:
    """Returns the ends of the reference, and the shares beyond them; nothing without any."""
    first, last = _ends(sides.aligned.p_b)
    low = sides.names.shown(float(sides.aligned.lows_b[first]))
    high = sides.names.shown(float(sides.aligned.highs_b[last]))
    said = [(below, f"below {low}"), (above, f"above {high}")]
    return ", ".join(f"{percent(count / sides.m)} {where}" for count, where in said if count)


def _distinct(sides: NumberSides) -> Iterator[Difference]:
    """Yields by which share the current values are fewer, in as many rows of both.

    That there are more is no fault: of some months there are more values than of one.
    """
    rows = min(sides.n, sides.m)
    before, now = (rarefied(side_b, rows) for side_b in (sides.aligned.p_b, sides.aligned.q_b))
    if before < _LEAST:
        return
    yield Difference(
        max(0.0, 1 - now / before),
        lambda alpha: normal_floor(alpha) * math.sqrt(before + now) / before,
        detail=f"{before:,.0f} → {now:,.0f} values in {rows:,} rows",
        shares=Shares(before, now, f"{rows:,}"),
    )


def rarefied(counts_b: Counts, rows: int) -> float:
    """Returns how many values are to be expected in so many of the rows, drawn at random.

    Hurlbert (1971): the sum over all values of 1 - C(N - N_b, rows) / C(N, rows).
    """
    total = int(counts_b.sum())
    if rows >= total:
        return float(np.count_nonzero(counts_b))
    gamma = special.functions().gammaln
    left_b = total - counts_b[counts_b > 0]
    able_b = left_b[left_b >= rows]
    logs_b = gamma(able_b + 1) - gamma(able_b - rows + 1)
    missed_b = np.exp(logs_b - gamma(total + 1) + gamma(total - rows + 1))
    return float(left_b.size - missed_b.sum())


def _reaches(shares: Shares, title: str) -> str:
    return f"{shares.value} of all values in {title}"


def _has_values(shares: Shares, title: str) -> str:
    return (
        f"{shares.now:,.0f} different values in {shares.value} rows, "
        f"{shares.before:,.0f} in {title}"
    )


MEASURES = (
    MeasureSpec(
        name="beyond",
        kinds=("numbers",),
        find=_beyond,
        label="beyond the range",
        meaning="share below the reference's smallest value or above its largest",
        tested=True,
        defaults=Thresholds(0.001, 0.01),
        most=1,
        words="a share of",
        changed=_reaches,
        of_places=True,
        samples="share of numbers below the reference's smallest or above its largest; infinite "
        "numbers, and probabilities outside 0 to 1, lie beyond all others",
        noise="the k largest of all values are all current by a chance of C(m, k) / C(n+m, k); "
        "likewise the smallest; each ≤ alpha' / 2",
    ),
    MeasureSpec(
        name="distinct",
        kinds=("numbers",),
        find=_distinct,
        label="distinct values",
        meaning="by which share the different values are fewer, in as many rows",
        tested=True,
        defaults=Thresholds(0.4, 0.8),
        most=1,
        words="a difference of",
        changed=_has_values,
        of_places=True,
        samples="different values, or buckets, to expect in min(n, m) rows of each side D, D' "
        "(Hurlbert): 1 − D' / D, if there are fewer",
        noise="≥ z · √(D + D') / D",
    ),
)
