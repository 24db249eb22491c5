"""Test what the plots show: shared bins of round width, single values, dates, top values."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drift.categories import Categories
from batchscore.drift.numbers import Numbers
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED
from batchscore.report.bins import BINS, TOP, category_plot, number_plot

FLOATS = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)


def numbers(values: Any, type_: str = "double") -> Numbers:
    made = Numbers(type_, FLOAT if type_ == "double" else SIGNED)
    made.update(np.asarray(values, "f8" if type_ == "double" else "i8"))
    return made


def categories(values: list[str]) -> Categories:
    made = Categories("string")
    made.update(pa.array(values, pa.string()))
    return made


def edges_of(plot: dict[str, Any]) -> list[float]:
    """Returns the edges of a plot's bins, each the float nearest to it."""
    unit = Fraction(plot["step"]) * Fraction(10) ** plot["power"]
    return [float((int(plot["first"]) + i) * unit) for i in range(plot["bins"] + 1)]


def rows_in(plot: dict[str, Any], side: str) -> int:
    outside: list[int] = plot.get("outside", {}).get(side, [])
    return int(sum(plot[side]) + sum(outside))


def test_both_sides_share_bins_of_a_round_width() -> None:
    """Two samples are counted in thirty to fifty bins that begin at a multiple of their width."""
    random = np.random.default_rng(1)
    plot = number_plot(numbers(random.normal(0, 1, 9000)), numbers(random.normal(1, 1, 8000)))
    assert plot is not None
    assert plot["form"] == "bins"
    assert 25 <= plot["bins"] <= BINS + 2
    edges = np.array(edges_of(plot))
    assert edges[1] - edges[0] == pytest.approx(0.2)
    assert (rows_in(plot, "reference"), rows_in(plot, "current")) == (9000, 8000)
    middle = (edges[1:] + edges[:-1]) / 2
    assert np.average(middle, weights=plot["reference"]) == pytest.approx(0, abs=0.05)
    assert np.average(middle, weights=plot["current"]) == pytest.approx(1, abs=0.05)


def test_bins_hold_what_numpy_counts() -> None:
    """The counts of exact values are those of a histogram over the same edges."""
    values = np.random.default_rng(3).uniform(-3, 5, 3000)
    plot = number_plot(None, numbers(values))
    assert plot is not None
    assert plot["current"] == np.histogram(values, edges_of(plot))[0].tolist()
    assert "about" not in plot


def test_few_values_have_bins_of_their_own() -> None:
    """Where both sides have few distinct values, each value has a bar of its own."""
    plot = number_plot(numbers([1, 1, 5], "int64"), numbers([5, 900], "int64"))
    assert plot == {
        "form": "points",
        "at": ["1", "5", "900"],
        "reference": [2, 1, 0],
        "current": [0, 1, 1],
    }


def test_a_far_outlier_does_not_squeeze_the_rest() -> None:
    """One value a million times as far as the others is counted next to the plot."""
    values = np.r_[np.linspace(0, 1, 5000), 1e6]
    plot = number_plot(numbers(values), numbers(values))
    assert plot is not None
    assert edges_of(plot)[1] - edges_of(plot)[0] <= 0.05
    assert 1 <= sum(plot["outside"]["current"]) <= 60


def test_integers_have_bins_of_whole_width() -> None:
    """A bin of integers never ends between two of them."""
    values = np.arange(33)
    plot = number_plot(None, numbers(values, "int64"))
    assert plot is not None
    assert (plot["step"], plot["power"], plot["current"]) == (1, 0, [1] * 33)


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_timestamps_are_binned_by_days_in_milliseconds(unit: str, scale: int) -> None:
    """Forty days are forty bins of a day, whatever the unit."""
    day = 86_400
    seconds = np.arange(20_000 * day, 20_040 * day, 3600)
    plot = number_plot(None, numbers(seconds * scale, f"timestamp[{unit}]"))
    assert plot is not None
    assert plot["dates"]
    assert (plot["first"], plot["step"]) == (20_000, day * 1000)
    assert plot["current"] == [24] * 40


def test_dates_beyond_what_browsers_know_are_numbers() -> None:
    """A timestamp at the end of int64 does not break the plot."""
    plot = number_plot(None, numbers([0, 2**63 - 1], "timestamp[s]"))
    assert plot is not None
    assert plot["at"] == ["0", "9,223,372,036,854,775,807"]


