"""What the plots show: two histograms in shared bins of round width, two counts of categories."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchscore.report.figures import rounded
from batchscore.wording import one_line

if TYPE_CHECKING:
    from batchscore.drift.categories import Categories
    from batchscore.drift.numbers import Numbers

BINS = 50
POINTS = 24
TOP = 10
_LABEL = 48
_LABELS_KEPT = 4096
_OUTER = (0.005, 0.995)
_ROOM = 1.6  # the whole range is shown where it is not wider than so many times the inner one
_LAST_MILLISECOND = 8.64e15  # of the dates that a browser knows

_MILLISECONDS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "day": 86_400_000.0}
_DATE = re.compile(r"(?:date32|date64|timestamp)\[(day|s|ms|us|ns)[,\]]")
_SECOND, _MINUTE, _HOUR, _DAY = 1e3, 6e4, 3.6e6, 8.64e7
_DATE_STEPS = (
    *(_SECOND * k for k in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * k for k in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * k for k in (1, 2, 3, 6, 12)),
    *(_DAY * k for k in (1, 2, 7, 14, 28, 91, 182, 365)),
)

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class _Side:
    """Values in ascending order, milliseconds where they are dates, and the count of each."""

    values_b: Values
    counts_b: Counts
    exact: bool


def number_plot(reference: Numbers | None, current: Numbers | None) -> dict[str, Any] | None:
    """Returns the counts of both sides at single values, or in `BINS` bins of one width at most.

    None without any finite number. `outside` are the counts below the first and above the last
    bin, which a few far outliers would else squeeze all others into.
    """
    numbers = [each for each in (reference, current) if each is not None]
    dates = all(_is_date(each.type) for each in numbers)
    sides = {
        name: _side(each, dates)
        for name, each in (("reference", reference), ("current", current))
        if each is not None and each.histogram.n
    }
    if not sides:
        return None
    if dates and any(np.abs(side.values_b).max() > _LAST_MILLISECOND for side in sides.values()):
        dates = False
    points_v = np.unique(np.concatenate([side.values_b for side in sides.values()]))
    if points_v.size <= POINTS and all(side.exact for side in sides.values()):
        return _at_points(sides, points_v, dates)
    whole = all(each.space.dtype.kind != "f" for each in numbers) and not dates
    return _in_bins(sides, _edges(list(sides.values()), whole, dates), dates)


def category_plot(reference: Categories | None, current: Categories | None) -> dict[str, Any]:
    """Returns the counts of the values that are most frequent on either side, and of the rest."""
    sides = {"reference": reference, "current": current}
    tops = {name: _top(side) for name, side in sides.items() if side is not None}
    totals = {name: side.n for name, side in sides.items() if side is not None}
    shares: dict[int, float] = {}
    for name, top in tops.items():
        for key, (_, number) in top.items():
            shares[key] = max(shares.get(key, 0.0), number / max(totals[name], 1))
    keys = sorted(shares, key=lambda key: (-shares[key], key))[:TOP]
    labels = {key: label for top in tops.values() for key, (label, _) in top.items()}
    plot: dict[str, Any] = {"form": "top", "at": [labels[key] for key in keys], "rest": {}}
    for name, top in tops.items():
        plot[name] = [top[key][1] if key in top else 0 for key in keys]
        plot["rest"][name] = max(totals[name] - sum(plot[name]), 0)
    plot["approximate"] = any(side is not None and side.folded for side in sides.values())
    return plot


def _top(side: Categories) -> dict[int, tuple[str, int]]:
    return {
        int(key): (one_line(label, _LABEL), int(number))
        for label, number, key in side.top(_LABELS_KEPT)
    }


def _is_date(type_: str) -> bool:
    return _DATE.match(type_) is not None


def _side(numbers: Numbers, dates: bool) -> _Side:
    histogram = numbers.histogram
    buckets, space = histogram.buckets(), histogram.space
    low, high = (np.uint64(key) for key in histogram.key_range or (0, 0))
    first_keys_b = np.clip(buckets.first_keys_b, low, high)
    last_keys_b = np.clip(buckets.last_keys_b, low, high)
    lows_b, highs_b = (space.decode(k).astype(np.float64) for k in (first_keys_b, last_keys_b))
    middles_b: Values = lows_b / 2 + highs_b / 2
    exact = not buckets.shifts_b.any()
    values_b: Values = lows_b if exact else middles_b
    match = _DATE.match(numbers.type)
    scale = _MILLISECONDS[match.group(1)] if dates and match else 1.0
    return _Side(values_b * scale, buckets.counts_b, exact)


def _at_points(sides: dict[str, _Side], points_v: Values, dates: bool) -> dict[str, Any]:
    plot: dict[str, Any] = {"form": "points", "dates": dates}
    plot["at"] = [rounded(value, 12) for value in points_v.tolist()]
    for name, side in sides.items():
        counts_v = np.zeros(points_v.size, np.int64)
        np.add.at(counts_v, np.searchsorted(points_v, side.values_b), side.counts_b)
        plot[name] = counts_v.tolist()
    return plot


def _in_bins(
    sides: dict[str, _Side], edges: tuple[float, float, int], dates: bool
) -> dict[str, Any]:
    start, width, bins = edges
    plot: dict[str, Any] = {"form": "bins", "dates": dates, "bins": bins, "outside": {}}
    plot |= {"start": rounded(start, 12), "width": rounded(width, 12)}
    for name, side in sides.items():
        # The quotient of halves stays within range where the difference would not.
        at_b = np.floor((side.values_b / 2 - start / 2) / (width / 2) + 1e-9)
        inside_b = (at_b >= 0) & (at_b < bins)
        counts_k = np.bincount(
            at_b[inside_b].astype(np.intp), side.counts_b[inside_b], minlength=bins
        )
        plot[name] = counts_k.astype(np.int64).tolist()
        below, above = (int(side.counts_b[far].sum()) for far in (at_b < 0, at_b >= bins))
        if below or above:
            plot["outside"][name] = [below, above]
    return plot


def _edges(sides: list[_Side], whole: bool, dates: bool) -> tuple[float, float, int]:
    """Returns start, width and number of bins that hold the range to be shown."""
    low, high = _shown_range(sides)
    finest = high / BINS - low / BINS
    if not finest > 0 or not math.isfinite(1 / finest):
        return low, max(abs(low), 1.0) / BINS, 1
    width = _date_step(finest) if dates else _round_step(finest, whole)
    first = math.floor(low / width)
    bins = max(math.floor(high / width) - first + 1, 1)
    return first * width, width, min(bins, 2 * BINS)


def _shown_range(sides: list[_Side]) -> tuple[float, float]:
    low = min(float(side.values_b[0]) for side in sides)
    high = max(float(side.values_b[-1]) for side in sides)
    inner = [_quantiles(side) for side in sides]
    inner_low, inner_high = min(q[0] for q in inner), max(q[1] for q in inner)
    if high / 2 - low / 2 <= _ROOM * (inner_high / 2 - inner_low / 2):
        return low, high
    return (inner_low, inner_high) if inner_high > inner_low else (low, high)


def _quantiles(side: _Side) -> list[float]:
    totals_b = side.counts_b.cumsum()
    at = np.searchsorted(totals_b, [share * int(totals_b[-1]) for share in _OUTER])
    found: list[float] = side.values_b[at].tolist()
    return found


def _round_step(finest: float, whole: bool) -> float:
    """Returns the least of 1, 2, 2.5, 5 times a power of ten that is not below `finest`."""
    if whole and finest <= 1:
        return 1.0
    power = math.floor(math.log10(finest))
    digits = (1, 2, 5, 10) if whole and power == 0 else (1, 2, 2.5, 5, 10)
    steps = [float(f"{digit}e{power}") for digit in digits]
    return next((step for step in steps if step >= finest), steps[-1])


def _date_step(finest: float) -> float:
    years = math.ceil(finest / _DATE_STEPS[-1])
    return next((step for step in _DATE_STEPS if step >= finest), _DATE_STEPS[-1] * years)
