"""Test the distances of ordered numbers against reference values, SciPy and the raw data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp, wasserstein_distance

from batchscore.drift.divergences import psi
from batchscore.drift.numbers import Numbers
from batchscore.drift.ordered import (
    Aligned,
    Wasserstein,
    align_numbers,
    clipped_places,
    decile_bins,
    ks,
    tail_counts,
    tail_p,
    wasserstein,
)
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED, UNSIGNED, KeySpace

SEEDS = st.integers(0, 2**32 - 1)
LARGEST = float(np.finfo(np.float64).max)
D = np.arange(100.0), np.arange(20.0, 120.0)
E = np.arange(1000.0), np.r_[np.arange(300.0, 1300.0), 1e6]


def numbers(values: ArrayLike, space: KeySpace = FLOAT) -> Numbers:
    """Returns the accumulator of `values`."""
    accumulator = Numbers("double" if space.dtype == np.float64 else "int64", space)
    accumulator.update(np.asarray(values, space.dtype))
    return accumulator


def aligned(reference: ArrayLike, current: ArrayLike, space: KeySpace = FLOAT) -> Aligned:
    """Returns both samples in common buckets."""
    return align_numbers(numbers(reference, space), numbers(current, space))


def raw_ks(reference_n: NDArray[np.float64], current_m: NDArray[np.float64]) -> float:
    """Returns the Kolmogorov-Smirnov statistic of samples."""
    return float(ks_2samp(reference_n, current_m, method="asymp").statistic)


def random_pair(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns two samples with ties, at most 4096 distinct values, of any scale and shift."""
    chance = np.random.default_rng(seed)
    scale = 10.0 ** chance.uniform(-5, 9)
    sizes = chance.integers(1, [300, 900])
    reference_n, current_m = (
        np.round(chance.normal(chance.choice([0, 0.5, 30]), 3, size), chance.integers(0, 4)) * scale
        for size in sizes
    )
    return reference_n, current_m


def test_small_shift_has_its_reference_values() -> None:
    """1..10 against 3..12 are .2 apart by KS and .696311 sigma by Wasserstein."""
    both = aligned(np.arange(1.0, 11), np.arange(3.0, 13))
    assert both.exact
    assert ks(both) == (0.2, 0.2)
    assert wasserstein(both).over_sigma == pytest.approx(0.696311, abs=5e-7)


def test_deciles_have_their_reference_values() -> None:
    """0..99 against 20..119 fall into the reference's deciles as worked out by hand."""
    both = aligned(*D)
    p_k, q_k = decile_bins(both)
    assert p_k.tolist() == [10] * 10
    assert q_k.tolist() == [0, 0, *[10] * 7, 30]
    assert psi(p_k, q_k) == pytest.approx(0.783024, abs=5e-7)
    assert ks(both) == (0.2, 0.2)
    assert wasserstein(both).over_sigma == pytest.approx(0.692855, abs=5e-7)


def test_an_outlier_does_not_hide_a_shift() -> None:
    """One value of a million next to a shift by .3 of the range leaves KS and PSI as they are."""
    both = aligned(*E)
    low, high = ks(both)
    assert low == high == pytest.approx(0.300699, abs=5e-7)
    assert psi(*decile_bins(both)) == pytest.approx(1.997360, abs=5e-7)
    clipped = wasserstein(both).clipped_over_sigma
    assert clipped is not None
    assert 0.8 < clipped < 1


