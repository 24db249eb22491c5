"""Where the marks of a plot lie, in hundredths of its width and height from its upper left corner.

A template puts them into SVG that is stretched to any width, and labels next to it as text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from batchscore.report.formats import percent
from batchscore.report.labels import number_labels
from batchscore.report.plot_rows import Plot, bars_of, edge_label

_ROOM = 46  # characters of labels that fit below a plot on a phone
_EVERY = (1, 2, 5, 10, 20, 50, 100)
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 4
_NEAR = 1e-9  # of a step, so that rounding takes no label away
_LEAST_SPAN = 1e-290  # below it a difference is none that could be drawn
_MARGIN = 0.06  # of the height above the largest and below the smallest value over runs


@dataclass(frozen=True)
class Tick:
    """A label of an axis, where it belongs, and whether it has a line of its own."""

    at: float
    label: str
    lower: bool = False


@dataclass(frozen=True)
class Zone:
    """A part of the plot that says something when it is pointed at."""

    x: float
    width: float
    words: str


@dataclass(frozen=True)
class Sign:
    """A sign in the plot: where, its class of the style sheet, and the sign."""

    x: float
    y: float
    kind: str
    sign: str


@dataclass(frozen=True)
class Line:
    """A path, and its class of the style sheet."""

    path: str
    kind: str


@dataclass(frozen=True)
class Drawing:
    """A plot.

    Args:
        lines: What is drawn, from back to front.
        zones: What is said of its parts.
        marks: Signs on top.
        below: Labels of the horizontal axis.
        vertical: Labels of the vertical axis.
        height: In rem.
    """

    lines: tuple[Line, ...]
    zones: tuple[Zone, ...]
    below: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    marks: tuple[Sign, ...] = ()
    height: int = 11


@dataclass(frozen=True)
class Track:
    """A figure over runs.

    Args:
        values: Of each run, the oldest first; None where a run has none.
        words: What to say of each run.
        kinds: Verdicts of the runs, `fail` and `warn` of which have a sign.
        labels: What each run is called below the plot.
        low: Lower edges of a band around the values; may be empty.
        high: Its upper edges.
        floor: What noise may reach in each run; may be empty.
        limits: Classes of the style sheet and places of lines from end to end.
        events: Runs at which something happened, such as a new model.
        shares: Whether the values are shares, which begin at 0.
    """

    values: Sequence[float | None]
    words: Sequence[str]
    kinds: Sequence[str | None]
    labels: Sequence[str]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    floor: Sequence[float | None] = ()
    limits: Sequence[tuple[str, float]] = ()
    events: Sequence[int] = ()
    shares: bool = False
    height: int = 8


def histogram(plot: Plot) -> Drawing:
    """Returns the reference as an area, and the current side as a line of steps over it."""
    bars, bins = bars_of(plot), int(plot["bins"])
    top = max((share for bar in bars for share in bar.shares.values()), default=0.0) or 1.0
    sides = {side: [bar.shares[side] / top for bar in bars] for side in bars[0].shares}
    lines = [Line(_steps(heights), side) for side, heights in sides.items()]
    zones = [Zone(_short(100 * i / bins), _short(100 / bins), b.words) for i, b in enumerate(bars)]
    vertical = [Tick(_short(100 - 100 * at / top), percent(at)) for at in _round_values(0.0, top)]
    return Drawing(tuple(lines), tuple(zones), tuple(_edges(plot)), tuple(vertical))


def over_runs(track: Track) -> Drawing:
    """Returns a figure over runs as a line with a point for each."""
    low, high = _range(track)
    scale = _scale(low, high)
    places = [_short(100 * (i + 0.5) / len(track.values)) for i in range(len(track.values))]
    points = [
        (x, None if value is None else scale(value))
        for x, value in zip(places, track.values, strict=True)
    ]
    zones = [
        Zone(_short(100 * i / len(places)), _short(100 / len(places)), words)
        for i, words in enumerate(track.words)
        if track.values[i] is not None
    ]
    ticks = _round_values(low, high)
    labels = [percent(at) for at in ticks] if track.shares else number_labels(ticks)
    vertical = tuple(Tick(scale(at), label) for at, label in zip(ticks, labels, strict=True))
    below = tuple(_chosen([Tick(x, name) for x, name in zip(places, track.labels, strict=True)]))
    lines = tuple(_lines(track, places, points, scale))
    return Drawing(lines, tuple(zones), below, vertical, tuple(_marks(track, points)), track.height)


def _lines(
    track: Track,
    places: Sequence[float],
    points: Sequence[tuple[float, float | None]],
    scale: Callable[[float], float],
) -> Iterator[Line]:
    for lower, upper in _bands(track):
        yield Line(_area(places, [scale(v) for v in lower], [scale(v) for v in upper]), "band")
    for run in track.events:
        yield Line(f"M{_number(places[run])} 0V100", "event")
    for kind, at in track.limits:
        yield Line(f"M0 {_number(scale(at))}H100", f"limit {kind}")
    if any(value is not None for value in track.floor):
        yield Line(
            _path([(x, None if v is None else scale(v)) for x, v in _known(track, places)]), "floor"
        )
    yield Line(_path(points), "over")
    # A line without length has round ends, which make a dot of it in any shape of the plot.
    dots = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points if y is not None)
    yield Line(dots, "dots")


def _known(track: Track, places: Sequence[float]) -> Iterator[tuple[float, float | None]]:
    return zip(places, track.floor, strict=True)


def _marks(track: Track, points: Sequence[tuple[float, float | None]]) -> Iterator[Sign]:
    for (x, y), kind in zip(points, track.kinds, strict=True):
        if y is not None and kind in ("fail", "warn"):
            yield Sign(x, y, str(kind), "▲")


def _bands(track: Track) -> Iterator[tuple[list[float], list[float]]]:
    """Yields the lower and upper edges, if every run has both."""
    lower = [value for value in track.low if value is not None]
    upper = [value for value in track.high if value is not None]
    if track.low and len(lower) == len(upper) == len(track.values):
        yield lower, upper


def _range(track: Track) -> tuple[float, float]:
    limits = [at for _, at in track.limits]
    listed = (*track.values, *track.low, *track.high, *track.floor, *limits)
    known = [float(value) for value in listed if value is not None]
    low, high = (0.0 if track.shares else min(known)), max(known)
    if high / 2 - low / 2 > _LEAST_SPAN:
        return low, high
    wider = max(abs(low), abs(high)) / 2 or 1.0
    wider = max(wider, 2 * _LEAST_SPAN)
    low = low if track.shares else max(low - wider, -sys.float_info.max)
    return low, min(high + wider, sys.float_info.max)


def _scale(low: float, high: float) -> Callable[[float], float]:
    """Returns what turns a value into its place; halves, since a difference may be too large."""

    def place(value: float) -> float:
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        return _short(100 * (1 - _MARGIN - (1 - 2 * _MARGIN) * share))

    return place


def _edges(plot: Plot) -> list[Tick]:
    """Returns labels at round edges of bins, so few that they do not overlap on a phone."""
    bins, start = int(plot["bins"]), int(plot["first"])
    for every in _EVERY:
        places = [place for place in range(bins + 1) if (start + place) % every == 0]
        ticks = [Tick(_short(100 * place / bins), edge_label(plot, place)) for place in places]
        if len(ticks) > 1 and _fits(ticks):
            return ticks
    first, last = Tick(0.0, edge_label(plot, 0)), Tick(100.0, edge_label(plot, bins))
    return [first, replace(last, lower=not _fits([first, last]))]


def _fits(ticks: Sequence[Tick]) -> bool:
    return sum(len(tick.label) + 2 for tick in ticks) <= _ROOM


def _chosen(ticks: list[Tick]) -> list[Tick]:
    """Returns the last label and those at equal distances before it, as many as there is room."""
    for every in range(1, len(ticks) + 1):
        chosen = ticks[::-1][::every][::-1]
        if _fits(chosen):
            return chosen
    return ticks[-1:]


def _round_values(low: float, high: float) -> list[float]:
    """Returns about four round values from `low` to `high`."""
    # Of halves, since the difference of two floats may be too large for one.
    wanted = (high / 2 - low / 2) / (_TICKS / 2)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next((each * power for each in _STEPS if each * power >= wanted), wanted)
    first, last = math.ceil(low / step - _NEAR), math.floor(high / step + _NEAR)
    found = dict.fromkeys(float(f"{place * step:.15g}") for place in range(first, last + 1))
    return [value for value in found if low - step / 2 < value < high + step / 2]


def _steps(heights: Sequence[float]) -> str:
    width = 100 / len(heights)
    steps = "".join(
        f"V{_number(100 - 100 * h)}H{_number((i + 1) * width)}" for i, h in enumerate(heights)
    )
    return f"M0 100{steps}V100"


def _path(points: Sequence[tuple[float, float | None]]) -> str:
    """Returns a line through points, interrupted where there is none."""
    parts, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_number(x)} {_number(y)}")
        pen = "L"
    return "".join(parts)


def _area(places: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> str:
    there = [*zip(places, upper, strict=True)]
    back = [*zip(places, lower, strict=True)][::-1]
    return f"{_path(there)}L{_path(back)[1:]}Z"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _short(value: float) -> float:
    return round(value, 2)
