"""How what drift found moves from run to run, as small plots of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from batchscore.cli.render.results import table
from batchscore.cli.render.trend import ASCII, BARS, sparkline
from batchscore.messages.wording import counted, one_line
from batchscore.report.formats import figure, shown_name
from batchscore.report.measure_history import MeasureHistory, measures_of, trend_words
from batchscore.report.past import PastRun, events_of

LISTED = 20
_PER_COLUMN = 3
_NAME = 32
_SIGNS = {"fail": "F", "warn": "w", None: " "}
_CHANGED, _RELEASED, _BOTH = "m", "r", "*"


def drift_trend(job: str, runs: Sequence[PastRun], is_unicode: bool) -> list[str]:
    """Returns a plot of each column's worst measures, the worst column first.

    Args:
        job: Name of the job.
        runs: Its runs, the oldest first.
        is_unicode: Whether the output has characters beyond ASCII.
    """
    found = histories(runs)
    if not found:
        return [f"{one_line(job, 160)}   nothing to draw: fewer than two runs judged a column"]
    shown = _shown(found)
    bars = BARS if is_unicode else ASCII
    first, last = runs[0].about, runs[-1].about
    head = f"{one_line(job, 160)}   {counted(len(runs), 'run')}, {first} to {last}"
    rows = [_verdicts(runs), *(_line(each, bars) for each in shown), _events(runs)]
    titles = ("", "", "trend", "last", "floor", "warn / fail")
    lines = [head, *table(titles, [row for row in rows if row], left=3), *_legend(runs)]
    return [*lines, *_trends(found), *_left_out(found, shown)]


def drift_trend_json(job: str, runs: Sequence[PastRun]) -> dict[str, Any]:
    """Returns the runs, the oldest first, and all measures over them."""
    facts = [
        {
            "run": run.run,
            "of": run.about,
            "verdict": run.verdict,
            "model": run.model,
            "event": event,
        }
        for run, event in zip(runs, events_of(runs), strict=True)
    ]
    return {"job": job, "runs": facts, "measures": [_measure(each) for each in histories(runs)]}


def histories(runs: Sequence[PastRun]) -> list[MeasureHistory]:
    """Returns all measures of all columns, those nearest to their failure first."""
    names = dict.fromkeys(name for run in runs for name in run.measures)
    found = [each for name in names for each in measures_of(name, runs)]
    return sorted(found, key=lambda each: -each.severity)


def _shown(found: Sequence[MeasureHistory]) -> list[MeasureHistory]:
    """Returns the worst measures of the worst columns, those of a column together."""
    by_column: dict[str, list[MeasureHistory]] = {}
    for each in found:
        by_column.setdefault(each.column, []).append(each)
    return [each for mine in by_column.values() for each in mine[:_PER_COLUMN]][:LISTED]


def _line(found: MeasureHistory, bars: str) -> list[str]:
    last = found.values[-1]
    floors = [each for each in found.floors if each is not None]
    limits = " / ".join("-" if each is None else f"{each:g}" for each in (found.warn, found.fail))
    # With the threshold at the top, unless a run went beyond it.
    plot = sparkline([*found.values, found.fail or found.warn], bars)[:-1]
    figures = [figure(last) if last is not None else "-", figure(floors[-1]) if floors else "-"]
    return [shown_name(found.column)[:_NAME], found.title[:_NAME], plot, *figures, limits]


def _verdicts(runs: Sequence[PastRun]) -> list[str]:
    return ["verdict", "", "".join(_SIGNS.get(run.verdict, ".") for run in runs), "", "", ""]


def _events(runs: Sequence[PastRun]) -> list[str]:
    signs = "".join(_event_sign(event) for event in events_of(runs))
    return ["events", "", signs, "", "", ""] if signs.strip() else []


def _event_sign(event: str) -> str:
    if not event:
        return " "
    released = event.endswith("released")
    return _BOTH if released and "model" in event else _RELEASED if released else _CHANGED


def _legend(runs: Sequence[PastRun]) -> list[str]:
    said = [
        f"{_event_sign(event)} {run.about}: {event}"
        for run, event in zip(runs, events_of(runs), strict=True)
        if event
    ]
    verdicts = {run.verdict for run in runs}
    signs = [f"{_SIGNS[each]} {each}" for each in ("warn", "fail") if each in verdicts]
    return ["", *([", ".join(signs)] if signs else []), *said] if signs or said else []


def _trends(found: Sequence[MeasureHistory]) -> list[str]:
    said = [(each, trend_words(each.trend)) for each in found]
    lines = [f"{shown_name(each.column)}, {each.title}: {words}" for each, words in said if words]
    return ["", "Slow drift", *lines[:LISTED]] if lines else []


def _left_out(found: Sequence[MeasureHistory], shown: Sequence[MeasureHistory]) -> list[str]:
    rest = len(found) - len(shown)
    words = f"{counted(rest, 'measure')} with smaller effects left out; --json has all"
    return ["", words] if rest else []


def _measure(found: MeasureHistory) -> Mapping[str, Any]:
    return {**asdict(found), "trend": None if found.trend is None else asdict(found.trend)}