@settings(deadline=None)
@given(seed=SEEDS)
def test_exact_samples_agree_with_scipy(seed: int) -> None:
    """KS and both Wasserstein distances of at most 4096 distinct values are SciPy's."""
    reference_n, current_m = random_pair(seed)
    both = aligned(reference_n, current_m)
    assert both.exact
    low, high = ks(both)
    assert low == high == pytest.approx(raw_ks(reference_n, current_m), abs=1e-12)
    found, sigma = wasserstein(both), reference_n.std()
    if reference_n.min() < reference_n.max():
        expected = wasserstein_distance(reference_n, current_m) / sigma
        assert found.over_sigma == pytest.approx(expected, rel=1e-9, abs=1e-12)
    rank = -(-reference_n.size // 200)
    edges = np.sort(reference_n)[[rank - 1, -rank]]
    clipped_n, clipped_m = reference_n.clip(*edges), current_m.clip(*edges)
    if edges[0] < edges[1]:
        expected = wasserstein_distance(clipped_n, clipped_m) / clipped_n.std()
        assert found.clipped_over_sigma == pytest.approx(expected, rel=1e-9, abs=1e-12)
        pooled = np.sort(np.r_[clipped_n, clipped_m])
        shares = np.arange(1, pooled.size) / pooled.size
        j = np.sum(np.sqrt(shares * (1 - shares)) * np.diff(pooled)) / clipped_n.std()
        assert found.j_over_sigma == pytest.approx(j, rel=1e-9)


@settings(deadline=None)
@given(seed=SEEDS, times=st.integers(1, 1000))
def test_the_same_distribution_is_exactly_at_zero(seed: int, times: int) -> None:
    """A sample is at 0 from itself and from itself repeated, by every distance."""
    both = aligned(*random_pair(seed)[:1] * 2)
    repeated = Aligned.of_values(both.lows_b, both.p_b, both.q_b * times)
    for pair in (both, repeated):
        assert ks(pair) == (0, 0)
        found = wasserstein(pair)
        assert {found.clipped_over_sigma, found.over_sigma, found.over_iqr} <= {0, None}
    assert psi(*decile_bins(both)) == 0


@settings(deadline=None)
@given(seed=SEEDS)
def test_ks_is_symmetric(seed: int) -> None:
    """Which sample is the reference does not change the bounds of KS."""
    reference_n, current_m = random_pair(seed)
    assert ks(aligned(reference_n, current_m)) == ks(aligned(current_m, reference_n))


def coarse_samples(kind: str, chance: np.random.Generator) -> list[NDArray[np.float64]]:
    """Returns two samples of 1e5 values, of which histograms keep no single ones."""
    size = 100_000
    shift = chance.choice([0, 0.001, 0.05, 1])
    if kind == "normal":
        return [chance.normal(0, 1, size), chance.normal(shift, 1, size)]
    if kind == "log-normal":
        return [chance.lognormal(0, 1, size), chance.lognormal(shift, 1, size)]
    if kind == "probability":
        return [1 / (1 + np.exp(-chance.normal(move, 4, size))) for move in (0, shift)]
    if kind == "far from zero":
        return [chance.normal(1e9, 1, size), chance.normal(1e9 + shift, 1, size)]
    return [
        np.r_[chance.normal(1e9 + move, 1, 90_000), chance.lognormal(0, 1, 10_000)]
        for move in (0, shift)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["normal", "log-normal", "probability", "far from zero", "mixture"]
)
@pytest.mark.parametrize("sizes", [(100_000, 100_000), (100_000, 20_000), (2_000, 100_000)])
def test_bounds_hold_the_ks_of_the_raw_samples(kind: str, sizes: tuple[int, int]) -> None:
    """However coarse the buckets, KS of the samples is within its bounds, and they are close."""
    chance = np.random.default_rng(7)
    for _ in range(3):
        samples = coarse_samples(kind, chance)
        reference_n, current_m = (
            chance.permutation(sample)[:size] for sample, size in zip(samples, sizes, strict=True)
        )
        both = aligned(reference_n, current_m, PROBABILITY if kind == "probability" else FLOAT)
        low, high = ks(both)
        assert not both.exact
        assert low - 1e-12 <= raw_ks(reference_n, current_m) <= high + 1e-12
        assert high - low < 0.02


def test_coarse_distances_are_close_to_those_of_the_raw_samples() -> None:
    """From buckets the Wasserstein distances and deciles come within half a percent."""
    chance = np.random.default_rng(3)
    reference_n, current_m = chance.normal(5, 2, 100_000), chance.normal(5.5, 2, 50_000)
    both = aligned(reference_n, current_m)
    expected = wasserstein_distance(reference_n, current_m)
    found = wasserstein(both)
    assert found.over_sigma == pytest.approx(expected / reference_n.std(), rel=5e-3)
    quartiles = np.quantile(reference_n, [0.25, 0.75])
    assert found.over_iqr == pytest.approx(expected / np.diff(quartiles)[0], rel=5e-3)
    p_k, _ = decile_bins(both)
    assert p_k.size == 10
    np.testing.assert_allclose(p_k, 10_000, rtol=0.05)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_common_buckets_count_the_raw_samples(seed: int) -> None:
    """Each common bucket has as many values of either side as lie between its ends."""
    chance = np.random.default_rng(seed)
    reference_n = chance.normal(0, 1, 30_000) * 10.0 ** chance.uniform(-3, 3)
    current_m = np.r_[chance.normal(0, 1, chance.integers(0, 9000)), reference_n[:50]]
    both = aligned(reference_n, current_m)
    for values, counts_b in ((reference_n, both.p_b), (current_m, both.q_b)):
        first_b = np.searchsorted(np.sort(values), both.lows_b, side="left")
        end_b = np.searchsorted(np.sort(values), both.highs_b, side="right")
        np.testing.assert_array_equal(end_b - first_b, counts_b)
    assert (both.p_b + both.q_b > 0).all()
    assert (both.lows_b[1:] > both.highs_b[:-1]).all()
    assert both.lows_b[0] == min(values.min() for values in (reference_n, current_m))


def test_one_coarse_side_makes_both_coarse() -> None:
    """A sample kept exactly, against one in buckets, is compared in these buckets."""
    chance = np.random.default_rng(0)
    reference_n, current_m = chance.uniform(1, 2, 50_000), np.array([1.25, 1.5, 1.5, 3.0])
    both = aligned(reference_n, current_m)
    assert both.q_b.sum() == 4
    assert both.widths_b[both.lows_b < 2].min() > 0
    assert both.widths_b[-1] == 0
    low, high = ks(both)
    assert low <= raw_ks(reference_n, current_m) <= high


def test_a_frequent_value_is_a_bin_of_its_own() -> None:
    """Zeros that fill four deciles are one bin, apart from the values to either side of it."""
    reference_n = np.r_[np.arange(-35.0, 0), np.zeros(40), np.arange(1.0, 26)]
    current_m = np.r_[np.full(3, -0.5), np.zeros(5), np.full(7, 0.5), [99.0]]
    p_k, q_k = decile_bins(aligned(reference_n, current_m))
    assert p_k.tolist() == [10, 10, 10, 5, 40, 5, 10, 10]
    assert q_k.tolist() == [0, 0, 0, 3, 5, 7, 0, 1]


@settings(deadline=None)
@given(seed=SEEDS)
def test_bins_follow_the_definition(seed: int) -> None:
    """Cuts are right of the values at the reference's deciles, and left of the heavy ones."""
    reference_n, current_m = random_pair(seed)
    both = aligned(reference_n, current_m)
    ordered, n = np.sort(reference_n).tolist(), reference_n.size
    bins_b = np.zeros(both.lows_b.size, int)
    for value in {ordered[-(-k * n // 10) - 1] for k in range(1, 10)}:
        bins_b += both.lows_b > value
        if 20 * ordered.count(value) >= n:
            bins_b += both.lows_b >= value
    expected = [
        [int(side_b[bins_b == bin_].sum()) for bin_ in np.unique(bins_b)]
        for side_b in (both.p_b, both.q_b)
    ]
    assert [side_k.tolist() for side_k in decile_bins(both)] == expected


def test_infinities_rank_as_extremes() -> None:
    """Infinite values are buckets at the ends; of the distances only the clipped one can be had."""
    reference_n, current_m = np.arange(1000.0), np.r_[np.arange(1000.0), [np.inf] * 10, -np.inf]
    both = aligned(reference_n, current_m)
    assert both.lows_b[[0, -1]].tolist() == both.highs_b[[0, -1]].tolist() == [-np.inf, np.inf]
    assert (both.q_b[0], both.q_b[-1], both.exact) == (1, 10, True)
    finite_m = current_m.clip(-5, 2000)
    assert ks(both)[0] == pytest.approx(raw_ks(reference_n, finite_m))
    assert tail_counts(both) == (8, 8 + 11)
    found = wasserstein(both)
    same = wasserstein(aligned(reference_n, finite_m))
    assert found.clipped_over_sigma == same.clipped_over_sigma
    assert (found.over_sigma, found.over_iqr) == (None, None)


def test_infinities_of_the_reference_leave_what_can_be_measured() -> None:
    """With infinite values on both sides sigma is undefined and the rest is there."""
    both = aligned(np.r_[np.arange(999.0), np.inf], np.r_[np.arange(999.0), np.inf])
    assert wasserstein(both).over_iqr == 0
    assert wasserstein(both).over_sigma is None
    assert wasserstein(both).clipped_over_sigma == 0
    only = aligned([np.inf, -np.inf], [np.inf])
    assert wasserstein(only) == Wasserstein(None, None, None, None)
    assert ks(only) == (0.5, 0.5)
    assert [side_k.tolist() for side_k in decile_bins(only)] == [[1, 1], [0, 1]]


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(0, 60), st.integers(0, 60))
def test_infinite_values_are_clipped_to_the_edges_of_the_finite_ones(
    seed: int, above: int, below: int
) -> None:
    """W1 over sigma is that of both samples clipped to the reference's finite .5 % and 99.5 %."""
    chance = np.random.default_rng(seed)
    ends = np.r_[np.full(above, np.inf), np.full(below, -np.inf)]
    reference_n, current_m = np.r_[chance.normal(0, 1, 700), ends], np.r_[ends, [0.3, 9.0] * 200]
    finite_n = np.sort(reference_n[np.isfinite(reference_n)])
    edges = finite_n[3], finite_n[-4]  # ranks 4 of 700
    sides = reference_n.clip(*edges), current_m.clip(*edges)
    both = aligned(reference_n, current_m)
    expected = wasserstein_distance(*sides) / sides[0].std()
    assert wasserstein(both).clipped_over_sigma == pytest.approx(expected)
    assert (clipped_places(both)[0], clipped_places(both)[-1]) == edges


def test_values_beyond_a_probability_are_extremes() -> None:
    """Values below 0 and above 1 join the infinite ones at the ends."""
    current = [0.5, np.inf, -0.5, -3.0, 1.5, 2.0, 9.0]
    both = aligned([0.25, 0.5], current, PROBABILITY)
    assert both.lows_b.tolist() == [-np.inf, 0.25, 0.5, np.inf]
    assert both.q_b.tolist() == [2, 0, 1, 4]


@pytest.mark.parametrize(
    ("space", "values"),
    [(SIGNED, [-(2**63), -1, 0, 2**63 - 2, 2**63 - 1]), (UNSIGNED, [0, 1, 2**64 - 2, 2**64 - 1])],
    ids=["signed", "unsigned"],
)
def test_integers_that_floats_cannot_tell_stay_apart(space: KeySpace, values: list[int]) -> None:
    """Neighbours at the ends of 64 bits have buckets of their own, in their order."""
    both = aligned(values[:-1], values[1:], space)
    assert both.p_b.tolist() == [*[1] * (len(values) - 1), 0]
    assert both.q_b.tolist() == [0, *[1] * (len(values) - 1)]
    assert both.exact
    assert ks(both)[0] == 1 / (len(values) - 1)
    assert wasserstein(both).over_sigma is not None


def test_distances_of_large_integers_are_precise() -> None:
    """Identifiers beyond 2**53 are as far apart as the same numbers about zero."""
    reference_n, current_m = np.arange(100), np.arange(20, 120)
    found = wasserstein(aligned(reference_n + 2**62, current_m + 2**62, SIGNED))
    assert found == wasserstein(aligned(reference_n, current_m, SIGNED))
    assert found.over_sigma == pytest.approx(0.692855, abs=5e-7)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1.0, 2.0**1014])
def test_distances_do_not_depend_on_the_scale(scale: float) -> None:
    """From the smallest to the largest floats the distances over a spread are the same."""
    reference_n, current_m = D[0] - 50, D[1] - 50
    found = wasserstein(aligned(reference_n * scale, current_m * scale))
    expected = wasserstein(aligned(reference_n, current_m))
    for name in ("clipped_over_sigma", "j_over_sigma", "over_sigma", "over_iqr"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([-LARGEST, LARGEST], [-LARGEST]),
        ([-LARGEST, 0, LARGEST], [LARGEST, 5e-324]),
        ([5e-324, 1e-323], [LARGEST, -LARGEST]),
        ([0.0, 1.0], [LARGEST]),
        ([np.inf], [0.0]),
    ],
)
def test_extremes_give_figures_or_none(reference: list[float], current: list[float]) -> None:
    """No sample of floats makes a distance that is NaN, infinite or an overflow's warning."""
    both = aligned(reference, current)
    found = wasserstein(both)
    figures = [found.clipped_over_sigma, found.over_sigma, found.over_iqr, found.j_over_sigma]
    assert all(figure is None or 0 <= figure < math.inf for figure in figures)
    assert 0 <= ks(both)[0] <= 1
    tail_counts(both)
    decile_bins(both)


