"""Numbers of one side as values with counts, and how far two sides are apart by their shares.

Suffixes: `_b` buckets, `_p` points, `_q` levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.numbers import Numbers

Floats = NDArray[np.float64]
Map = Callable[[Floats], Floats]

LEVELS = 400
_TIMES_NOISE = 3
_NEAR = 1e-9  # by so much of itself a converted number may be off


@dataclass(frozen=True)
class NumberSample:
    """The finite numbers of one side.

    Args:
        values_b: The middle of each bucket, ascending.
        counts_b: How many numbers each holds.
        widths_b: How far the values of a bucket may be apart; 0 where it holds one value only.
        rows: All rows of the column, nulls among them.
        missing: Rows that are null or NaN.
    """

    values_b: Floats
    counts_b: NDArray[np.int64]
    widths_b: Floats
    rows: int
    missing: int

    @property
    def n(self) -> int:
        """How many finite numbers there are."""
        return int(self.counts_b.sum())

    @property
    def exact_b(self) -> NDArray[np.bool_]:
        """Whether a bucket holds one value only."""
        exact_b: NDArray[np.bool_] = self.widths_b == 0
        return exact_b

    def shares_near(self, values_p: Floats, widths_p: Floats) -> Floats:
        """Returns the share of rows with values (p,), or with values around them."""
        reach_p = widths_p / 2 + _NEAR * np.abs(values_p)
        first_p = np.searchsorted(self.values_b, values_p - reach_p, side="left")
        last_p = np.searchsorted(self.values_b, values_p + reach_p, side="right")
        upto = np.r_[0, self.counts_b.cumsum()]
        shares_p: Floats = (upto[last_p] - upto[first_p]) / max(1, self.rows)
        return shares_p

    def share_of(self, value: float) -> float:
        """Returns the share of rows that have a value."""
        return float(self.shares_near(np.array([value]), np.zeros(1))[0])

    def mapped(self, convert: Map) -> NumberSample:
        """Returns the sample with each value converted."""
        values_b = convert(self.values_b)
        return self._taken(np.argsort(values_b, kind="stable"), values_b)

    @cached_property
    def levels(self) -> Floats:
        """Returns the values (q,) at levels in equal distances."""
        levels_q = (np.arange(LEVELS) + 0.5) / LEVELS
        places_q = np.searchsorted(self.counts_b.cumsum(), levels_q * self.n)
        return self.values_b[np.minimum(places_q, self.values_b.size - 1)]

    def below(self, points_p: Floats) -> Floats:
        """Returns the share of numbers up to each point."""
        upto_p = np.searchsorted(self.values_b, points_p + _NEAR * np.abs(points_p), side="right")
        shares_p: Floats = np.r_[0, self.counts_b.cumsum()][upto_p] / max(1, self.n)
        return shares_p

    def _taken(self, places: NDArray[np.intp], values_b: Floats) -> NumberSample:
        counts_b, widths_b = self.counts_b[places], self.widths_b[places]
        return NumberSample(values_b[places], counts_b, widths_b, self.rows, self.missing)


def sample_of(numbers: Numbers, rows: int, missing: int) -> NumberSample:
    """Returns the finite numbers of a profile.

    Args:
        numbers: The profile.
        rows: All rows of the column.
        missing: Those that are null.
    """
    histogram = numbers.histogram
    space, buckets = histogram.space, histogram.buckets()
    first_b, last_b = buckets.first_keys_b, buckets.last_keys_b
    if histogram.key_range is not None:
        ends = np.array(histogram.key_range, np.uint64)
        first_b, last_b = np.clip(first_b, *ends), np.clip(last_b, *ends)
    lows_b, highs_b = (space.decode(each).astype(np.float64) for each in (first_b, last_b))
    values_b = lows_b / 2 + highs_b / 2
    exact_b = first_b == last_b
    values_b = np.where(exact_b, lows_b, values_b)
    widths_b = np.where(exact_b, 0.0, np.maximum(highs_b - lows_b, np.spacing(np.abs(lows_b))))
    return NumberSample(values_b, buckets.counts_b, widths_b, rows, missing + numbers.nan)


@dataclass(frozen=True)
class Change:
    """How two sides are apart, looked at from both.

    Args:
        before: The reference.
        now: The current numbers.
    """

    before: NumberSample
    now: NumberSample

    @property
    def is_beyond_noise(self) -> bool:
        """Whether both sides have numbers, and are further apart than chance makes them."""
        if not self.before.n or not self.now.n:
            return False
        return float(np.abs(self._change_p).mean()) > _TIMES_NOISE * self._noise

    def explained(self, cause: NumberSample) -> tuple[float, float]:
        """Returns how much of a change a cause explains at most, and in which share of the numbers.

        The cumulative shares of the current numbers are taken for those of the reference, and of
        the reference as the cause leaves it, mixed in the share that fits best. What is left of
        the distance between both sides is not explained, but for what chance makes.

        Args:
            cause: The reference as the cause leaves it.
        """
        levels_q = cause.levels
        there_q = self.before.below(levels_q)
        change_p = np.r_[self._change_p, self.now.below(levels_q) - there_q]
        made_p = np.r_[
            cause.below(self._points_p) - self._before_p, cause.below(levels_q) - there_q
        ]
        most = float(made_p @ made_p)
        share = min(1.0, max(0.0, float(change_p @ made_p) / most)) if most else 0.0
        whole = float(np.abs(change_p).mean())
        left = max(0.0, float(np.abs(change_p - share * made_p).mean()) - self._noise)
        return (1 - left / whole if whole else 0.0), share

    @cached_property
    def _points_p(self) -> Floats:
        return np.concatenate([self.before.levels, self.now.levels])

    @cached_property
    def _before_p(self) -> Floats:
        return self.before.below(self._points_p)

    @cached_property
    def _change_p(self) -> Floats:
        return self.now.below(self._points_p) - self._before_p

    @property
    def _noise(self) -> float:
        """The distance of two samples of one distribution, on average."""
        # The mean of a Brownian bridge's modulus is sqrt(pi / 32).
        return float(np.sqrt(np.pi / 32) * np.sqrt(1 / self.before.n + 1 / self.now.n))
