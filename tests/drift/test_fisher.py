"""Test Fisher's exact test against SciPy, precise values and the normal approximation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact, norm

from batchscore.drift.fisher import _Margins, fisher_p


@st.composite
def share_pairs(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Returns two shares a of n and b of m."""
    n, m = (draw(st.integers(1, 10 ** draw(st.integers(1, 4)))) for _ in range(2))
    return draw(st.integers(0, n)), n, draw(st.integers(0, m)), m


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(shares=share_pairs())
@example(shares=(5, 10, 5, 10))
@example(shares=(0, 1, 1, 1))
@example(shares=(2, 20, 6, 20))
def test_p_values_agree_with_scipy(shares: tuple[int, int, int, int]) -> None:
    """Where SciPy is precise, the p-value is its, ties among the tables included."""
    a, n, b, m = shares
    expected = float(fisher_exact(np.array([[a, n - a], [b, m - b]])).pvalue)
    assert fisher_p(a, n, b, m) == pytest.approx(expected, rel=1e-8, abs=1e-290)


@settings(deadline=None)
@given(shares=share_pairs())
def test_sides_and_outcomes_can_be_exchanged(shares: tuple[int, int, int, int]) -> None:
    """Neither which side is the reference nor which outcome is counted changes the p-value."""
    a, n, b, m = shares
    p_value = fisher_p(a, n, b, m)
    assert fisher_p(b, m, a, n) == pytest.approx(p_value, rel=1e-9)
    assert fisher_p(n - a, n, m - b, m) == pytest.approx(p_value, rel=1e-9)


# Computed with 40 digits.
@pytest.mark.parametrize(
    ("hits", "draws", "total", "x", "expected"),
    [
        (1_000_000_000, 1_000_000_000, 2_000_000_000, 499_960_000, -16.640850681639627),
        (200_000_000, 1_000_000_000, 2_000_000_000, 99_940_000, -49.730027039076879),
        (1_000, 1_000_000_000, 2_000_000_000, 400, -23.795045184404878),
        (40, 100_000, 1_000_000_000, 3, -18.436483396515576),
        (1_000_000_001, 1_000_000_001, 1_001_000_000, 999_000_005, -981.06366931037582),
    ],
)
def test_probabilities_of_large_tables_are_precise(
    hits: int, draws: int, total: int, x: int, expected: float
) -> None:
    """Where logs of factorials lose six digits to cancellation, the deviance keeps eleven."""
    assert _Margins(hits, draws, total).log_probability(x) == pytest.approx(expected, abs=3e-11)


@pytest.mark.parametrize("sigmas", [0.0, 0.5, 2.0, 5.0, 8.0])
@pytest.mark.parametrize("share", [0.001, 0.5])
def test_a_billion_rows_take_milliseconds(share: float, sigmas: float) -> None:
    """At a billion rows a side the p-value is the normal one, and quick to have."""
    n = 10**9
    a = int(share * n)
    b = a + round(sigmas * math.sqrt(2 * share * (1 - share) * n))
    start = time.thread_time()
    p_value = fisher_p(a, n, b, n)
    assert time.thread_time() - start < 0.5
    pooled = (a + b) / (2 * n)
    # The exact test reaches half a step further than the normal curve.
    z = max(0, b - a - 1) / n / math.sqrt(2 * pooled * (1 - pooled) / n)
    assert p_value == pytest.approx(2 * float(norm.sf(z)), rel=2e-3)


def test_a_probability_below_all_floats_is_zero() -> None:
    """Shares that cannot be by chance have a p-value of 0, not an error."""
    assert fisher_p(0, 10**9, 10**9, 10**9) == 0
    assert fisher_p(0, 10**12, 1, 1) == pytest.approx(1e-12, rel=1e-6)


def test_a_side_without_values_proves_nothing() -> None:
    """Without values on a side the p-value is 1."""
    assert fisher_p(0, 0, 3, 7) == fisher_p(3, 7, 0, 0) == fisher_p(0, 0, 0, 0) == 1


@pytest.mark.parametrize("shares", [(2, 1, 0, 1), (-1, 1, 0, 1), (0, 1, 3, 2)])
def test_counts_that_are_no_share_are_refused(shares: tuple[int, int, int, int]) -> None:
    """A count above its total, or below 0, is an error that names it."""
    with pytest.raises(ValueError, match="are not shares"):
        fisher_p(*shares)
