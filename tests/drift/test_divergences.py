"""Test the distances of counted distributions against reference values, SciPy and their laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency

from batchscore.drift.divergences import (
    chi2,
    cramers_v,
    hellinger,
    js_distance,
    l_infinity,
    psi,
    smoothed_js2,
    total_variation,
)

Counts = NDArray[np.int64]
Distance = Callable[[Counts, Counts], float]

DISTANCES: list[Distance] = [
    psi,
    js_distance,
    hellinger,
    total_variation,
    l_infinity,
    cramers_v,
    lambda p_k, q_k: smoothed_js2(p_k, q_k)[0],
    lambda p_k, q_k: chi2(p_k, q_k)[0],
]
B = np.array([50, 30, 20]), np.array([30, 30, 40])
C = np.array([50, 50, 0]), np.array([50, 40, 10])
D = np.full(10, 10), np.array([0, 0, 10, 10, 10, 10, 10, 10, 10, 30])
G = np.array([60, 40]), np.array([45, 55])


@st.composite
def count_pairs(draw: st.DrawFn) -> tuple[Counts, Counts]:
    """Returns two counts over the same bins, neither of them empty."""
    size = draw(st.integers(1, 30))
    counts = st.lists(st.integers(0, 10 ** draw(st.integers(0, 9))), min_size=size, max_size=size)
    p_k, q_k = (np.array(draw(counts.filter(any)), np.int64) for _ in range(2))
    return p_k, q_k


@pytest.mark.parametrize(
    ("distance", "samples", "expected"),
    [
        (psi, B, 0.233522),
        (psi, C, 0.321694),
        (psi, D, 0.783024),
        (psi, G, 0.089111),
        (js_distance, B, 0.206731),
        (js_distance, C, 0.232413),
        (js_distance, D, 0.371139),
        (js_distance, G, 0.127802),
        (hellinger, B, 0.172797),
        (hellinger, C, 0.229753),
        (hellinger, D, 0.356083),
        (l_infinity, B, 0.2),
        (l_infinity, C, 0.1),
        (total_variation, B, 0.2),
        (cramers_v, B, 0.241523),
    ],
)
def test_distances_have_their_reference_values(
    distance: Distance, samples: tuple[Counts, Counts], expected: float
) -> None:
    """The distances of the worked examples are those of SciPy and the peers, to six digits."""
    assert distance(*samples) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("samples", "statistic", "freedom", "p_value"),
    [
        (B, 11.666667, 2, 0.00292830),
        (C, 11.111111, 2, 0.00386592),
        (G, 4.511278, 1, 0.0336721),
    ],
)
def test_chi_square_has_its_reference_values(
    samples: tuple[Counts, Counts], statistic: float, freedom: int, p_value: float
) -> None:
    """Statistic, degrees of freedom and p-value of the worked examples are SciPy's."""
    found = chi2(*samples)
    assert found[0] == pytest.approx(statistic, abs=5e-7)
    assert found[1] == freedom
    assert found[2] == pytest.approx(p_value, rel=2e-6)


@pytest.mark.slow
@settings(deadline=None)
@given(samples=count_pairs())
def test_distances_agree_with_scipy(samples: tuple[Counts, Counts]) -> None:
    """Jensen-Shannon and chi-square are SciPy's on any counts."""
    p_k, q_k = samples
    # SciPy's own sum of large terms that cancel is precise to about 1e-16 before the root.
    assert js_distance(p_k, q_k) ** 2 == pytest.approx(
        float(np.nan_to_num(jensenshannon(p_k, q_k, 2))) ** 2, rel=1e-9, abs=1e-14
    )
    occupied_k = p_k + q_k > 0
    if occupied_k.sum() > 1:
        expected = chi2_contingency(np.stack(samples)[:, occupied_k], correction=False)
        statistic, freedom, p_value = chi2(p_k, q_k)
        assert statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert freedom == expected.dof
        assert p_value == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-300)


@pytest.mark.slow
@settings(deadline=None)
@given(samples=count_pairs(), times=st.integers(1, 1000))
def test_distances_are_symmetric_within_range_and_zero_only_without_change(
    samples: tuple[Counts, Counts], times: int
) -> None:
    """A sample is at exactly 0 from itself; changed sides give the same; no distance is below 0."""
    p_k, q_k = samples
    for distance in DISTANCES:
        assert distance(p_k, p_k) == 0
        assert distance(p_k, q_k) == pytest.approx(distance(q_k, p_k), rel=1e-9, abs=1e-15)
        assert distance(p_k, q_k) >= 0
    for unsmoothed in (js_distance, hellinger, total_variation, l_infinity, cramers_v):
        assert unsmoothed(p_k, p_k * times) == 0
        assert unsmoothed(p_k, q_k) <= 1


@settings(deadline=None)
@given(samples=count_pairs(), at=st.integers(0, 30))
def test_bins_empty_on_both_sides_do_not_count(samples: tuple[Counts, Counts], at: int) -> None:
    """A bin without any value changes no distance."""
    p_k, q_k = samples
    with_empty = tuple(np.insert(side_k, min(at, side_k.size), 0) for side_k in samples)
    assert [distance(p_k, q_k) for distance in DISTANCES] == [
        distance(*with_empty) for distance in DISTANCES
    ]
    assert smoothed_js2(p_k, q_k)[1] == np.count_nonzero(p_k + q_k)


def test_samples_without_a_common_bin_are_as_far_apart_as_can_be() -> None:
    """Distances that are bounded by 1 reach it."""
    p_k, q_k = np.array([3, 4, 0, 0]), np.array([0, 0, 10**9, 1])
    for distance in (js_distance, hellinger, total_variation, cramers_v):
        assert distance(p_k, q_k) == pytest.approx(1)


def test_the_smallest_smoothed_share_is_a_ten_thousandth() -> None:
    """However many values there are, a bin that empties adds no more than a share of 1e-4 does."""
    p_k, q_k = np.array([10**9, 10**9]), np.array([2 * 10**9, 0])
    expected = math.log(2) / 2 + (1e-4 - 0.5) * math.log(1e-4 / 0.5)
    assert psi(p_k, q_k) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_an_empty_side_has_no_distance(distance: Distance) -> None:
    """Without any value on one side a distance is refused, with both counts in the message."""
    with pytest.raises(ValueError, match="5 reference and 0 current values"):
        distance(np.array([2, 3]), np.array([0, 0]))
    with pytest.raises(ValueError, match="0 reference and 1 current"):
        distance(np.array([0]), np.array([1]))
