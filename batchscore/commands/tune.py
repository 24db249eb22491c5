"""Thresholds of drift from the nights that an output keeps: replayed, and tuned to few pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchscore.drift.findings import Rules, TableDrift, Thresholds
from batchscore.drift.replay import (
    Key,
    Night,
    Tuned,
    effects_of,
    failing,
    thresholds_of,
    tune,
)
from batchscore.errors import BatchscoreError, InvalidError
from batchscore.finish.drift_gate import is_counted, rules_from_json
from batchscore.messages.wording import one_line
from batchscore.runs.history import read_history, slice_date
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.profiles import Reference, new_rows_profile, read_profile, read_reference
from batchscore.runs.profiles import run_profile as own_profile
from batchscore.storage.store import Store

_ENDED = ("published", "empty", "held")
Given = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Replayed:
    """The stored nights of a job, judged again.

    Args:
        job: The job's name.
        nights: What each showed, by date.
        thresholds: By column and measure, what judges them today.
        own: The thresholds that the job gives columns, by column and measure.
        tuned: Thresholds that alarm on few enough of them.
        most: How many nights may alarm.
        skipped: Nights that could not be replayed, with the reason.
    """

    job: str
    nights: tuple[Night, ...]
    thresholds: Mapping[Key, Thresholds]
    own: Mapping[str, Mapping[str, Thresholds]]
    tuned: Tuned
    most: int
    skipped: tuple[str, ...]

    @property
    def fails(self) -> dict[Key, float | None]:
        """The effect from which on each measure fails today."""
        return {key: each.fail for key, each in self.thresholds.items()}

    @property
    def section(self) -> dict[str, Any]:
        """The job's thresholds of columns with the tuned ones; empty if nothing has to change."""
        if not self.tuned.fails:
            return {}
        columns: dict[str, dict[str, list[float | None]]] = {
            column: {measure: [each.warn, each.fail] for measure, each in measures.items()}
            for column, measures in self.own.items()
        }
        for (column, measure), fail in self.tuned.fails.items():
            warn = self.thresholds[column, measure].warn
            columns.setdefault(column, {})[measure] = [warn, fail]
        return {"drift": {"column_thresholds": columns}}

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        nights = [
            {
                "night": night.name,
                "fails": bool(failing([night], self.fails)),
                "fails_tuned": night.name in self.tuned.kept,
                "broken": night.broken,
                "effects": [
                    {"column": column, "measure": measure, "effect": effect}
                    for (column, measure), effect in sorted(night.effects.items())
                ],
            }
            for night in self.nights
        ]
        return {"job": self.job, "nights": nights, "most": self.most, **self.section} | {
            "skipped": list(self.skipped)
        }


def replay(store: Store, slice_: str | None, pages: float, given: Given | None = None) -> Replayed:
    """Returns which of an output's nights alarm by today's thresholds, and by tuned ones.

    Each night's profile is compared again with the references that it was compared with.

    Args:
        store: The output.
        slice_: A slice of the job that is meant; None for the job of the newest run.
        pages: How many of the nights may alarm, as a share of them.
        given: Thresholds by measure to try in place of the job's own.

    Raises:
        InvalidError: Nothing is there to replay, or a threshold is wrong.
    """
    manifests = _nights(store, slice_)
    rules = _rules(manifests[-1], given)
    found: list[tuple[Night, dict[Key, Thresholds]]] = []
    skipped: list[str] = []
    for manifest in manifests:
        try:
            drifts = [*_compared(store, manifest, rules)]
        except BatchscoreError as error:
            skipped.append(f"{_name(manifest)}: {one_line(str(error), 300)}")
            continue
        night = Night(_name(manifest), effects_of(drifts), _broken(drifts))
        found.append((night, thresholds_of(drifts)))
    thresholds = {key: each for _, night in found for key, each in night.items()}
    nights = tuple(night for night, _ in found)
    most = int(pages * len(nights) + 1e-9)
    tuned = tune(nights, {key: each.fail for key, each in thresholds.items()}, most)
    own, job = rules.column_thresholds, manifests[-1].job
    return Replayed(job, nights, thresholds, own, tuned, most, tuple(skipped))


def _nights(store: Store, slice_: str | None) -> list[Manifest]:
    """Returns the newest run of each slice of one job that was compared, by date."""
    ended = [
        each
        for each in read_history(store)
        if isinstance(each, Manifest) and each.status in _ENDED and each.drift
    ]
    compared = [each for each in ended if (each.drift or {}).get("comparisons")]
    job = next((e.job for e in compared if slice_ is None or _is_of(e, slice_)), None)
    newest: dict[str, Manifest] = {}
    for each in compared:
        if each.job == job:
            newest.setdefault(_night(each), each)
    if not newest:
        raise InvalidError(
            f"{store.address}: no run was compared with a reference yet; run the job with "
            "drift.reference on some nights first"
        )
    return sorted(newest.values(), key=lambda each: (_name(each), each.started))


def _is_of(manifest: Manifest, slice_: str) -> bool:
    return manifest.slice.partition(",")[0] == slice_.partition(",")[0]


def _night(manifest: Manifest) -> str:
    """Returns what tells nights apart: the slice; of a job without a date, the run."""
    return manifest.slice if slice_date(manifest.slice) else manifest.run


def _name(manifest: Manifest) -> str:
    params = " ".join(str(value) for value in manifest.params.values())
    return one_line(params, 60) if slice_date(manifest.slice) else one_line(manifest.run, 60)


def _rules(newest: Manifest, given: Given | None) -> Rules:
    """Returns the newest night's rules, with thresholds that are tried."""
    from batchscore.drift.thresholds import check_rules

    counted = [e for e in (newest.drift or {})["comparisons"] if is_counted(e)]
    rules = rules_from_json((counted or (newest.drift or {})["comparisons"])[0]["rules"])
    tried = {name: Thresholds(*each) for name, each in (given or {}).items()}
    rules = replace(rules, thresholds={**rules.thresholds, **tried})
    try:
        check_rules(rules)
    except ValueError as error:
        raise InvalidError(str(error)) from error
    return rules


def _compared(store: Store, manifest: Manifest, today: Rules) -> Iterator[TableDrift]:
    # SciPy takes a second to import: only who compares needs it.
    from batchscore.drift.compare import compare_profiles

    for facts in filter(is_counted, (manifest.drift or {})["comparisons"]):
        reference = Reference.from_json(facts)
        before = read_reference(reference.files)
        where = new_rows_profile if facts["rows"] == "new" else own_profile
        own = rules_from_json(facts["rules"])
        rules = replace(own, thresholds=today.thresholds, column_thresholds=today.column_thresholds)
        yield compare_profiles(before, read_profile(where(store, manifest.run)), rules)


def _broken(found: Sequence[TableDrift]) -> str:
    """Returns why a night fails whatever the thresholds are; else nothing."""
    for aspect in (a for each in found for a in each.aspects if a.judged):
        if aspect.verdict == "fail" and not any(m.outcome == "fail" for m in aspect.measures):
            return f"{one_line(aspect.column, 40)} {one_line(aspect.note, 120)}"
    return ""
