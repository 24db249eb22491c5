"""What the plots show: two histograms in shared bins of round width, two counts of categories.

Suffixes: `_b` buckets, `_k` bins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchscore.messages.values import duration_text
from batchscore.report.labels import moment_labels, number_labels, shortened, value_labels

if TYPE_CHECKING:
    from batchscore.drift.categories import Categories
    from batchscore.drift.numbers import Numbers

BINS = 50
POINTS = 24
TOP = 10
_AXIS = 24  # characters of a category's label next to its bar
_LABELS_KEPT = 4096
_OUTER = (0.005, 0.995)
_ROOM = 1.6  # the whole range is shown where it is not wider than so many times the inner one
_LAST_MOMENT = 8_000_000_000_000_000 * 10**6  # of the dates that a browser knows, about
_FINEST = 64  # a bin of floats is so many times as wide as their spacing at least
_SMALLEST = 1e-300

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "day": 86_400 * 10**9}
_MILLISECOND = 6  # as a power of ten of nanoseconds
_DATE = re.compile(r"(?:date32|date64|timestamp)\[(day|s|ms|us|ns)[,\]]")
_SPAN = re.compile(r"(?:time32|time64|duration)\[(s|ms|us|ns)\]")
_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_DATE_STEPS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(_SECOND * k for k in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * k for k in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * k for k in (1, 2, 3, 6, 12)),
    *(_DAY * k for k in (1, 2, 7, 14, 28, 91, 182, 365)),
)

Values = NDArray[Any]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class _Bars:
    """Buckets in ascending order: smallest and largest value, and how many values each holds.

    Values are float64, or Python's integers, which large ones need so as to stay apart;
    nanoseconds where they are dates, times of day or durations.
    """

    lows_b: Values
    highs_b: Values
    counts_b: Counts

    @property
    def exact(self) -> bool:
        return bool(np.all(self.lows_b == self.highs_b))


@dataclass(frozen=True)
class _Grid:
    """Bins of one width: bin i begins at `(first + i) * step * 10**power`."""

    first: int
    step: int
    power: int
    bins: int

    def places(self, values_b: Values) -> NDArray[np.int64]:
        """Returns the bin of each value (b,), -1 below the first and `bins` above the last."""
        if values_b.dtype == object:
            at_b = values_b // (self.step * 10**self.power) - self.first
        else:
            # Sixteenths stay within range where the start, or a difference, would not.
            width = _width(self.step, self.power) / 16
            at_b = np.floor((values_b / 16 - self.first * width) / width + _slack(self.first))
        places_b: NDArray[np.int64] = np.clip(at_b, -1, self.bins).astype(np.int64)
        return places_b


def number_plot(reference: Numbers | None, current: Numbers | None) -> dict[str, Any] | None:
    """Returns the counts of both sides at single values, or in about `BINS` bins of one width.

    None without any number. `outside` are the counts below the first and above the last bin,
    which a few far outliers would else squeeze all others into; `apart` those of infinite values
    and of probabilities out of range; `about` names the sides whose counts are not exact.
    """
    both = {"reference": reference, "current": current}
    numbers = {name: side for name, side in both.items() if side is not None}
    known = {name: side for name, side in numbers.items() if side.histogram.n}
    apart = {name: counts for name, side in numbers.items() if (counts := _apart(side))}
    if not known:
        return {"form": "none", "apart": apart} if apart else None
    return {**_finite_plot(known), **({"apart": apart} if apart else {})}


def category_plot(reference: Categories | None, current: Categories | None) -> dict[str, Any]:
    """Returns the counts of the values that are most frequent on either side, and of the rest.

    `short` are the labels next to the bars, and `about` the sides whose counts are not exact.
    """
    both = {"reference": reference, "current": current}
    sides = {name: side for name, side in both.items() if side is not None}
    tops = {name: _top(side) for name, side in sides.items()}
    totals = {name: side.n for name, side in sides.items()}
    shares: dict[int, float] = {}
    for name, top in tops.items():
        for key, (_, number) in top.items():
            shares[key] = max(shares.get(key, 0.0), number / max(totals[name], 1))
    keys = sorted(shares, key=lambda key: (-shares[key], key))[:TOP]
    texts = {key: text for top in tops.values() for key, (text, _) in top.items()}
    labels = value_labels({key: texts[key] for key in keys})
    plot: dict[str, Any] = {"form": "top", "at": labels, "short": shortened(labels, _AXIS)}
    for name, top in tops.items():
        plot[name] = [top[key][1] if key in top else 0 for key in keys]
    plot["rest"] = {name: max(totals[name] - sum(plot[name]), 0) for name in tops}
    return plot | _about([name for name, side in sides.items() if side.folded])


def _top(side: Categories) -> dict[int, tuple[str, int]]:
    return {int(key): (label, int(number)) for label, number, key in side.top(_LABELS_KEPT)}


def _about(sides: Sequence[str]) -> dict[str, Any]:
    return {"about": list(sides)} if sides else {}


def _apart(numbers: Numbers) -> dict[str, int]:
    counts = {
        "-∞": numbers.neg_inf,
        "below 0": numbers.below,
        "above 1": numbers.above,
        "+∞": numbers.pos_inf,
    }
    return {name: count for name, count in counts.items() if count}


def _finite_plot(numbers: dict[str, Numbers]) -> dict[str, Any]:
    dates = all(_DATE.match(each.type) for each in numbers.values())
    if not dates and all(_SPAN.match(each.type) for each in numbers.values()):
        return _span_plot(numbers)
    whole = all(each.space.dtype.kind != "f" for each in numbers.values())
    sides = {name: _side(each, dates) for name, each in numbers.items()}
    ends = [end for side in sides.values() for end in (side.lows_b[0], side.highs_b[-1])]
    if dates and max(abs(end) for end in ends) > _LAST_MOMENT:
        dates = False
        sides = {name: _side(each, dates) for name, each in numbers.items()}
    if all(side.exact and side.counts_b.size <= POINTS for side in sides.values()):
        points = sorted({value for side in sides.values() for value in side.lows_b.tolist()})
        if len(points) <= POINTS:
            labels = moment_labels(points) if dates else number_labels(points)
            return _at_points(sides, points, labels)
    if not whole:
        sides = {name: _as_floats(side) for name, side in sides.items()}
    return _in_bins(sides, _grid(list(sides.values()), whole, dates), dates)


def _span_plot(numbers: dict[str, Numbers]) -> dict[str, Any]:
    """Returns the plot of times of day or durations, which are nanoseconds here."""
    sides = {name: _side(each, nanoseconds=True) for name, each in numbers.items()}
    points = sorted({value for side in sides.values() for value in side.lows_b.tolist()})
    if all(side.exact for side in sides.values()) and len(points) <= POINTS:
        return _at_points(sides, points, [duration_text(point, "ns") for point in points])
    low, high = _shown_range(list(sides.values()))
    finest = (high - low) / BINS
    if finest >= 10**_MILLISECOND:
        step, power = _date_step(finest / 10**_MILLISECOND), _MILLISECOND
    else:
        step, power = _round_step(max(finest, 1), whole=True)
    first, last = (end // (step * 10**power) for end in (low, high))
    plot = _in_bins(sides, _Grid(first, step, power, last - first + 1), dates=False)
    return {**plot, "spans": True}


def _side(numbers: Numbers, nanoseconds: bool) -> _Bars:
    histogram = numbers.histogram
    buckets, space = histogram.buckets(), histogram.space
    ends = np.array(histogram.key_range or (0, 0), np.uint64)
    dtype = np.float64 if space.dtype.kind == "f" else object
    lows_b, highs_b = (
        space.decode(np.clip(keys_b, *ends)).astype(dtype)
        for keys_b in (buckets.first_keys_b, buckets.last_keys_b)
    )
    match = _DATE.match(numbers.type) or _SPAN.match(numbers.type)
    if nanoseconds and match:
        scale = _NANOSECONDS[match.group(1)]
        lows_b, highs_b = lows_b * scale, highs_b * scale
    return _Bars(lows_b, highs_b, buckets.counts_b)


def _as_floats(side: _Bars) -> _Bars:
    return _Bars(side.lows_b.astype(np.float64), side.highs_b.astype(np.float64), side.counts_b)


def _at_points(sides: dict[str, _Bars], points: list[Any], labels: list[str]) -> dict[str, Any]:
    plot: dict[str, Any] = {"form": "points", "at": labels}
    for name, side in sides.items():
        found = dict(zip(side.lows_b.tolist(), side.counts_b.tolist(), strict=True))
        plot[name] = [found.get(point, 0) for point in points]
    return plot


def _in_bins(sides: dict[str, _Bars], grid: _Grid, dates: bool) -> dict[str, Any]:
    plot: dict[str, Any] = {"form": "bins", "dates": dates, "outside": {}}
    # A browser's numbers hold integers up to 2**53 only.
    first = grid.first if abs(grid.first) < 2**53 else str(grid.first)
    plot |= {"first": first, "step": grid.step, "power": grid.power, "bins": grid.bins}
    rough = []
    for name, side in sides.items():
        at_b, ends_b = grid.places(_middles(side)), grid.places(side.highs_b)
        if np.any(grid.places(side.lows_b) != ends_b):
            rough.append(name)
        counts_k = np.zeros(grid.bins + 2, np.int64)
        np.add.at(counts_k, at_b + 1, side.counts_b)
        below, *plot[name], above = counts_k.tolist()
        if below or above:
            plot["outside"][name] = [below, above]
    return plot | _about(rough)


def _middles(side: _Bars) -> Values:
    middles_b: Values
    if side.lows_b.dtype == object:
        middles_b = side.lows_b + (side.highs_b - side.lows_b) // 2
    else:
        # Halves of the smallest floats would not add up to them.
        halves_b = side.lows_b / 2 + side.highs_b / 2
        middles_b = np.where(side.lows_b == side.highs_b, side.lows_b, halves_b)
    return middles_b


def _grid(sides: list[_Bars], whole: bool, dates: bool) -> _Grid:
    """Returns the bins that hold the range to be shown."""
    low, high = _shown_range(sides)
    if dates:
        step, power = _date_step((high - low) / 10**_MILLISECOND / BINS), _MILLISECOND
    elif whole:
        step, power = _round_step(max((high - low) / BINS, 1), whole=True)
    else:
        spacing = math.ulp(max(abs(low), abs(high)))
        finest = max(high / BINS - low / BINS, _FINEST * spacing, _SMALLEST)
        step, power = _round_step(finest, whole=False)
    if whole:
        first, last = (end // (step * 10**power) for end in (low, high))
        return _Grid(first, step, power, last - first + 1)
    first, last = (_floor_of(end, _width(step, power)) for end in (low, high))
    return _Grid(first, step, power, last - first + 1)


def _floor_of(value: float, width: float) -> int:
    quotient = value / width
    return math.floor(quotient + _slack(quotient))


def _slack(quotient: float) -> float:
    """Returns how far below its edge, in widths, rounding may put a value that lies on it."""
    return 1e-9 + abs(quotient) * 2.0**-51


def _width(step: int, power: int) -> float:
    return float(f"{step}e{power}")


def _shown_range(sides: list[_Bars]) -> tuple[Any, Any]:
    low = min(side.lows_b[0] for side in sides)
    high = max(side.highs_b[-1] for side in sides)
    inner = [_quantiles(side) for side in sides]
    inner_low, inner_high = min(q[0] for q in inner), max(q[1] for q in inner)
    if high / 2 - low / 2 <= _ROOM * (inner_high / 2 - inner_low / 2):
        return low, high
    return (inner_low, inner_high) if inner_high > inner_low else (low, high)


def _quantiles(side: _Bars) -> list[Any]:
    totals_b = side.counts_b.cumsum()
    at = np.searchsorted(totals_b, [share * int(totals_b[-1]) for share in _OUTER])
    found: list[Any] = _middles(side)[at].tolist()
    return found


def _round_step(finest: float, whole: bool) -> tuple[int, int]:
    """Returns step and power of the least of 1, 2, 2.5, 5 times a power of ten from `finest`."""
    power = math.floor(math.log10(finest))
    steps = [(1, power), (2, power), (25, power - 1), (5, power), (1, power + 1)]
    if whole and power == 0:
        steps.pop(2)
    return next((each for each in steps if _width(*each) >= finest), steps[-1])


def _date_step(finest: float) -> int:
    years = math.ceil(finest / _DATE_STEPS[-1])
    return next((step for step in _DATE_STEPS if step >= finest), _DATE_STEPS[-1] * years)
