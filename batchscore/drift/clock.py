"""The hours of the day at which times lie, as far as buckets tell.

Suffixes: `_b` buckets, `_h` hours of the day.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

HOURS = 24
_FINE = 0.99  # of the times, that have to lie in buckets of an hour at most
_UNIT = re.compile(r"timestamp\[(s|ms|us|ns)")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def hour_units(type_: str) -> float | None:
    """Returns how many of a timestamp's units an hour has; None for other types."""
    found = _UNIT.match(type_)
    return 3600.0 * _PER_SECOND[found[1]] if found else None


def hour_counts(lows_b: Floats, highs_b: Floats, counts_b: Counts, hour: float) -> Counts | None:
    """Returns how many times lie in each hour (h,) of the day, in UTC; None where that is unknown.

    A bucket's times are taken to lie evenly within it. Buckets wider than an hour tell nothing, so
    that of times of many months nothing is known.

    Args:
        lows_b: The smallest time of each bucket, in units since 1970.
        highs_b: The largest.
        counts_b: How many times each bucket has.
        hour: How many units an hour has.
    """
    fine_b = (highs_b - lows_b <= hour) & np.isfinite(lows_b) & np.isfinite(highs_b)
    if not counts_b.any() or counts_b[fine_b].sum() < _FINE * counts_b.sum():
        return None
    first_b, last_b = lows_b[fine_b] / hour, highs_b[fine_b] / hour
    wide_b = np.maximum(last_b - first_b, 1e-9)
    within_b = np.minimum(1.0, (np.floor(first_b) + 1 - first_b) / wide_b) * counts_b[fine_b]
    found_h = np.zeros(HOURS)
    np.add.at(found_h, _of_day(first_b), within_b)
    np.add.at(found_h, _of_day(last_b), counts_b[fine_b] - within_b)
    return np.rint(found_h).astype(np.int64)


def best_turn(before_h: Counts, now_h: Counts) -> tuple[int, float]:
    """Returns by how many hours to turn the day so that it explains a change most, and how much.

    Args:
        before_h: Times by hour in the reference.
        now_h: Current times by hour.
    """
    n, m = int(before_h.sum()), int(now_h.sum())
    p_h, q_h = before_h / n, now_h / m
    chance = float(np.sqrt(2 / np.pi * p_h * (1 / n + 1 / m)).sum()) / 2
    whole = float(np.abs(q_h - p_h).sum()) / 2
    if whole <= 3 * chance:
        return 0, 0.0
    left = [float(np.abs(q_h - np.roll(p_h, turn)).sum()) / 2 for turn in range(HOURS)]
    turn = int(np.argmin(left))
    explained = 1 - max(0.0, left[turn] - chance) / whole
    return turn if turn <= HOURS // 2 else turn - HOURS, explained


def _of_day(hours_b: Floats) -> NDArray[np.intp]:
    return (np.floor(hours_b) % HOURS).astype(np.intp)
