"""What a plot of a distribution shows, as rows: each bin or value with the share of both sides."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.messages.values import duration_text
from batchscore.messages.wording import counted
from batchscore.report.formats import percent

Plot = Mapping[str, Any]
"""What `bins.number_plot` and `bins.category_plot` return."""

SIDES = ("reference", "current")
_DAY = 86_400_000
_SECOND = 1_000
_LONG, _SHORT = 20, -2  # digits before the point, and zeros after it, that are written out
_ROUND = 15  # digits before the point up to which few significant ones are padded with zeros
_SIGNIFICANT = 7


@dataclass(frozen=True)
class PlotRow:
    """A bin or a value.

    Args:
        label: What it holds.
        short: The same next to the bar.
        shares: Each side's share of its rows.
        percents: The same in words.
        rows: Each side's rows in words.
    """

    label: str
    short: str
    shares: Mapping[str, float]
    percents: Mapping[str, str]
    rows: Mapping[str, str]

    @property
    def figures(self) -> list[str]:
        """Each side's share and rows."""
        return [f"{percent}, {self.rows[side]}" for side, percent in self.percents.items()]

    @property
    def words(self) -> str:
        """All of it on one line."""
        sides = zip(self.percents, self.figures, strict=True)
        return f"{self.label}: {'; '.join(f'{side} {figure}' for side, figure in sides)}"


def sides_of(plot: Plot) -> list[str]:
    """Returns the sides that have values."""
    return [side for side in SIDES if plot.get(side)]


def bars_of(plot: Plot) -> list[PlotRow]:
    """Returns the bins or values of a plot, from left to right or from the most frequent down."""
    sides = sides_of(plot)
    totals = {side: _total(plot, side) for side in sides}
    labels = labels_of(plot)
    short = plot.get("short", labels)
    bars = []
    for place, label in enumerate(labels):
        shares = {side: plot[side][place] / totals[side] for side in sides}
        percents = {side: f"{_about(plot, side)}{percent(shares[side])}" for side in sides}
        rows = {side: counted(plot[side][place], "row") for side in sides}
        bars.append(PlotRow(label, short[place], shares, percents, rows))
    return bars


def labels_of(plot: Plot) -> list[str]:
    """Returns what each bin or value of a plot is called."""
    if plot["form"] != "bins":
        return list(plot["at"])
    edges = [edge_label(plot, place) for place in range(plot["bins"] + 1)]
    return [f"{low} to {high}" for low, high in itertools.pairwise(edges)]


def edge_label(plot: Plot, place: int) -> str:
    """Returns the label of a bin's left edge; the last edge is that of no bin."""
    multiple = (int(plot["first"]) + place) * plot["step"]
    if plot["dates"]:
        return _moment(multiple, plot["step"])
    if plot.get("spans"):
        return duration_text(multiple * 10 ** plot["power"], "ns")
    return decimal(multiple, plot["power"])


def description(name: str, plot: Plot) -> str:
    """Returns what a plot shows, for those who do not see it."""
    bars = bars_of(plot)
    peaks = []
    for side in sides_of(plot):
        most = max(bars, key=lambda bar: bar.shares[side])
        share = f"{_about(plot, side)}{percent(most.shares[side])}"
        peaks.append(f"{side} most often {most.label}, {share}")
    return f"Distribution of {name}: {'; '.join(peaks)}."


def notes(plot: Plot) -> list[str]:
    """Returns what a plot leaves out, and whether its counts are exact."""
    said = [_rest(plot) or _beyond(plot)]
    if plot.get("about"):
        said.append(
            "≈ More distinct values than are counted one by one: these counts are approximate."
        )
    return [each for each in said if each]


def decimal(integer: int, power: int) -> str:
    """Returns `integer * 10**power` in full, or with an exponent where that is shorter."""
    if not integer:
        return "0"
    sign, digits = "-" if integer < 0 else "", str(abs(integer))
    significant, point = digits.rstrip("0"), len(digits) + power
    few = len(significant) < _SIGNIFICANT
    if point < _SHORT or point > _LONG or (point > _ROUND and few):
        rest = f".{significant[1:]}" if significant[1:] else ""
        return f"{sign}{significant[0]}{rest}e{point - 1}"
    if power >= 0:
        return f"{sign}{int(digits) * 10**power:,}"
    padded = digits.rjust(len(digits) - min(point - 1, 0), "0")
    back = padded[power:].rstrip("0")
    return f"{sign}{int(padded[:power]):,}{f'.{back}' if back else ''}"


def _moment(milliseconds: int, step: int) -> str:
    """Returns a moment as a date, or as fine as the bins are wide."""
    unit = "D" if step % _DAY == 0 else "s" if step % _SECOND == 0 else "ms"
    return str(np.datetime64(milliseconds, "ms").astype(f"M8[{unit}]")).replace("T", " ")


def _total(plot: Plot, side: str) -> int:
    beyond = (
        plot["rest"].get(side, 0) if "rest" in plot else sum(plot.get("outside", {}).get(side, ()))
    )
    apart = sum(plot.get("apart", {}).get(side, {}).values())
    return sum(plot.get(side) or ()) + beyond + apart or 1


def _about(plot: Plot, side: str) -> str:
    return "≈ " if side in plot.get("about", ()) else ""


def _rest(plot: Plot) -> str:
    rest = plot.get("rest", {})
    if not any(rest.values()):
        return ""
    shares = [
        f"{side} {_about(plot, side)}{percent(rest[side] / _total(plot, side))}"
        for side in sides_of(plot)
    ]
    return f"All other values: {', '.join(shares)}."


def _beyond(plot: Plot) -> str:
    parts = [part for side in SIDES for part in _beyond_of(plot, side)]
    return f"Beyond the plot: {'; '.join(parts)}." if parts else ""


def _beyond_of(plot: Plot, side: str) -> list[str]:
    total = _total(plot, side)
    below, above = plot.get("outside", {}).get(side, (0, 0))
    far = [(below, "below"), (above, "above")] if below or above else []
    parts = [f"{_about(plot, side)}{percent(number / total)} {where}" for number, where in far]
    for where, number in plot.get("apart", {}).get(side, {}).items():
        parts.append(f"{percent(number / total)} {where} ({counted(number, 'row')})")
    return [f"{side} {', '.join(parts)}"] if parts else []
