"""The drift gate: a run's profile compared with its references, and what its manifest keeps."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from batchscore.drift.findings import VERDICTS, AspectDrift, Measure, Rules, TableDrift, Thresholds
from batchscore.drift.sentences import Sentences, sentences
from batchscore.drift.sentences import aspect_name as name_of
from batchscore.drift.table import TableProfile
from batchscore.finish.drift_policy import Policy, learning_line, muted_facts, muted_line
from batchscore.job import Drift
from batchscore.messages.wording import one_line
from batchscore.runs.checks import Check
from batchscore.runs.profiles import ProfileFile, Reference, read_reference
from batchscore.stages.reasons import REASONS
from batchscore.worker.spec import RunSpec

_SHOWN = 5


def import_comparison() -> None:
    """Imports what a comparison needs; it would be imported at the end of a run."""
    from batchscore.drift import compare, special  # noqa: F401

    special.functions()


def judge_drift(
    spec: RunSpec,
    references: Sequence[Reference],
    profile: TableProfile,
    new: TableProfile | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    nights: Callable[[], Sequence[TableProfile]] = tuple,
) -> tuple[dict[str, Any], list[Check]]:
    """Compares a run's profile with each reference; returns what the manifest keeps, and the check.

    Without a reference, or without rows, there is no check. A reference whose `on_fail` is `off`
    is compared, and neither its verdict nor its number of tests counts.

    Args:
        profile: Profile of all rows of the slice.
        new: Profile of those that the run adds to what is published, where there are others: among
            many old rows theirs would not show.
        policy: What of it counts on the run's day.
        nights: Reads the profiles of earlier nights, the oldest first; asked only if a comparison
            alarms.

    Raises:
        RecordError: The profile of a reference is missing or damaged.
    """
    if not references or not profile.rows:
        why = "no rows" if references else "no reference yet (drift.reference)"
        return {"verdict": None, "why": why, "comparisons": []}, []
    sides = _sides(references, profile, new)
    share = max(1, sum(reference.on_fail != "off" for reference, *_ in sides))
    comparisons = [_compared(spec, *side, share, policy, nights) for side in sides]
    counted = [each for each in comparisons if is_counted(each)]
    if not counted:
        why = "every reference is off (drift.reference: on_fail)"
        return {"verdict": None, "why": why, "comparisons": comparisons}, []
    verdict = max((each["verdict"] for each in counted), key=VERDICTS.index)
    learning = [learning_line(policy.night)] if policy.is_learning else []
    detail = " | ".join([*map(describe, counted), *learning])
    failed = [each for each in counted if each["verdict"] == "fail"]
    holding = [each for each in failed if each.get("on_fail", spec.scoring.drift.on_fail) == "hold"]
    check = Check("drift", policy.is_learning or not holding, detail, "held")
    facts = {"learning": policy.night} if learning else {}
    return {"verdict": verdict, "comparisons": comparisons, **facts}, [check]


def is_counted(comparison: Mapping[str, Any]) -> bool:
    """Tells whether a comparison, as a manifest keeps it, may hold or warn."""
    return comparison.get("on_fail") != "off"


def _sides(
    references: Sequence[Reference], profile: TableProfile, new: TableProfile | None
) -> list[tuple[Reference, str, TableProfile]]:
    """Returns what is compared with what: all rows, and the new ones where there are others.

    With rows that are among all, only the new ones are compared.
    """
    if new is None or not new.rows:
        return [(each, "all", profile) for each in references]
    sides = [(each, "new", new) for each in references]
    return sides + [(each, "all", profile) for each in references if not each.own]


def _compared(
    spec: RunSpec,
    reference: Reference,
    which: str,
    profile: TableProfile,
    comparisons: int,
    policy: Policy,
    nights: Callable[[], Sequence[TableProfile]],
) -> dict[str, Any]:
    # SciPy takes a second to import: only who compares needs it.
    from batchscore.drift.compare import compare_profiles

    before = read_reference([_here(spec, file) for file in reference.files])
    unjudged = _unjudged(spec, before, profile)
    columns = _wanted(spec, profile) - set(unjudged) - policy.columns
    rules = drift_rules(spec.scoring.drift, tuple(columns), comparisons)
    drift = compare_profiles(before, profile, rules)
    rules = _among_nights(rules, drift, before.rows / max(1, profile.rows), nights)
    usual = quieted(drift, rules.nights)
    drift = compare_profiles(before, profile, rules) if usual else drift
    if not drift.comparisons:
        drift = replace(drift, verdict="insufficient_data")
    facts: dict[str, Any] = {"rows": which, "rules": rules_to_json(rules), "unjudged": unjudged}
    muted = muted_facts(policy, drift)
    facts |= {"muted": muted} if muted else {}
    facts |= {"usual": usual} if usual else {}
    wording = sentences(drift, before, profile, reference.name)
    return {**reference.to_json(), **facts, **summarize(drift, wording)}


def _among_nights(
    rules: Rules,
    drift: TableDrift,
    in_reference: float,
    nights: Callable[[], Sequence[TableProfile]],
) -> Rules:
    """Returns rules that know by how much earlier nights differ in what alarms."""
    from batchscore.drift.between_nights import alarming, between_nights

    keys = alarming(drift)
    if not keys:
        return rules
    return replace(rules, nights=between_nights(nights(), keys, in_reference))


def quieted(
    drift: TableDrift, nights: Mapping[tuple[str, str, str], float]
) -> list[dict[str, Any]]:
    """Returns what alarmed, and does not since earlier nights differ by as much."""
    found = []
    for aspect in drift.aspects:
        for measure in aspect.measures:
            between = nights.get((aspect.column, aspect.aspect, measure.name))
            effect = measure.value if measure.low is None else measure.low
            if between is not None and effect is not None and effect < between:
                names = {"column": aspect.column, "aspect": aspect.aspect, "measure": measure.name}
                found.append({**names, "effect": effect, "nights_differ_by": between})
    return found


def usual_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Returns a line for each measure that earlier nights kept from alarming, the first few."""
    lines = [
        f"{name_of(each['column'], each['aspect'])}: {each['measure']} {each['effect']:.3g} does "
        f"not count, since earlier nights differ by up to {each['nights_differ_by']:.3g}"
        for each in comparison.get("usual", ())
    ]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return lines[:_SHOWN] + more


