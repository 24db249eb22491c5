"""The history of each column over runs, as their manifests tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.finish.drift_gate import is_counted
from batchscore.messages.wording import one_line
from batchscore.report.formats import VERDICT_SIGNS, moment, rounded, rounded_apart
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_parts import RowCounts

RUNS = 31
"""Runs that the page looks back on at most, the reported one among them."""

_WORST_FIRST = tuple(VERDICT_SIGNS)
_QUANTILES = ("p05", "p50", "p95")


@dataclass(frozen=True)
class PastRun:
    """What the page looks back on of one run.

    Args:
        run: Its id.
        started: When it began, for people.
        about: Its parameters; where a job has none, the day on which it began.
        status: Its result.
        rows: Its counts of rows.
        seconds: How long it took.
        profile: The summaries of its columns by name.
        verdicts: The worst verdict of each column that was judged.
        verdict: Verdict of the run; None where nothing was compared.
        measures: What was judged, by column, and then by aspect and measure: its value, its floor,
            and the effects from which on it warned and failed.
        model: Name and version of its model.
        released: Whether a person released it.
    """

    run: str
    started: str
    about: str
    status: str
    rows: RowCounts
    seconds: float
    profile: Mapping[str, Any]
    verdicts: Mapping[str, str]
    verdict: str | None
    measures: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]]
    model: str
    released: bool


def runs_of(manifest: Manifest | None, history: Sequence[Manifest]) -> list[PastRun]:
    """Returns the runs that the page looks back on, oldest first, the reported one last.

    Args:
        manifest: Manifest of the reported run, if there is one.
        history: Manifests of earlier runs, newest first.
    """
    mine = [] if manifest is None else [manifest]
    run = None if manifest is None else manifest.run
    earlier = [each for each in history if each.run != run]
    return [_past_run(each) for each in [*reversed(earlier[: RUNS - 1]), *mine]]


def column_history(name: str, runs: Sequence[PastRun]) -> dict[str, Any]:
    """Returns a column's share of nulls, spread or top value, and verdict in each run.

    Lists are as long as `runs`, with None where a run does not have the figure. Empty where fewer
    than two runs have the column.
    """
    columns = [run.profile.get(name) for run in runs]
    last = next((column for column in reversed(columns) if column), None)
    if last is None or sum(column is not None for column in columns) < 2:
        return {}
    of = _shown_aspect(last)
    shown = [(column or {}).get("aspects", {}).get(of) if of else column for column in columns]
    facts: dict[str, Any] = {"nulls": [_null_share(column) for column in columns]}
    facts["verdict"] = [run.verdicts.get(name) for run in runs]
    quantiles = rounded_apart([(each or {}).get(key) for key in _QUANTILES for each in shown], 6)
    for number, key in enumerate(_QUANTILES):
        facts[key] = quantiles[number * len(runs) : (number + 1) * len(runs)]
    facts["top"] = [_top_share(column) for column in shown]
    kept = {key: values for key, values in facts.items() if any(v is not None for v in values)}
    return {**kept, "of": of} if of else kept


def events_of(runs: Sequence[PastRun]) -> list[str]:
    """Returns what happened at each run: a release, or another model than before."""
    events = []
    for place, run in enumerate(runs):
        before = next((each.model for each in runs[:place][::-1] if each.model), run.model)
        model = f"model {run.model}" if run.model and run.model != before else ""
        events.append(", ".join(filter(None, [model, "released" if run.released else ""])))
    return events


def _shown_aspect(column: Mapping[str, Any]) -> str:
    """Returns the aspect whose figures are shown; empty for the column's own values."""
    if "p50" in column or "top" in column:
        return ""
    return next(iter(column.get("aspects") or ()), "")


def _past_run(manifest: Manifest) -> PastRun:
    drift = manifest.drift or {}
    verdicts: dict[str, str] = {}
    counted = filter(is_counted, drift.get("comparisons", ()))
    for aspect in (a for each in counted for a in each.get("aspects", ())):
        if aspect.get("judged", True):
            known = verdicts.get(aspect["column"], aspect["verdict"])
            verdicts[aspect["column"]] = min(known, aspect["verdict"], key=_WORST_FIRST.index)
    started = moment(manifest.started)
    params = " ".join(str(value) for value in manifest.params.values())
    return PastRun(
        one_line(manifest.run),
        started,
        one_line(params, 40) or started[:10],
        one_line(manifest.status),
        manifest.rows,
        manifest.seconds,
        manifest.profile or {},
        verdicts,
        drift.get("verdict"),
        _measures(drift),
        one_line(f"{manifest.model.name} {manifest.model.version}".strip(), 60),
        manifest.released is not None,
    )


def _measures(drift: Mapping[str, Any]) -> dict[str, dict[tuple[str, str], Mapping[str, Any]]]:
    """Returns what the first comparison that counts has judged."""
    comparison: Mapping[str, Any]
    comparison = next(filter(is_counted, drift.get("comparisons", ())), {})
    found: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for aspect in comparison.get("aspects", ()):
        for measure in aspect.get("measures", ()) if aspect.get("judged", True) else ():
            if isinstance(measure.get("value"), int | float):
                key = (aspect.get("aspect", "value"), measure["name"])
                found.setdefault(aspect["column"], {})[key] = measure
    return found


def _null_share(column: Mapping[str, Any] | None) -> float | None:
    if not column or not column.get("count"):
        return None
    missing = column.get("nulls", 0) + column.get("nan", 0)
    share: float | None = rounded(missing / column["count"], 4)
    return share


def _top_share(column: Mapping[str, Any] | None) -> float | None:
    top = (column or {}).get("top")
    share: float | None = rounded(top[0]["share"], 4) if top else None
    return share
