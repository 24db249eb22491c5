"""Test the search for slow drift against SciPy, and how often chance is taken for a trend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchscore.drift.slow_drift import ALPHA, LEAST, find_trend

FIGURES = st.lists(st.integers(-9, 9) | st.floats(-1e6, 1e6), min_size=LEAST, max_size=40)


@given(FIGURES)
def test_the_slope_is_that_of_theil_and_sen(values: list[float]) -> None:
    """SciPy finds the same median of the slopes between all two nights."""
    found = find_trend(values, alpha=1.0)
    if len(set(values)) == 1:
        assert found is None
        return
    assert found is not None
    assert found.slope == pytest.approx(stats.theilslopes(values).slope, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.05, 0.1])
def test_the_chance_is_that_of_kendall(slope: float) -> None:
    """Without ties it is within a hundredth of SciPy's exact chance."""
    random = np.random.default_rng(2)
    for nights in (10, 20, 31):
        values = random.normal(size=nights) + np.arange(nights) * slope
        exact = stats.kendalltau(np.arange(nights), values, method="exact").pvalue
        found = find_trend(values.tolist(), alpha=1.0)
        assert found is not None
        assert found.chance == pytest.approx(exact, abs=0.01)


def test_ties_count_as_no_order() -> None:
    """With ties the score's deviation is SciPy's, from which the score is one step less."""
    values = [0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 1]
    score = sum(np.sign(b - a) for a, b in itertools.combinations(values, 2))
    plain = stats.kendalltau(range(len(values)), values, method="asymptotic").pvalue
    found = find_trend(values, alpha=1.0)
    assert found is not None
    mine, theirs = (stats.norm.isf(chance / 2) for chance in (found.chance, plain))
    assert mine / theirs == pytest.approx((score - 1) / score)


def test_chance_is_seldom_taken_for_a_trend() -> None:
    """Of 4,000 histories without a trend no more than alpha have one, within its noise."""
    random = np.random.default_rng(5)
    found = sum(find_trend(random.normal(size=20).tolist(), 0.01) is not None for _ in range(4000))
    assert 10 <= found <= 60


def test_slow_drift_is_seen() -> None:
    """A figure that moves by a fifth of its noise a night is seen within a month."""
    random = np.random.default_rng(6)
    seen = [
        find_trend((random.normal(size=30) + 0.2 * np.arange(30)).tolist()) is not None
        for _ in range(50)
    ]
    assert all(seen)


@pytest.mark.parametrize(
    "values", [[1.0] * 30, [*range(LEAST - 1)], [None] * 30, [1e308, -1e308] * 10]
)
def test_what_says_nothing_has_no_trend(values: list[float | None]) -> None:
    """Constants, too few nights, no figures and differences beyond all floats have none."""
    assert find_trend(values) is None


def test_nights_without_a_figure_keep_their_place() -> None:
    """The slope is by night, also across a gap; alpha is the default's."""
    values = [float(night) if night % 3 else None for night in range(20)]
    found = find_trend(values)
    assert found is not None
    assert (found.slope, found.nights) == (1.0, 13)
    assert found.chance < ALPHA