def _here(spec: RunSpec, file: ProfileFile) -> ProfileFile:
    """Returns where a profile lies for this machine, which may have a copy of the launcher's."""
    copy = spec.profiles.get(posixpath.join(file.folder, file.name))
    return file if copy is None else ProfileFile(*posixpath.split(copy))


def _wanted(spec: RunSpec, profile: TableProfile) -> set[str]:
    """Returns the columns that count: the job's, else what the model reads, and the scores.

    Scores are the columns that do not come from the input; reasons only tell of scores.
    """
    if spec.scoring.drift.columns is not None:
        return set(spec.scoring.drift.columns)
    scores = set(profile.columns) - set(spec.scoring.seen_schema.names)
    if spec.scoring.reasons is not None:
        scores.discard(REASONS)
    return scores.union(spec.scoring.model_columns)


def _unjudged(spec: RunSpec, reference: TableProfile, profile: TableProfile) -> dict[str, str]:
    """Returns the columns that count and cannot be compared with this reference, and why."""
    found = {}
    for name in sorted(_wanted(spec, profile)):
        before, now = reference.columns.get(name), profile.columns.get(name)
        if before is None:
            found[name] = "not in the reference"
        elif now is not None and {before.kind, now.kind} == {"number", "probability"}:
            found[name] = f"profiled as {before.kind} there and {now.kind} here (--probability)"
    return found


def drift_rules(drift: Drift, columns: Sequence[str] | None, references: int = 1) -> Rules:
    """Returns a job's drift section as rules for these columns; references share alpha evenly."""
    return Rules(
        alpha=drift.alpha / references,
        columns=None if columns is None else frozenset(columns),
        thresholds=_thresholds(drift.thresholds),
        column_thresholds={k: _thresholds(v) for k, v in drift.column_thresholds.items()},
    )


def _thresholds(
    given: Mapping[str, Sequence[float | None]],
) -> dict[str, Thresholds]:
    return {measure: Thresholds(*effects) for measure, effects in given.items()}


def rules_to_json(rules: Rules) -> dict[str, Any]:
    """Returns rules as JSON-able values, for a manifest: what it says can be computed again."""
    of_columns = rules.column_thresholds.items()
    nights = [[*key, between] for key, between in sorted(rules.nights.items())]
    return {
        "alpha": rules.alpha,
        "columns": None if rules.columns is None else sorted(rules.columns),
        "thresholds": _effects(rules.thresholds),
        "column_thresholds": {column: _effects(each) for column, each in of_columns},
        **({"nights": nights} if nights else {}),
    }