@pytest.mark.slow
@given(FLOATS, FLOATS)
@settings(deadline=None, max_examples=200)
def test_every_finite_value_is_counted_once(left: list[float], right: list[float]) -> None:
    """Whatever the values, each finite one is in one bin or next to the plot, and bins are few."""
    plot = number_plot(numbers(left), numbers(right))
    finite = [int(np.isfinite(np.array(side, "f8")).sum()) for side in (left, right)]
    infinite = [int(np.isinf(np.array(side, "f8")).sum()) for side in (left, right)]
    if plot is None:
        assert finite == infinite == [0, 0]
        return
    apart = [plot.get("apart", {}).get(side, {}) for side in ("reference", "current")]
    assert [sum(counts.values()) for counts in apart] == infinite
    if plot["form"] == "none":
        assert finite == [0, 0]
        return
    found = [rows_in(plot, side) if side in plot else 0 for side in ("reference", "current")]
    assert found == finite
    assert len(set(plot.get("at", ()))) == len(plot.get("at", ())) <= 2 * BINS
    assert plot.get("bins", 1) <= BINS + 2


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60))
@settings(deadline=None, max_examples=100)
def test_every_integer_is_counted_once(values: list[int]) -> None:
    """Integers too large for floats are counted, within whole edges that hold the middle ones."""
    plot = number_plot(None, numbers(values, "int64"))
    assert plot is not None
    assert rows_in(plot, "current") == len(values)
    if plot["form"] == "bins":
        assert plot["power"] >= 0
        lows = [(int(plot["first"]) + i) * plot["step"] * 10 ** plot["power"] for i in range(99)]
        held = [sum(a <= v < b for v in values) for a, b in itertools.pairwise(lows)]
        assert held[: plot["bins"]] == plot["current"]


@pytest.mark.parametrize("origin", [0, 2**62, -(2**63), 1_700_000_000_000])
def test_neighbouring_integers_have_bins_of_their_own(origin: int) -> None:
    """Forty integers in a row are forty bins, however large they are."""
    plot = number_plot(None, numbers([origin + i for i in range(40)], "int64"))
    assert plot is not None
    assert (int(plot["first"]), plot["step"], plot["power"]) == (origin, 1, 0)
    assert plot["current"] == [1] * 40


def test_large_integers_and_floats_next_to_each_other_keep_their_rows() -> None:
    """A column whose type changed shows all values of both sides, equal ones in one place."""
    plot = number_plot(numbers([2**62, 2**62 + 1], "int64"), numbers([2.0**62, 0.5]))
    assert plot is not None
    assert plot["at"] == ["0.5", "4,611,686,018,427,387,904", "4,611,686,018,427,387,905"]
    assert (plot["reference"], plot["current"]) == ([0, 1, 1], [1, 1, 0])


def test_the_largest_floats_have_bins() -> None:
    """Bins reach from the smallest to the largest float without an overflow."""
    most = float(np.finfo("f8").max)
    plot = number_plot(None, numbers(np.linspace(-1, 1, 101) * most))
    assert plot is not None
    assert rows_in(plot, "current") == 101
    assert max(plot["current"]) <= 6
    assert (plot["step"], plot["power"]) == (1, 307)


def test_counts_of_coarse_buckets_are_about() -> None:
    """A side whose buckets lie across the edges of bins is named, an exact one is not."""
    many = np.random.default_rng(5).normal(0, 1, 50_000)
    plot = number_plot(numbers(many[:4000]), numbers(many))
    assert plot is not None
    assert plot["about"] == ["current"]


def test_coarse_buckets_within_their_bins_are_exact() -> None:
    """Counts are exact where each bucket lies in one bin, however coarse it is."""
    plot = number_plot(None, numbers(np.r_[np.arange(5000) * 2.0**-60 + 1, 50:1000:50], "double"))
    assert plot is not None
    assert "about" not in plot


def test_what_has_no_place_in_the_plot_is_counted_apart() -> None:
    """Infinite values and probabilities out of range are counted by where they lie."""
    share = Numbers("double", PROBABILITY)
    share.update(np.array([0.1, 0.5, -1.0, 1.5, 2.0, np.inf, -np.inf, np.nan]))
    plot = number_plot(numbers([1.0, np.inf]), share)
    assert plot is not None
    assert plot["apart"] == {
        "reference": {"+∞": 1},
        "current": {"-∞": 1, "below 0": 1, "above 1": 2, "+∞": 1},
    }
    assert number_plot(None, numbers([np.inf])) == {
        "form": "none",
        "apart": {"current": {"+∞": 1}},
    }


def test_categories_show_what_is_frequent_on_either_side() -> None:
    """A value that only one side has is shown with a count of zero on the other."""
    plot = category_plot(categories(["a"] * 6 + ["b"] * 3), categories(["c"] * 5 + ["a"]))
    assert plot["at"] == ["c", "a", "b"]
    assert (plot["reference"], plot["current"]) == ([0, 6, 3], [5, 1, 0])
    assert plot["rest"] == {"reference": 0, "current": 0}


def test_rare_categories_are_the_rest() -> None:
    """Values beyond the most frequent are counted together."""
    plot = category_plot(None, categories([f"v{i}" for i in range(50)]))
    assert len(plot["at"]) == TOP
    assert plot["rest"] == {"current": 50 - TOP}


def test_values_with_one_beginning_keep_their_labels_apart() -> None:
    """Values that differ after the bytes that a profile keeps are distinguished by their hash."""
    stem = "https://example.org/" + "a" * 60
    plot = category_plot(None, categories([stem + "1", stem + "2", stem + "2", "", " "]))
    assert len(set(plot["at"])) == len(set(plot["short"])) == 4
    assert sum("#" in label for label in plot["at"]) == 2
    assert {"(empty)", "␣"} <= {*plot["at"]}
    assert max(map(len, plot["short"])) <= 24


def test_counts_of_folded_categories_are_about() -> None:
    """Beyond the values that are counted one by one the side is named."""
    plot = category_plot(categories(["a"]), categories([str(i) for i in range(5000)]))
    assert plot["about"] == ["current"]