def test_a_constant_reference_has_no_spread() -> None:
    """Where sigma is 0 no distance is given over it; KS and bins still tell."""
    both = aligned([3.0] * 50, [3.0, 4.0])
    assert wasserstein(both) == Wasserstein(None, None, None, None)
    assert ks(both) == (0.5, 0.5)
    assert [side_k.tolist() for side_k in decile_bins(both)] == [[50, 0], [1, 1]]
    assert tail_counts(both) == (0, 1)


def test_tails_are_counted_beyond_the_edges_of_the_reference() -> None:
    """Half a percent of the reference, less the edge itself, lies beyond either edge."""
    both = aligned(np.arange(1000.0), np.r_[np.arange(4.0, 996.0), [-1.0, 3.9, 996.0]])
    assert tail_counts(both) == (8, 3)
    assert tail_counts(aligned(np.arange(100.0), np.arange(-5.0, 101.0))) == (0, 6)


@pytest.mark.parametrize("sizes", [(100, 1000), (300, 5000), (1000, 1000)])
def test_tail_test_keeps_its_level(sizes: tuple[int, int]) -> None:
    """Of samples of one distribution at most 5 and 1 in 100 have such a p-value."""
    chance = np.random.default_rng(11)
    p_values = []
    for _ in range(400):
        values = np.argsort(np.argsort(chance.random(sum(sizes))))
        side = values < 0
        side[: sizes[0]] = True
        by_rank = np.empty(side.size, bool)
        by_rank[values] = side
        ranks = np.arange(side.size, dtype=np.float64)
        pair = Aligned.of_values(ranks, by_rank.astype(np.int64), (~by_rank).astype(np.int64))
        p_values.append(tail_p(pair))
    # Binomial bounds that the nominal levels exceed once in a thousand.
    assert np.count_nonzero(np.array(p_values) < 0.05) <= 35
    assert np.count_nonzero(np.array(p_values) < 0.01) <= 11


