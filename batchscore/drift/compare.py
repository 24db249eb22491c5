"""Two profiles of a table are compared: how each column changed, and whether that is drift."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from batchscore.drift.aspects import (
    compare_aspects,
    has_few_values,
    lacks_values,
    type_note,
    unlike,
    unseen_note,
)
from batchscore.drift.causes.cause import LikelyCause
from batchscore.drift.causes.of_column import find_cause
from batchscore.drift.column import ColumnProfile
from batchscore.drift.findings import (
    NO_THRESHOLDS,
    VERDICTS,
    AspectDrift,
    Measure,
    Rules,
    TableDrift,
    Thresholds,
    Verdict,
)
from batchscore.drift.identifiers import identifier_note
from batchscore.drift.measures.all_measures import MEASURES, differences
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.measures.of_nulls import NullSides
from batchscore.drift.numbers import Numbers
from batchscore.drift.table import TableProfile
from batchscore.drift.thresholds import ITEMS, check_rules, moves_by_design, thresholds_for
from batchscore.drift.verdict import (
    judge,
    severity,
    takes_part,
    verdict_of,
    worst_first,
)

_ALARMS = ("warn", "fail")
# The first of these that a column has represents it, and carries its null rate.
_MAIN = ("value", "length", "norm", "argmax")
_MOVES = "dates move by design, so only the null rate is judged"
_CLOCK = "times move by design, so only the null rate and the hour of day are judged"
_DEPEND = "items of one list depend on each other, so only thresholds of the column judge them"
_FEW = "the values are few and are judged, so their lengths are not"
_NULLS = "a column of type null has no values, so only the null rate is compared"


@dataclass(frozen=True)
class _Pair:
    """One aspect of a column on both sides, measured but not judged."""

    column: str
    aspect: str
    kind: str
    type: str
    comparisons: tuple[Difference, ...] = ()
    note: str = ""
    verdict: Verdict | None = None


def compare_profiles(
    reference: TableProfile, current: TableProfile, rules: Rules, with_causes: bool = True
) -> TableDrift:
    """Returns how `current` differs from `reference`, with a verdict.

    All tests of the judged columns share `rules.alpha` evenly. A column that is gone fails. So does
    one that cannot be compared since its type changed. One that was added is only listed.

    Args:
        reference: The profile to compare with.
        current: The profile that is judged.
        rules: How it is judged.
        with_causes: Whether to look for what lies behind findings that alarm.

    Raises:
        ValueError: The rules name an unknown measure or impossible thresholds.
    """
    check_rules(rules)
    pairs = [
        pair
        for name in _names(reference, current, rules)
        for pair in _pairs(name, reference, current, rules)
    ]
    tests = sum(_tests(pair, rules) for pair in pairs if _is_judged(pair.column, rules))
    judged = [_judged(pair, rules, tests) for pair in pairs]
    found = _with_causes(judged, reference, current) if with_causes else judged
    aspects = sorted(found, key=_worst_first)
    return TableDrift(
        verdict=max((each.verdict for each in aspects if each.judged), key=_rank, default="ok"),
        alpha=rules.alpha,
        comparisons=tests,
        reference_rows=reference.rows,
        current_rows=current.rows,
        aspects=tuple(aspects),
        gone=_missing(reference, current),
        added=_missing(current, reference),
    )


def _names(reference: TableProfile, current: TableProfile, rules: Rules) -> list[str]:
    """Returns the columns to compare: of the reference, and others that the rules name."""
    return sorted({*reference.columns, *(rules.columns or ()), *_of_empty(reference, current)})


def _of_empty(reference: TableProfile, current: TableProfile) -> Iterable[str]:
    return () if reference.rows else current.columns


def _missing(there: TableProfile, here: TableProfile) -> tuple[str, ...]:
    """Returns the columns of one side that the other has not, though it has rows."""
    return tuple(sorted(there.columns.keys() - here.columns.keys())) if here.rows else ()


def _pairs(
    name: str, reference: TableProfile, current: TableProfile, rules: Rules
) -> Iterator[_Pair]:
    before, now = reference.columns.get(name), current.columns.get(name)
    if before is not None and now is not None:
        yield from _both(name, before, now, rules)
        return
    there = before or now
    type_, kind = (there.type, _kind(there)) if there else ("", "nulls")
    verdict, note = _absence(before, now, reference, current)
    yield _Pair(name, _main(there), kind, type_, note=note, verdict=verdict)


def _absence(
    before: ColumnProfile | None,
    now: ColumnProfile | None,
    reference: TableProfile,
    current: TableProfile,
) -> tuple[Verdict, str]:
    if before is None and now is None:
        return "fail", (
            "is in neither the reference nor the current data; correct its name, or do not judge it"
        )
    if not reference.rows or not current.rows:
        side = "current data" if reference.rows else "reference"
        return "insufficient_data", f"there are no rows in the {side}"
    if now is None:
        return "fail", "is missing: the current data lack this column of the reference"
    return "fail", "is not in the reference; take one that has it, or do not judge it"


def _both(name: str, before: ColumnProfile, now: ColumnProfile, rules: Rules) -> Iterator[_Pair]:
    there = before if before.aspects else now
    main, nulls, types = _main(there), _nulls(before, now), type_note(before.type, now.type)
    of_nulls = _Pair(name, main, _kind(there), now.type, nulls, types)
    why = unlike(before, now)
    if why and lacks_values(before, now):
        yield replace(of_nulls, note=_joined(types, _NULLS))
    elif why and all(_only_nulls(name, each.type, rules) for each in (before, now)):
        yield of_nulls
    elif why:
        yield replace(of_nulls, note=why, verdict="fail")
    elif not before.aspects:
        yield replace(of_nulls, note=_joined(types, unseen_note(before)))
    else:
        for aspect in before.aspects:
            pair = _aspect(of_nulls, aspect, before, now)
            yield pair if _is_ruled(name, rules) else _without_identifiers(pair, before, now)


def _aspect(of_nulls: _Pair, aspect: str, before: ColumnProfile, now: ColumnProfile) -> _Pair:
    """Returns one aspect of both sides; `of_nulls` is of the main one, with only the null rate."""
    comparisons, note = compare_aspects(before.aspects[aspect], now.aspects[aspect])
    if aspect == of_nulls.aspect:
        comparisons = (*of_nulls.comparisons, *comparisons)
        note = _joined(note, unseen_note(before))
    if aspect == "length" and has_few_values(before, now):
        comparisons = tuple(replace(each, aside=True) for each in comparisons)
        note = _joined(note, _FEW)
    kind, note = before.aspects[aspect].kind, _joined(of_nulls.note, note)
    return replace(of_nulls, aspect=aspect, kind=kind, comparisons=comparisons, note=note)


def _without_identifiers(pair: _Pair, before: ColumnProfile, now: ColumnProfile) -> _Pair:
    """Returns a pair with only its null rate, where values are those of an identifier."""
    note = identifier_note(*(each.aspects.get("value") for each in (before, now)))
    if pair.aspect != "value" or not note:
        return pair
    nulls = tuple(each for each in pair.comparisons if MEASURES[each.name].of_nulls)
    return replace(pair, comparisons=nulls, note=_joined(pair.note, note))


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _nulls(before: ColumnProfile, now: ColumnProfile) -> tuple[Difference, ...]:
    missing, missing_now = _without_value(before), _without_value(now)
    return differences(NullSides(missing, before.count, missing_now, now.count))


def _without_value(column: ColumnProfile) -> int:
    """Returns the rows that are null, NaN, or a vector that is not whole."""
    value = column.aspects.get("value")
    return column.nulls + column.spoiled + (value.nan if isinstance(value, Numbers) else 0)


def _main(column: ColumnProfile | None) -> str:
    if column is None:
        return "value"
    aspects = list(column.aspects)
    return next((each for each in (*_MAIN, *aspects) if each in aspects), "nulls")


def _kind(column: ColumnProfile) -> str:
    aspect = column.aspects.get(_main(column))
    return aspect.kind if aspect else "nulls"


def _only_nulls(column: str, type_: str, rules: Rules) -> bool:
    """Returns whether a column is of dates, and no thresholds of its own judge these."""
    return moves_by_design(type_) and not _is_ruled(column, rules)


def _is_ruled(column: str, rules: Rules) -> bool:
    """Returns whether thresholds of its own judge more than a column's null rate."""
    own = rules.column_thresholds.get(column, {})
    return any(each != NO_THRESHOLDS for name, each in own.items() if not MEASURES[name].of_nulls)


