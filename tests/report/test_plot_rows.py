"""Test plots as rows: labels in full, shares of all rows, and what is left out."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.categories import Categories
from batchscore.drift.numbers import Numbers
from batchscore.drift.ordering import FLOAT
from batchscore.report.bins import category_plot, number_plot
from batchscore.report.plot_rows import Plot, bars_of, decimal, description, notes, sides_of


def texts(values: list[str]) -> Categories:
    """Returns the profile of some texts."""
    made = Categories("string")
    made.update(pa.array(values))
    return made


def plotted(values: list[float]) -> Plot:
    """Returns what a plot of some numbers shows."""
    side = Numbers("double", FLOAT)
    side.update(np.asarray(values, "f8"))
    plot = number_plot(None, side)
    assert plot is not None
    return plot


@given(st.integers(-(10**25), 10**25), st.integers(-330, 310))
def test_a_label_is_its_number(integer: int, power: int) -> None:
    """Read as a decimal number a label is the value, digit by digit, and not long."""
    label = decimal(integer, power)
    assert Decimal(label.replace(",", "")) == Decimal(integer).scaleb(power)
    assert len(label) <= 40


def test_labels_are_written_as_people_do() -> None:
    """Thousands have commas, small numbers zeros, and very small or large ones an exponent."""
    known = {
        (0, -5): "0",
        (15, -1): "1.5",
        (-2500, 0): "-2,500",
        (25, 5): "2,500,000",
        (5, -3): "0.005",
        (5, -9): "5e-9",
        (15, 300): "1.5e301",
        (4611686018427387904, 0): "4,611,686,018,427,387,904",
    }
    assert {key: decimal(*key) for key in known} == known


def test_shares_are_of_all_rows_of_a_side() -> None:
    """Values that a plot has no room for count in the shares of those that it shows."""
    plot = category_plot(texts(["a"] * 3 + ["b"]), texts(["a"] * 10 + [str(i) for i in range(30)]))
    first, *rest = bars_of(plot)
    assert first.shares == {"reference": 0.75, "current": 0.25}
    assert first.words == "a: reference 75 %, 3 rows; current 25 %, 10 rows"
    shown = sum(bar.shares["current"] for bar in (first, *rest))
    (note,) = notes(plot)
    assert note == f"All other values: reference 0 %, current {100 * (1 - shown):g} %."


def test_a_side_alone_has_no_other() -> None:
    """A profile that is compared with nothing is described alone."""
    plot = category_plot(None, texts(["a", "a", "b"]))
    assert sides_of(plot) == ["current"]
    assert description("x", plot) == "Distribution of x: current most often a, 66.7 %."
    assert notes(plot) == []


def test_infinite_values_are_named_below() -> None:
    """What no axis has room for is named with its share and its rows."""
    plot = plotted([*range(200), float("inf")])
    assert notes(plot) == ["Beyond the plot: current 0.498 % +∞ (1 row)."]
    assert sum(bar.shares["current"] for bar in bars_of(plot)) < 1
