"""Measure how far two counted distributions over the same bins are apart.

Suffixes: `_k` bins.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from batchscore.drift import special

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST_SHARE = 1e-4  # a smoothed share is at least this, else one rare bin decides the PSI


def psi(p_k: Counts, q_k: Counts) -> float:
    """Returns the population stability index of k bins, in nats.

    A share is max(1e-4, (count + 1/2) / (n + B/2)) with B the bins that are not empty on both
    sides; the others are left out. Raises ValueError where a side is empty, as all here do.
    """
    p_share_k, q_share_k = _smoothed(p_k, q_k)
    return math.fsum(((q_share_k - p_share_k) * np.log(q_share_k / p_share_k)).tolist())


def smoothed_js2(p_k: Counts, q_k: Counts) -> tuple[float, int]:
    """Returns the squared Jensen-Shannon distance, base 2, of the PSI's shares, and its bins B."""
    p_share_k, q_share_k = _smoothed(p_k, q_k)
    return _js_divergence(p_share_k, q_share_k), p_share_k.size


def js_distance(p_k: Counts, q_k: Counts) -> float:
    """Returns the Jensen-Shannon distance, the root of the divergence in bits: 0 to 1."""
    return math.sqrt(_js_divergence(*shares(p_k, q_k)))


def hellinger(p_k: Counts, q_k: Counts) -> float:
    """Returns the Hellinger distance: 0 to 1."""
    p_share_k, q_share_k = shares(p_k, q_k)
    return math.sqrt(
        min(1.0, math.fsum(((np.sqrt(p_share_k) - np.sqrt(q_share_k)) ** 2).tolist()) / 2)
    )


def total_variation(p_k: Counts, q_k: Counts) -> float:
    """Returns half the sum of the shares' absolute differences: 0 to 1."""
    p_share_k, q_share_k = shares(p_k, q_k)
    return min(1.0, math.fsum(np.abs(p_share_k - q_share_k).tolist()) / 2)


def l_infinity(p_k: Counts, q_k: Counts) -> float:
    """Returns the largest absolute difference of a bin's shares: 0 to 1."""
    p_share_k, q_share_k = shares(p_k, q_k)
    return float(np.abs(p_share_k - q_share_k).max())


def _chance(freedom: int, statistic: float) -> float:
    return float(special.functions().chdtrc(freedom, statistic)) if freedom else 1.0


def chi2(p_k: Counts, q_k: Counts) -> tuple[float, int, float]:
    """Returns the two-sample chi-square statistic, its degrees of freedom and its p-value.

    Without Yates' correction; bins that are empty on both sides do not count.
    """
    p_k, q_k = _occupied(p_k, q_k)
    n, m = float(p_k.sum()), float(q_k.sum())
    p_share_k, q_share_k = shares(p_k, q_k)
    statistic = math.fsum(((p_share_k - q_share_k) ** 2 * (n * m) / (p_k + q_k)).tolist())
    freedom = p_k.size - 1
    return statistic, freedom, _chance(freedom, statistic)


def cramers_v(p_k: Counts, q_k: Counts) -> float:
    """Returns Cramer's V of bin and side, the association that `chi2` tests: 0 to 1."""
    statistic, _, _ = chi2(p_k, q_k)
    return min(1.0, math.sqrt(statistic / float(p_k.sum() + q_k.sum())))


def shares(p_k: Counts, q_k: Counts) -> tuple[Floats, Floats]:
    """Returns the bins' shares of both sides; ValueError where a side is empty."""
    n, m = require_both(p_k, q_k)
    return p_k / n, q_k / m


def require_both(p_k: Counts, q_k: Counts) -> tuple[int, int]:
    """Returns how many values either side has; ValueError where it has none."""
    n, m = int(p_k.sum()), int(q_k.sum())
    if not n or not m:
        raise ValueError(
            f"{n} reference and {m} current values; a distance needs at least one of each"
        )
    return n, m


def _occupied(p_k: Counts, q_k: Counts) -> tuple[Counts, Counts]:
    occupied_k = p_k + q_k > 0
    return p_k[occupied_k], q_k[occupied_k]


def _smoothed(p_k: Counts, q_k: Counts) -> tuple[Floats, Floats]:
    n, m = require_both(p_k, q_k)
    p_k, q_k = _occupied(p_k, q_k)
    half = p_k.size / 2
    return (
        np.maximum(LEAST_SHARE, (p_k + 0.5) / (n + half)),
        np.maximum(LEAST_SHARE, (q_k + 0.5) / (m + half)),
    )


def _js_divergence(p_share_k: Floats, q_share_k: Floats) -> float:
    sums_k = p_share_k + q_share_k
    occupied_k = sums_k > 0
    sums_k = sums_k[occupied_k]
    lean_k = (p_share_k - q_share_k)[occupied_k] / sums_k
    terms_k = sums_k * (_x_log_x(lean_k) + _x_log_x(-lean_k)) / 2
    return min(1.0, max(0.0, math.fsum(terms_k.tolist()) / (2 * math.log(2))))


def _x_log_x(lean_k: Floats) -> Floats:
    """Returns (1 + d) ln(1 + d), 0 at d = -1, precise where d is small."""
    return (1 + lean_k) * np.log1p(np.where(lean_k > -1, lean_k, 0))