def _is_judged(column: str, rules: Rules) -> bool:
    return rules.columns is None or column in rules.columns


def _tests(pair: _Pair, rules: Rules) -> int:
    """Returns how many tests against noise an aspect takes: one for each measure."""
    return len(
        {each.name for each in pair.comparisons if takes_part(each, _thresholds(pair, rules, each))}
    )


def _judged(pair: _Pair, rules: Rules, tests: int) -> AspectDrift:
    alpha = rules.alpha / max(1, tests)
    measures = worst_first(_measures(pair, rules, alpha))
    notes = [pair.note]
    if pair.verdict is None and _only_nulls(pair.column, pair.type, rules):
        is_clock = any(MEASURES[each.name].of_clock for each in pair.comparisons)
        notes.append(_CLOCK if is_clock else _MOVES)
    if pair.aspect == ITEMS and not _is_ruled(pair.column, rules):
        notes.append(_DEPEND)
    return AspectDrift(
        column=pair.column,
        aspect=pair.aspect,
        kind=pair.kind,
        verdict=pair.verdict or verdict_of(measures),
        measures=measures,
        note=_joined(*notes),
        judged=_is_judged(pair.column, rules),
    )


def _with_causes(
    found: Iterable[AspectDrift], reference: TableProfile, current: TableProfile
) -> Iterator[AspectDrift]:
    """Yields findings, those of columns that alarm with what may lie behind them."""
    causes: dict[str, LikelyCause | None] = {}
    for each in found:
        name = each.column
        before, now = reference.columns.get(name), current.columns.get(name)
        if each.verdict in _ALARMS and before and now and name not in causes:
            causes[name] = find_cause(before, now)
        cause = causes.get(name)
        yield replace(each, cause=cause.words) if cause and each.verdict in _ALARMS else each


def _measures(pair: _Pair, rules: Rules, alpha: float) -> list[Measure]:
    groups = [list(each) for _, each in groupby(pair.comparisons, key=lambda each: each.name)]
    return [
        judge(each, _thresholds(pair, rules, each[0]), alpha, _between(pair, rules, each[0]))
        for each in groups
    ]


def _between(pair: _Pair, rules: Rules, found: Difference) -> float:
    return rules.nights.get((pair.column, pair.aspect, found.name), 0.0)


def _thresholds(pair: _Pair, rules: Rules, found: Difference) -> Thresholds:
    return thresholds_for(rules, pair.column, pair.type, pair.aspect, found.name, found.aside)


def _worst_first(drift: AspectDrift) -> tuple[bool, int, float, str, str]:
    # A column that is gone, or cannot be compared, is worse than any distance.
    whole = drift.verdict == "fail" and all(each.outcome != "fail" for each in drift.measures)
    return (
        not drift.judged,
        -_rank(drift.verdict),
        -math.inf if whole else -severity(drift.measures),
        drift.column,
        drift.aspect,
    )


def _rank(verdict: Verdict) -> int:
    return VERDICTS.index(verdict)
