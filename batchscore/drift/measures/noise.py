"""Quantiles of the distributions that tests against noise use."""

from __future__ import annotations

from batchscore.drift import special


def pooled_size(n: int, m: int) -> float:
    """Returns s = 1/n + 1/m, which the variance of a difference of two samples has as a factor."""
    return 1 / n + 1 / m


def normal_floor(alpha: float) -> float:
    """Returns what a standard normal variable exceeds with the chance `alpha`."""
    return -float(special.functions().ndtri(alpha))


def chi2_chance(statistic: float, freedom: int) -> float:
    """Returns the chance that a chi-square variable exceeds `statistic`."""
    return float(special.functions().chdtrc(freedom, statistic))


def chi2_floor(alpha: float, freedom: int) -> float:
    """Returns what a chi-square variable exceeds with the chance `alpha`."""
    return float(special.functions().chdtri(freedom, alpha))
