"""Test that noise passes for drift as seldom as said, and that what is drift is seen."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from batchscore.drift.categorical import AlignedCategories
from batchscore.drift.fisher import fisher_p
from batchscore.drift.measures.all_measures import differences
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.measures.of_categories import CategorySides
from batchscore.drift.measures.of_nulls import NullSides
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.shares import shares_floor
from benchmarks.verdict_simulation import (
    FAMILIES,
    LEVELS,
    ZIPF,
    aligned_values,
    categories,
    false_alarms,
    power,
)

CHANCE = 1e-4  # that a sound test fails a test here


def most(draws: int, alpha: float) -> int:
    """Return how many of so many draws a test at level alpha may take for more than noise."""
    return int(stats.binom.isf(CHANCE, draws, alpha))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "n", "m", "draws"),
    [
        ("normal", 100, 100, 300),
        ("normal", 5000, 100, 150),
        ("normal", 100, 10**5, 150),
        ("ties (12 values)", 300, 300, 200),
        ("Cauchy", 1000, 1000, 150),
        ("Pareto 1.2", 10**5, 100, 150),
        ("70 % zeros", 300, 10**5, 150),
        ("6 categories", 100, 100, 200),
        ("Zipf 1.3", 1000, 1000, 150),
        ("Zipf 1.3", 10**5, 100, 100),
        ("vectors, Cauchy", 100, 100, 100),
    ],
)
def test_all_measures_together_take_noise_for_drift_at_most_at_their_level(
    family: str, n: int, m: int, draws: int
) -> None:
    """On identical data no more than alpha of the columns are beyond noise in any measure."""
    cell = false_alarms(family, n, m, draws, (1, n, m))
    assert cell.noise[LEVELS.index(0.05)] <= most(draws, 0.05)
    assert cell.alarms[LEVELS.index(0.001)] <= most(draws, 0.001)


def test_many_bins_with_few_counts_are_noise_by_js_and_hellinger_too() -> None:
    """Their own chi-square is exceeded by 800 bins of some counts; the test they share is not."""
    rng, draws = np.random.default_rng(2), 60
    pairs = [by_name(categories(ZIPF, rng, 10**5, 10**5)) for _ in range(draws)]
    for name in ("psi", "js", "hellinger"):
        beyond = sum(pair[name].is_beyond_noise(0.05) for pair in pairs)
        assert beyond <= most(draws, 0.05)
    naive = [pair["hellinger"] for pair in pairs]
    assert sum(each.value > each.floor(0.05) for each in naive) > most(draws, 0.05)  # type: ignore[misc,operator]


def test_the_average_noise_of_wasserstein_is_noise() -> None:
    """The floor has what noise adds on average, so that even a lenient level holds by far."""
    rng, draws = np.random.default_rng(5), 60
    found = [by_name(FAMILIES["normal"](rng, 1000, 1000))["w1"] for _ in range(draws)]
    assert sum(each.is_beyond_noise(0.5) for each in found) <= draws / 4


@pytest.mark.parametrize("infinite", [0, 1])
def test_a_reference_that_varies_little_by_chance_does_not_make_noise_of_the_rest(
    infinite: int,
) -> None:
    """Wasserstein's floor goes by both samples where the reference has few values other than 0."""
    rng = np.random.default_rng(6)
    reference, current = np.zeros(100), np.zeros(100)
    reference[:25], current[:41] = rng.exponential(0.4, 25), rng.exponential(0.8, 41)
    for side in (reference, current):
        side[99 - infinite : 99] = np.inf
    w1 = by_name(differences(NumberSides(aligned_values(reference, current))))["w1"]
    other = by_name(differences(NumberSides(aligned_values(current, reference))))["w1"]
    for each in (w1, other):
        assert each.value is not None
        assert each.value > 0.3
        assert not each.is_beyond_noise(1e-3)


def test_a_value_seen_once_in_a_long_tail_is_expected() -> None:
    """The unseen share of identical Zipf samples never fails."""
    rng = np.random.default_rng(3)
    for _ in range(100):
        unseen = by_name(categories(ZIPF, rng, 1000, 1000))["unseen"]
        assert not unseen.is_beyond_noise(0.001 / 5)


