"""Compare two samples of vectors by the mean and the covariance of their directions.

Suffixes: `_d` elements of a vector, or axes; `_dd` matrices of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.vectors import Vectors, square_sum

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Centers:
    """Two samples' mean directions, and how far noise alone parts them.

    Args:
        n: The reference's vectors, at least 2.
        m: The current vectors, at least 2.
        gap_d: The current mean less the reference's.
        first_dd: The reference's population covariance.
        second_dd: The current one.
    """

    n: int
    m: int
    gap_d: Floats
    first_dd: Floats
    second_dd: Floats

    @property
    def bias(self) -> float:
        """What noise adds to the squared distance of the means on average."""
        first, second = float(np.trace(self.first_dd)), float(np.trace(self.second_dd))
        return first / (self.n - 1) + second / (self.m - 1)

    @cached_property
    def unit(self) -> float:
        """The standard deviation of one axis, of those that would share the variance evenly.

        Both samples have the same weight. 0 without any variance.
        """
        both_dd = (self.first_dd + self.second_dd) / 2
        total = float(np.trace(both_dd))
        return math.sqrt(square_sum(both_dd) / total) if total > 0 else 0.0

    def effect(self, squared: float) -> float:
        """Returns the root of a squared distance in `unit`."""
        return math.sqrt(max(0.0, squared)) / self.unit

    def distance(self) -> float | None:
        """Returns the distance of the means in `unit`, without what noise adds; None without it."""
        return self.effect(square_sum(self.gap_d) - self.bias) if self.unit else None

    @cached_property
    def spectrum(self) -> Floats:
        """The variances along the axes of both together, where all rows have the same weight."""
        total = self.n + self.m
        between_dd = np.outer(self.gap_d, self.gap_d) * (self.n * self.m / total**2)
        within_dd = (self.n * self.first_dd + self.m * self.second_dd) / total
        return np.linalg.eigvalsh(within_dd + between_dd).clip(0)

    def floor(self, alpha: float) -> float:
        """Returns the distance that noise alone exceeds with a chance of at most about `alpha`.

        Laurent and Massart's bound for a weighted sum of chi-squares, which the squared distance is
        for many rows; and as in `mmd_floor` a term for few, since directions are bounded.
        """
        s, level = 1 / self.n + 1 / self.m, math.log(2 / alpha)
        spread, largest = square_sum(self.spectrum), float(self.spectrum.max())
        beyond = 2 * math.sqrt(spread * level) + 2 * largest * level
        squared = s * (math.fsum(self.spectrum.tolist()) + beyond)
        bounded = level * 2 / (3 * min(self.n, self.m))
        return self.effect((bounded + math.sqrt(squared)) ** 2 - self.bias)


def centers(reference: Vectors, current: Vectors) -> Centers | None:
    """Returns both centers, None where a side has fewer than 2 vectors or no covariance."""
    if min(reference.n, current.n) < 2:
        return None
    first_dd, second_dd = reference.covariance(), current.covariance()
    if first_dd is None or second_dd is None:
        return None
    gap_d = current.mean() - reference.mean()
    return Centers(reference.n, current.n, gap_d, first_dd, second_dd)


def mean_shift(reference: Vectors, current: Vectors) -> float | None:
    """Returns |difference of mean directions| over the root of the reference's summed variance.

    What noise adds to the square on average is taken off. None where the reference has fewer
    than 2 vectors or no variance, or the current has fewer than 2.
    """
    n, m = reference.n, current.n
    if min(n, m) < 2 or not reference.variance():
        return None
    noise = reference.variance() / (n - 1) + current.variance() / (m - 1)
    shift = square_sum(reference.mean() - current.mean()) - noise
    return math.sqrt(max(0.0, shift) / reference.variance())


def frechet(reference: Vectors, current: Vectors) -> float | None:
    """Returns the squared Fréchet distance of normal distributions with both's moments.

    Of directions, so at most 4; noise adds to it while rows are few for the width. None where a
    side is empty or has no covariance.
    """
    if not reference.n or not current.n:
        return None
    first_dd, second_dd = reference.covariance(), current.covariance()
    if first_dd is None or second_dd is None:
        return None
    values_d, axes_dd = np.linalg.eigh(first_dd)
    root_dd = (axes_dd * np.sqrt(values_d.clip(0))) @ axes_dd.T
    shared_d = np.linalg.eigvalsh(root_dd @ second_dd @ root_dd)
    traces = float(np.trace(first_dd) + np.trace(second_dd))
    shift = square_sum(reference.mean() - current.mean())
    return max(0.0, shift + traces - 2 * math.fsum(np.sqrt(shared_d.clip(0)).tolist()))
