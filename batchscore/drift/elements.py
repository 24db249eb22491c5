"""Compare two samples of vectors element by element, from their exact sums.

Suffixes: `_d` elements of a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.fisher import deviance
from batchscore.drift.vectors import Vectors

Floats = NDArray[np.float64]

_HALVINGS = 40


@dataclass(frozen=True)
class Elements:
    """Moments of each element of two samples' directions, whose elements are from -1 to 1.

    Args:
        n: The reference's vectors.
        m: The current vectors.
        mean_d: The reference's means.
        now_d: The current means.
        variance_d: The reference's population variances.
        variance_now_d: The current ones.
    """

    n: int
    m: int
    mean_d: Floats
    now_d: Floats
    variance_d: Floats
    variance_now_d: Floats

    def shifts(self) -> Floats:
        """Returns how far each mean moved, over the deviation in both together, halves alike.

        From -2 to 2; 0 where an element has one value only.
        """
        gap_d = self.now_d - self.mean_d
        sigma_d = np.sqrt((self.variance_d + self.variance_now_d) / 2 + gap_d**2 / 4)
        return np.divide(gap_d, sigma_d, out=np.zeros(gap_d.size), where=sigma_d > 0)

    def shift_floor(self, element: int, alpha: float) -> float:
        """Returns the shift that noise alone exceeds in any element with a chance of `alpha`.

        Bernstein's inequality for the mean of numbers from -1 to 1, which holds for any
        distribution, with the variance as measured in both together.
        """
        n, m, mean, now = self.n, self.m, *self._means(element)
        variance, variance_now = self._variances(element)
        halves = (variance + variance_now) / 2 + (now - mean) ** 2 / 4
        if not halves:
            return math.inf
        between = (now - mean) ** 2 * n * m / (n + m) ** 2
        pooled = (n * variance + m * variance_now) / (n + m) + between
        level = math.log(2 * self.mean_d.size / alpha)
        bounded = level * (1 + max(abs(mean), abs(now))) / (3 * min(n, m))
        farthest = bounded + math.sqrt(bounded**2 + 2 * level * pooled * (1 / n + 1 / m))
        return farthest / math.sqrt(halves)

    def spreads(self) -> Floats:
        """Returns by which share the larger deviation of each element exceeds the smaller.

        0 where they are the same, 1 where one side has one value only.
        """
        low_d = np.minimum(self.variance_d, self.variance_now_d)
        high_d = np.maximum(self.variance_d, self.variance_now_d)
        ratio_d = np.divide(low_d, high_d, out=np.ones(low_d.size), where=high_d > 0)
        return 1 - np.sqrt(ratio_d)

    def spread_chance(self, element: int) -> float:
        """Returns the chance, at most about, that noise alone parts the deviations of any element.

        Squares around the middle of both means are from 0 to some number, and the mean of such
        squares, as a share of that number, deviates no more than a share of rows does (Hoeffding).
        """
        p, q = self._energies(element)
        return self._chance(p, q)

    def spread_floor(self, element: int, alpha: float) -> float:
        """Returns how much smaller one deviation must be to be more than noise at `alpha`."""
        p, q = self._energies(element)
        falls = p >= q
        low, high = 0.0, 1.0
        if self._shrunk(p, q, falls, high) > alpha:
            return math.inf
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._shrunk(p, q, falls, middle) > alpha:
                low = middle
            else:
                high = middle
        return high

    def _shrunk(self, p: float, q: float, falls: bool, by: float) -> float:
        left = (1 - by) ** 2
        return self._chance(p, p * left) if falls else self._chance(q * left, q)

    def _chance(self, p: float, q: float) -> float:
        bound = -deviance(p * self.n, self.n, q, self.m) / 2
        return min(1.0, 2 * self.mean_d.size * math.exp(bound))

    def _energies(self, element: int) -> tuple[float, float]:
        """Returns the mean squares of both sides around their middle, from 0 to 1."""
        mean, now = self._means(element)
        most = (1 + abs(mean + now) / 2) ** 2
        p, q = ((each + (now - mean) ** 2 / 4) / most for each in self._variances(element))
        return p, q

    def _means(self, element: int) -> tuple[float, float]:
        return float(self.mean_d[element]), float(self.now_d[element])

    def _variances(self, element: int) -> tuple[float, float]:
        return float(self.variance_d[element]), float(self.variance_now_d[element])


def elements(reference: Vectors, current: Vectors) -> Elements | None:
    """Returns the moments of both, None where a side is empty or has no covariance."""
    if not reference.n or not current.n:
        return None
    variance_d, variance_now_d = reference.variances(), current.variances()
    if variance_d is None or variance_now_d is None:
        return None
    means = reference.mean(), current.mean()
    return Elements(reference.n, current.n, *means, variance_d, variance_now_d)