def test_an_empty_side_is_refused() -> None:
    """Without any value on a side a distance is an error; the alignment itself is not."""
    no_reference, no_current, neither = aligned([], [1.0]), aligned([1.0], []), aligned([], [])
    assert (no_reference.q_b.tolist(), no_current.p_b.tolist()) == ([1], [1])
    for function in (ks, wasserstein, tail_p):
        for both in (no_reference, no_current, neither):
            with pytest.raises(ValueError, match="at least one"):
                function(both)
    for of_reference in (decile_bins, tail_counts):
        with pytest.raises(ValueError, match="at least one"):
            of_reference(no_reference)
    assert tail_counts(no_current) == (0, 0)


def test_keys_that_cannot_be_compared_are_refused() -> None:
    """Integers against floats is an error that names both."""
    with pytest.raises(ValueError, match="float keys and int64 has signed keys; cast"):
        align_numbers(numbers([1.0]), numbers([1], SIGNED))


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:scipy")
@settings(deadline=None)
@given(
    reference=st.lists(st.floats(allow_nan=False), min_size=1, max_size=30),
    current=st.lists(st.floats(allow_nan=False), min_size=1, max_size=30),
)
@example(reference=[0.0], current=[-0.0])
def test_any_floats_can_be_compared(reference: list[float], current: list[float]) -> None:
    """Whatever the values, statistics are within their range and no warning is raised."""
    both = aligned(reference, current)
    order = sorted({*reference, *current})
    of_reference, of_current = (
        np.searchsorted(order, values).astype(np.float64) for values in (reference, current)
    )
    assert ks(both)[0] == pytest.approx(raw_ks(of_reference, of_current))
    found = wasserstein(both)
    assert all(figure is None or 0 <= figure < math.inf for figure in vars(found).values())