def test_a_value_that_few_rows_missed_by_chance_is_no_drift() -> None:
    """100 rows lack a value of 5 % once in 170 times; that is noise at a level of .1 %."""
    unseen = by_name(counted([60, 40, 0], [58_000, 37_000, 5_000]))["unseen"]
    assert not unseen.is_beyond_noise(0.001)
    assert by_name(counted([600, 400, 0], [58_000, 37_000, 5_000]))["unseen"].is_beyond_noise(0.001)


@pytest.mark.parametrize(
    ("change", "n"),
    [
        ("shift of 0.25 sigma", 10**4),
        ("shift of 0.5 sigma", 1000),
        ("sigma x 1.2", 10**4),
        ("sigma x 1.5", 1000),
        ("5 % of the rows x 10", 10**4),
        ("a category from .001 to .011", 10**5),
        ("nulls from .02 to .07", 10**4),
        ("vectors, .5 sigma in all of 8", 10**4),
    ],
)
def test_drift_is_seen(change: str, n: int) -> None:
    """What is to be seen warns or fails in nearly all draws, as one of 50 columns."""
    alarms, _ = power(change, n, 8, (4, n))
    assert alarms >= 7 / 8


def test_a_category_that_rises_from_next_to_nothing_warns_and_is_named() -> None:
    """A rise to three times the share warns below the threshold of differences."""
    comparisons = counted([10_000, 90_000, 20], [10_000, 90_000, 1500])
    risen = next(each for each in comparisons if each.warns)
    assert risen.value is not None
    assert risen.value < 0.05
    assert risen.detail.startswith("2: 0.02 %")


def test_the_category_that_changed_most_comes_first() -> None:
    """The largest difference of shares is the measure's value."""
    category = by_name(counted([500, 300, 200], [300, 300, 400]))["category"]
    assert category.value == pytest.approx(0.2)
    assert category.chance == pytest.approx(3 * fisher_p(500, 1000, 300, 1000))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 3000), st.integers(20, 3000), st.floats(0, 0.9), st.sampled_from([1e-2, 1e-5])
)
def test_the_floor_of_shares_is_near_what_the_exact_test_takes_for_more(
    n: int, m: int, rate: float, alpha: float
) -> None:
    """Fisher's test turns within some counts, or a fifth of the way, of the floor."""
    a = round(rate * n)
    b = -(-a * m // n)
    if fisher_p(a, n, m, m) > alpha:
        return
    turn = b + bisect.bisect_left(
        range(b, m + 1), True, key=lambda end: fisher_p(a, n, end, m) <= alpha
    )
    floor = shares_floor(a, n, b, m)(alpha)
    assert floor == pytest.approx(turn / m - a / n, rel=0.2, abs=3 / min(n, m))


@pytest.mark.parametrize("compare", [lambda: counted([0, 0], [5, 5]), lambda: counted([5], [0])])
def test_an_empty_side_has_no_effects(compare: Callable[[], tuple[Difference, ...]]) -> None:
    """Without values on one side nothing is measured, and nothing alarms."""
    assert [each.value for each in compare()] == [None]


def test_nulls_without_rows_have_no_rate() -> None:
    """A side without rows leaves the null rate open."""
    assert differences(NullSides(0, 0, 5, 10))[0].value is None
    assert differences(NullSides(0, 10, 5, 10))[0].value == pytest.approx(0.5)


def test_every_family_of_the_simulation_is_compared() -> None:
    """The simulation's families give measures with tests."""
    rng = np.random.default_rng(0)
    for family in FAMILIES.values():
        assert any(each.floor for each in family(rng, 200, 200))


def counted(reference_v: list[int], current_v: list[int]) -> tuple[Difference, ...]:
    """Return the measures of categories with such counts, named by their place."""
    cells = np.arange(len(reference_v), dtype=np.uint64)
    p_v, q_v = np.array(reference_v), np.array(current_v)
    aligned = AlignedCategories(cells, p_v, q_v, cells, p_v, q_v, 1.0, True)
    return differences(CategorySides(aligned, str))


def by_name(comparisons: tuple[Difference, ...]) -> dict[str, Difference]:
    """Return the first comparison of each name."""
    return {each.name: each for each in reversed(comparisons)}
