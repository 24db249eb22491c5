"""Small plots of a job's last runs: a bar for each, drawn as SVG without any script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 310, 56
_STEP, _BAR = 10, 8
_LEAST = 1.5


@dataclass(frozen=True)
class Bar:
    """A rectangle of a plot.

    Args:
        x: Its left edge.
        y: Its upper edge.
        height: Its height; all bars have one width.
        kind: Class of the style sheet.
        title: What it says when it is pointed at.
    """

    x: float
    y: float
    height: float
    kind: str
    title: str
    width: int = _BAR


@dataclass(frozen=True)
class Stack:
    """A part of a run's bar: its value, its class of the style sheet, and what it says."""

    value: float
    kind: str
    title: str


@dataclass(frozen=True)
class Plot:
    """A plot of bars, the newest at the right.

    Args:
        title: What it shows.
        most: The largest value, in words; empty if it has no meaning.
        bars: Its bars.
    """

    title: str
    most: str
    bars: tuple[Bar, ...]
    width: int = WIDTH
    height: int = HEIGHT


def plot(title: str, runs: Sequence[Sequence[Stack]], words: Callable[[float], str]) -> Plot:
    """Returns a plot with a bar for each run, oldest first, its parts from bottom to top.

    Args:
        title: What it shows.
        runs: The parts of each run's bar; none where the run has no value.
        words: Says a value.
    """
    most = max((sum(part.value for part in run) for run in runs), default=0.0)
    first = WIDTH - _STEP * len(runs)
    bars = [
        bar
        for place, run in enumerate(runs)
        for bar in _stacked(run, first + place * _STEP, HEIGHT / most if most else 0.0)
    ]
    return Plot(title, words(most), tuple(bars))


def _stacked(run: Sequence[Stack], x: float, scale: float) -> list[Bar]:
    bars, top = [], float(HEIGHT)
    for part in run:
        # What is there is seen, however small.
        height = max(part.value * scale, _LEAST if part.value else 0.0)
        top -= height
        bars.append(Bar(x, round(max(top, 0.0), 2), round(height, 2), part.kind, part.title))
    return bars