def rules_from_json(facts: Mapping[str, Any]) -> Rules:
    """Reverses `rules_to_json`."""
    columns, of_columns = facts["columns"], facts["column_thresholds"].items()
    return Rules(
        alpha=facts["alpha"],
        columns=None if columns is None else frozenset(columns),
        thresholds=_thresholds(facts["thresholds"]),
        column_thresholds={column: _thresholds(each) for column, each in of_columns},
        nights={(c, a, m): float(between) for c, a, m, between in facts.get("nights", ())},
    )


def _effects(thresholds: Mapping[str, Thresholds]) -> dict[str, list[float | None]]:
    return {measure: [each.warn, each.fail] for measure, each in thresholds.items()}


def summarize(drift: TableDrift, wording: Sentences = MappingProxyType({})) -> dict[str, Any]:
    """Returns what a manifest keeps: of each aspect the measures that take part.

    Args:
        wording: Sentences about aspects that warn or fail.
    """
    return {
        "verdict": drift.verdict,
        "alpha": drift.alpha,
        "tests": drift.comparisons,
        "reference_rows": drift.reference_rows,
        "current_rows": drift.current_rows,
        "gone": list(drift.gone),
        "added": list(drift.added),
        "aspects": [_aspect(each, wording) for each in drift.aspects],
    }


def _aspect(each: AspectDrift, wording: Sentences) -> dict[str, Any]:
    head: dict[str, Any] = {"column": each.column, "aspect": each.aspect, "verdict": each.verdict}
    texts = {
        "note": each.note,
        "cause": each.cause,
        "sentence": wording.get((each.column, each.aspect), ""),
    }
    head |= {"judged": each.judged, **{name: text for name, text in texts.items() if text}}
    taking_part = [_measure(m) for m in each.measures if m.outcome != "shown"]
    return {**head, "measures": taking_part}


def _measure(measure: Measure) -> dict[str, Any]:
    figures = {name: getattr(measure, name) for name in ("value", "low", "high", "floor")}
    limits = {"warn": measure.warn, "fail": measure.fail}
    rounded = {k: float(f"{v:.6g}") for k, v in {**figures, **limits}.items() if v is not None}
    detail = {"detail": measure.detail} if measure.detail else {}
    return {"name": measure.name, "outcome": measure.outcome, **rounded, **detail}


def describe(comparison: Mapping[str, Any]) -> str:
    """Returns a comparison, as a manifest keeps it, in one line: verdict, and the worst columns.

    Each column that warns or fails has a sentence.
    """
    judged = [each for each in comparison["aspects"] if each["judged"]]
    bad = [each for each in judged if each["verdict"] in ("warn", "fail")]
    tally = Counter(each["verdict"] for each in judged)
    counts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in VERDICTS if tally[verdict])
    worst = ". ".join(map(sentence, bad[:_SHOWN]))
    more = f". And {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    listed = f": {worst}{more}" if bad else ""
    rows = "new rows " if comparison.get("rows") == "new" else ""
    policy = f", on_fail {comparison['on_fail']}" if "on_fail" in comparison else ""
    head = f"{comparison['verdict']} {rows}against {comparison['title']}{policy}"
    return f"{head} ({counts or 'nothing judged'}){listed}{_left_out(comparison)}"


def _left_out(comparison: Mapping[str, Any]) -> str:
    unjudged = [f"{one_line(k, 40)} ({why})" for k, why in comparison.get("unjudged", {}).items()]
    gone = [f"{one_line(name, 40)} (gone)" for name in comparison.get("gone", ())]
    names = [*unjudged, *gone]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    said = f"; not judged: {', '.join(names[:_SHOWN])}{more}" if names else ""
    muted = muted_line(comparison.get("muted", ()))
    return f"{said}; muted: {muted}" if muted else said


def aspect_name(each: Mapping[str, Any]) -> str:
    """Returns what people call an aspect: its column, and the aspect if not the value."""
    return name_of(each["column"], each["aspect"])


def sentence(each: Mapping[str, Any]) -> str:
    """Returns the sentence about an aspect; manifests of earlier versions have none."""
    return one_line(each.get("sentence") or f"{aspect_name(each)}: {_reason(each)}", 300)


def _reason(each: Mapping[str, Any]) -> str:
    """Returns by which measure, and by how much, an aspect came to its verdict."""
    measure = next((m for m in each["measures"] if m["outcome"] == each["verdict"]), None)
    if measure is None or "value" not in measure:
        return str(each.get("note") or each["verdict"])
    limit = measure.get(each["verdict"])
    # A category that became three times as frequent warns below the threshold.
    over = "" if limit is None or measure["value"] < limit else f" over {limit:g}"
    about = f" ({one_line(measure['detail'], 60)})" if "detail" in measure else ""
    return f"{measure['name']} {measure['value']:.3g}{over}{about}"
