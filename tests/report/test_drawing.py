"""Test where the marks of a plot lie: in the plot, in order, and where their values belong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batchscore.drift.numbers import Numbers
from batchscore.drift.ordering import FLOAT
from batchscore.report.bins import number_plot
from batchscore.report.drawing import Drawing, Track, histogram, over_runs
from batchscore.report.plot_rows import bars_of

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def track(values: list[float | None], **more: object) -> Track:
    """Returns a figure over as many runs as there are values."""
    labels = [str(place) for place in range(len(values))]
    return Track(values, labels, [None] * len(values), labels, **more)  # type: ignore[arg-type]


def points(drawing: Drawing, kind: str) -> list[tuple[float, float]]:
    """Returns the points of a drawing's lines of a kind."""
    paths = "".join(line.path for line in drawing.lines if line.kind == kind)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", paths)]


def binned(values: list[float]) -> dict[str, Any]:
    """Returns what a plot of some numbers shows."""
    side = Numbers("double", FLOAT)
    side.update(np.asarray(values))
    plot = number_plot(None, side)
    assert plot is not None
    return plot


def test_a_figure_is_where_its_value_is() -> None:
    """Runs are at equal distances; the largest value is on top and the middle one halfway."""
    drawn = over_runs(track([1.0, 2.0, 3.0]))
    assert points(drawn, "over") == [(16.67, 94.0), (50.0, 50.0), (83.33, 6.0)]
    assert [(tick.label, tick.at) for tick in drawn.vertical] == [
        ("1", 94.0),
        ("1.5", 72.0),
        ("2", 50.0),
        ("2.5", 28.0),
        ("3", 6.0),
    ]


def test_a_run_without_a_figure_interrupts_the_line() -> None:
    """A gap is no value: a new line begins behind it, and nothing is said there."""
    drawn = over_runs(track([1.0, None, 3.0]))
    (over,) = (line.path for line in drawn.lines if line.kind == "over")
    assert over.count("M") == 2
    assert [zone.words for zone in drawn.zones] == ["0", "2"]


def test_limits_floors_and_events_are_drawn() -> None:
    """A limit that no run came near is in the plot, and an event goes from top to bottom."""
    drawn = over_runs(
        track([0.1, 0.2], floor=[0.05, 0.05], limits=[("fail", 0.4)], events=[1], shares=True)
    )
    kinds = {line.kind: line.path for line in drawn.lines}
    assert kinds["limit fail"] == "M0 6H100"
    assert kinds["event"] == "M75 0V100"
    assert points(drawn, "floor") == [(25.0, 83.0), (75.0, 83.0)]


def test_runs_that_failed_have_a_sign() -> None:
    """A verdict is not shown by colour alone."""
    drawn = over_runs(Track([1, 2, 3], ["", "", ""], ["ok", "warn", "fail"], ["a", "b", "c"]))
    assert [(mark.kind, mark.sign) for mark in drawn.marks] == [("warn", "▲"), ("fail", "▲")]


@given(st.lists(NUMBERS | st.none(), min_size=1, max_size=40).filter(any))
@example([-1.79e308, 1.79e308])
@example([1.79e308, 1.79e308])
@example([5e-324, None])
@example([1e16, 1e16 + 2])
def test_any_figures_can_be_drawn(values: list[float | None]) -> None:
    """Whatever a column holds, all marks are in the plot, in order, with few different labels."""
    drawn = over_runs(track(values, events=[0]))
    ys = [y for _, y in points(drawn, "over")]
    assert all(0 <= y <= 100 for y in ys)
    known = [value for value in values if value is not None]
    assert [ys[i] for i in sorted(range(len(ys)), key=lambda i: known[i])] == sorted(ys)[::-1]
    assert len(drawn.vertical) <= 10
    labels = [tick.label for tick in drawn.vertical]
    assert len(set(labels)) == len(labels)
    assert all(0 <= tick.at <= 100 for tick in (*drawn.vertical, *drawn.below))


@given(st.lists(NUMBERS, min_size=30, max_size=60, unique=True))
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    """Steps are in the plot, zones cover it, and labels of edges fit a phone."""
    plot = binned(values)
    assume(plot["form"] == "bins")
    drawn = histogram(plot)
    assert sum(zone.width for zone in drawn.zones) == pytest.approx(100, abs=1)
    assert [zone.words for zone in drawn.zones] == [bar.words for bar in bars_of(plot)]
    assert 1 <= len(drawn.below) <= 46
    assert sum(len(tick.label) for tick in drawn.below) <= 60
    heights = [float(y) for line in drawn.lines for y in re.findall(r"V([\d.]+)H", line.path)]
    assert min(heights) == 0
    assert max(heights) <= 100


def test_a_histogram_has_the_shares_of_its_bins() -> None:
    """The fullest bin reaches the top, one half as full reaches the middle."""
    plot = binned([float(v) for v in range(100)] + [0.5] * 3)
    shares = [bar.shares["current"] for bar in bars_of(plot)]
    (line,) = histogram(plot).lines
    heights = [100 - float(y) for y in re.findall(r"V([\d.]+)H", line.path)]
    assert heights == pytest.approx([100 * share / max(shares) for share in shares], abs=0.01)
    assert sum(shares) == pytest.approx(1)
