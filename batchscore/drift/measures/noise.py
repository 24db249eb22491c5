"""Quantiles of the distributions that tests against noise use."""

from __future__ import annotations


def pooled_size(n: int, m: int) -> float:
    """Returns s = 1/n + 1/m, which the variance of a difference of two samples has as a factor."""
    return 1 / n + 1 / m


def normal_floor(alpha: float) -> float:
    """Returns what a standard normal variable exceeds with the chance `alpha`."""
    # Imported late: the command line has to start without SciPy.
    from scipy.special import ndtri

    return -float(ndtri(alpha))


def chi2_chance(statistic: float, freedom: int) -> float:
    """Returns the chance that a chi-square variable exceeds `statistic`."""
    from scipy.special import chdtrc

    return float(chdtrc(freedom, statistic))


def chi2_floor(alpha: float, freedom: int) -> float:
    """Returns what a chi-square variable exceeds with the chance `alpha`."""
    from scipy.special import chdtri

    return float(chdtri(freedom, alpha))
