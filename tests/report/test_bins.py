"""Test what the plots show: shared bins of round width, single values, dates, top values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drift.categories import Categories
from batchscore.drift.keys import FLOAT, SIGNED
from batchscore.drift.numbers import Numbers
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
    assert plot["width"] == 0.2
    assert (rows_in(plot, "reference"), rows_in(plot, "current")) == (9000, 8000)
    middle = plot["start"] + plot["width"] * (np.arange(plot["bins"]) + 0.5)
    assert np.average(middle, weights=plot["reference"]) == pytest.approx(0, abs=0.05)
    assert np.average(middle, weights=plot["current"]) == pytest.approx(1, abs=0.05)


def test_bins_hold_what_numpy_counts() -> None:
    """The counts of exact values are those of a histogram over the same edges."""
    values = np.random.default_rng(3).uniform(-3, 5, 3000)
    plot = number_plot(None, numbers(values))
    assert plot is not None
    edges = plot["start"] + plot["width"] * np.arange(plot["bins"] + 1)
    assert plot["current"] == np.histogram(values, edges)[0].tolist()


def test_few_values_stand_alone() -> None:
    """Where both sides have few distinct values, each value has a bar of its own."""
    plot = number_plot(numbers([1, 1, 5], "int64"), numbers([5, 900], "int64"))
    assert plot == {
        "form": "points",
        "dates": False,
        "at": [1, 5, 900],
        "reference": [2, 1, 0],
        "current": [0, 1, 1],
    }


def test_a_far_outlier_does_not_squeeze_the_rest() -> None:
    """One value a million times as far as the others is counted beside the plot."""
    values = np.r_[np.linspace(0, 1, 5000), 1e6]
    plot = number_plot(numbers(values), numbers(values))
    assert plot is not None
    assert plot["width"] <= 0.05
    assert 1 <= sum(plot["outside"]["current"]) <= 60


def test_integers_have_bins_of_whole_width() -> None:
    """A bin of integers never ends between two of them."""
    values = np.arange(33)
    plot = number_plot(None, numbers(values, "int64"))
    assert plot is not None
    assert (plot["width"], plot["current"]) == (1, [1] * 33)


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_timestamps_are_binned_by_days_in_milliseconds(unit: str, scale: int) -> None:
    """Forty days are forty bins of a day, whatever the unit."""
    day = 86_400
    seconds = np.arange(20_000 * day, 20_040 * day, 3600)
    plot = number_plot(None, numbers(seconds * scale, f"timestamp[{unit}]"))
    assert plot is not None
    assert plot["dates"]
    assert (plot["start"], plot["width"]) == (20_000 * day * 1000, day * 1000)
    assert plot["current"] == [24] * 40


def test_dates_beyond_what_browsers_know_are_numbers() -> None:
    """A timestamp at the end of int64 does not break the plot."""
    plot = number_plot(None, numbers([0, 2**63 - 1], "timestamp[s]"))
    assert plot is not None
    assert not plot["dates"]


@given(FLOATS, FLOATS)
@settings(deadline=None, max_examples=200)
def test_every_finite_value_is_counted_once(left: list[float], right: list[float]) -> None:
    """Whatever the values, each finite one is in one bin or beside the plot, and bins are few."""
    plot = number_plot(numbers(left), numbers(right))
    finite = [int(np.isfinite(np.array(side, "f8")).sum()) for side in (left, right)]
    if plot is None:
        assert finite == [0, 0]
        return
    found = [rows_in(plot, side) if side in plot else 0 for side in ("reference", "current")]
    assert found == finite
    assert len(plot.get("at", ())) <= 2 * BINS
    assert plot.get("bins", 1) <= BINS + 2


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
