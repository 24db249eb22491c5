"""Slow drift: whether a figure rises or falls over nights, though no two nights differ much.

Suffixes: `_p` pairs of nights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 8
"""Nights below which no trend is looked for: their order alone says too little."""
ALPHA = 0.001


@dataclass(frozen=True)
class Trend:
    """A figure that rises or falls.

    Args:
        slope: By how much a night: the median of all slopes between two nights.
        chance: The chance that nights without a trend are ordered so, two-sided.
        nights: How many nights were looked at.
    """

    slope: float
    chance: float
    nights: int


def find_trend(values: Sequence[float | None], alpha: float = ALPHA) -> Trend | None:
    """Returns the trend of a figure over nights; None where chance may have made it.

    The test is that of Mann (1945) and Kendall (1975), by its normal approximation with a
    correction for ties; the slope is that of Theil (1950) and Sen (1968). Nights are taken to be
    independent but for the trend.

    Args:
        values: The figure of each night, the oldest first; nights without it are left out.
        alpha: The chance of a false trend.
    """
    known = [(night, float(value)) for night, value in enumerate(values) if value is not None]
    if len(known) < LEAST:
        return None
    nights_n, values_n = (np.array(each) for each in zip(*known, strict=True))
    later, earlier = np.tril_indices(len(known), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        rises_p = values_n[later] - values_n[earlier]
    score = float(np.sign(rises_p).sum())
    deviation = math.sqrt(_variance(values_n.tolist()))
    if not deviation or not np.isfinite(rises_p).all():
        return None
    chance = math.erfc(max(0.0, abs(score) - 1) / deviation / math.sqrt(2))
    if chance > alpha:
        return None
    slopes_p = rises_p / (nights_n[later] - nights_n[earlier])
    return Trend(float(np.median(slopes_p)), chance, len(known))


def _variance(values: Sequence[float]) -> float:
    n = len(values)
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    return (n * (n - 1) * (2 * n + 5) - ties) / 18
