"""The charts of a column over runs: its values, its nulls, and each measure with its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.drift.slow_drift import find_trend
from batchscore.report.drawing import Drawing, Track, over_runs
from batchscore.report.formats import VERDICT_SIGNS, figure, percent
from batchscore.report.labels import number_labels
from batchscore.report.measure_history import MeasureHistory, measures_of, trend_words
from batchscore.report.past import PastRun, column_history, events_of

MEASURES_SHOWN = 3
_KEPT_DIGITS = 6
_NAMES = {"p05": "5 %", "p95": "95 %", "p50": "median", "top": "share", "nulls": "nulls"}


@dataclass(frozen=True)
class Chart:
    """A figure over runs.

    Args:
        title: What it shows.
        drawing: The plot.
        heads: Heads of the table of its values.
        lines: The table's lines, one a run.
        note: What a trend test found, and what lines mean; may be empty.
    """

    title: str
    drawing: Drawing
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


def charts_of(name: str, runs: Sequence[PastRun]) -> list[Chart]:
    """Returns the charts of a column; none where fewer than two runs have it."""
    past = column_history(name, runs)
    if not past:
        return []
    events = events_of(runs)
    found = [*_values(past, runs, events), *_measures(name, runs, events)]
    if any(past.get("nulls", ())):
        found.append(_chart("Share of nulls", ("nulls",), past, runs, events))
    return found


def _values(past: Mapping[str, Any], runs: Sequence[PastRun], events: Sequence[str]) -> list[Chart]:
    of = f" of {past['of']}" if "of" in past else ""
    if any(isinstance(value, int | float) for value in past.get("p50", ())):
        title = f"Median{of}, with 5 % to 95 %"
        return [_chart(title, ("p50", "p05", "p95"), past, runs, events)]
    if "top" in past:
        title = f"Share of the most frequent value{of}"
        return [_chart(title, ("top",), past, runs, events)]
    return []


def _chart(
    title: str,
    fields: Sequence[str],
    past: Mapping[str, Any],
    runs: Sequence[PastRun],
    events: Sequence[str],
) -> Chart:
    """Returns the chart of the first of some figures, the others as a band around it."""
    shares = fields[0] in ("top", "nulls")
    shown = [field for field in fields if field in past]
    words = {field: _words(past[field], shares) for field in shown}
    heads = tuple(_NAMES[field] for field in shown)
    cells = tuple(tuple(words[field][i] for field in shown) for i in range(len(runs)))
    band = len(shown) == 3
    verdicts = past.get("verdict") or [None] * len(runs)
    lines = _lines(runs, events, verdicts, cells)
    track = Track(
        values=past[fields[0]],
        words=[_said(heads, line) for line in lines],
        kinds=verdicts,
        labels=[run.about for run in runs],
        low=past["p05"] if band else (),
        high=past["p95"] if band else (),
        events=_places(events),
        shares=shares,
    )
    known = [v if isinstance(v, int | float) else None for v in past[fields[0]]]
    note = trend_words(find_trend(known), shares)
    return Chart(title, over_runs(track), _heads(heads), lines, note)


def _measures(name: str, runs: Sequence[PastRun], events: Sequence[str]) -> list[Chart]:
    return [_measure(each, runs, events) for each in measures_of(name, runs)[:MEASURES_SHOWN]]


def _measure(found: MeasureHistory, runs: Sequence[PastRun], events: Sequence[str]) -> Chart:
    limits = [(kind, at) for kind, at in (("warn", found.warn), ("fail", found.fail)) if at]
    heads = ("effect", "noise floor")
    cells = [(figure(v), figure(f)) for v, f in zip(found.values, found.floors, strict=True)]
    lines = _lines(runs, events, found.outcomes, cells)
    track = Track(
        values=found.values,
        words=[_said(heads, line) for line in lines],
        kinds=found.outcomes,
        labels=[run.about for run in runs],
        floor=[_capped(each, found.values, limits) for each in found.floors],
        limits=limits,
        events=_places(events),
    )
    said = ", ".join(f"{kind}s from {at:g}" for kind, at in limits)
    limited = f"{said[:1].upper()}{said[1:]}." if said else ""
    note = " ".join(filter(None, [limited, trend_words(found.trend)]))
    return Chart(found.title, over_runs(track), _heads(heads), lines, note)


def _capped(
    floor: float | None, values: Sequence[float | None], limits: Sequence[tuple[str, float]]
) -> float | None:
    """Returns a floor unless it lies far above all else, which it would press flat."""
    most = max([value for value in values if value is not None] + [at for _, at in limits])
    return None if floor is None or floor > 2 * most else floor


def _places(events: Sequence[str]) -> list[int]:
    return [place for place, event in enumerate(events) if event]


def _words(values: Sequence[Any], shares: bool) -> list[str]:
    if shares:
        return [percent(value) for value in values]
    known = [value for value in values if isinstance(value, int | float)]
    labels = iter(number_labels(known, most=_KEPT_DIGITS))
    return [
        next(labels) if isinstance(value, int | float) else str(value or "none") for value in values
    ]


def _heads(heads: Sequence[str]) -> tuple[str, ...]:
    return ("of", "drift", *heads, "run", "event")


def _lines(
    runs: Sequence[PastRun],
    events: Sequence[str],
    verdicts: Sequence[str | None],
    cells: Sequence[Sequence[str]],
) -> tuple[tuple[str, ...], ...]:
    """Returns of each run its name, its verdict in words, its figures, its id and its event."""
    lines = []
    for run, event, verdict, mine in zip(runs, events, verdicts, cells, strict=True):
        word = verdict or "not judged"
        sign = VERDICT_SIGNS[word][1] if word in VERDICT_SIGNS else word
        lines.append((run.about, sign, *mine, run.run, event))
    return tuple(lines)


def _said(heads: Sequence[str], line: Sequence[str]) -> str:
    """Returns a line of the table as a sentence."""
    about, sign, *cells, run, event = line
    figures = "; ".join(f"{head} {cell}" for head, cell in zip(heads, cells, strict=True))
    return f"{about}, run {run}: {figures}; {sign}{f'; {event}' if event else ''}"
