"""What the page tells of each column: its row in the list, and the figures behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.sentences import Sentences, changes
from batchscore.messages.wording import counted, of_count, one_line
from batchscore.report.bins import category_plot, number_plot
from batchscore.report.formats import (
    VERDICT_SIGNS,
    figure,
    long_name,
    rounded,
    shown_name,
)
from batchscore.report.labels import MOST_DIGITS, number_labels, shortened

if TYPE_CHECKING:
    from batchscore.drift.accumulator import Accumulator
    from batchscore.drift.categories import Categories
    from batchscore.drift.column import ColumnProfile
    from batchscore.drift.findings import AspectDrift, Measure, TableDrift
    from batchscore.drift.numbers import Numbers
    from batchscore.drift.table import TableProfile

ASPECTS = 12
_GONE = "the reference has this column, the current data do not"
_ADDED = "the reference has no such column"
_WORST_FIRST = tuple(VERDICT_SIGNS)
_LEFT_OUT = ("n", "top")
_ORDER = ("min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max", "mean", "sigma")
_PLACES = frozenset(_ORDER) - {"mean", "sigma"}
_DIGITS = 8  # of figures that are computed, where more would only show rounding
_NOTE = 400
_TEXT = 80


@dataclass(frozen=True)
class Compared:
    """One comparison: with the chosen reference, or with the anchor.

    Args:
        title: Heads the comparison, such as `reference: model flight_delays 1.0.0`.
        reference: Its profile.
        current: The profile that is reported; the same one in each comparison of a page.
        drift: The result of their comparison.
        about: Names both sides; the page's title where it is of no run.
        counts: Whether its verdict is part of the run's.
        name: Name of the reference in a sentence, such as `model flight_delays 1.0.0`.
    """

    title: str
    reference: TableProfile
    current: TableProfile
    drift: TableDrift
    about: str = ""
    counts: bool = True
    name: str = "the reference"


@dataclass(frozen=True)
class Row:
    """A column in the list.

    Args:
        name: Name as its profile has it.
        shown: The name on one line, cut.
        full: More of a name that was cut.
        type: The Arrow type's name.
        verdict: One of `VERDICT_SIGNS`.
        reason: The worst measure in words; empty where nothing was compared.
    """

    name: str
    shown: str
    full: str
    type: str
    verdict: str
    reason: str


Findings = Mapping[str, Sequence[tuple[int, "AspectDrift"]]]
"""The findings of each column, each with the number of its comparison."""


def findings_of(compared: Sequence[Compared]) -> Findings:
    """Returns the findings of all comparisons by column, in the order in which they come."""
    found: dict[str, list[tuple[int, AspectDrift]]] = {}
    for number, each in enumerate(compared):
        for aspect in each.drift.aspects:
            found.setdefault(aspect.column, []).append((number, aspect))
    return found


def list_rows(compared: Sequence[Compared], profile: TableProfile, findings: Findings) -> list[Row]:
    """Returns a row for each column of the profile, and for those that are gone, worst first."""
    names = dict.fromkeys([*findings, *sorted(profile.columns)])
    absences = {name: _ADDED for each in compared for name in each.drift.added}
    absences |= {name: _GONE for each in compared for name in each.drift.gone}
    wording = [changes(each.drift, each.reference, each.current, each.name) for each in compared]
    rows = [
        _row(
            name,
            [
                (aspect, _sentence(wording[number], aspect))
                for number, aspect in findings.get(name, ())
            ],
            _columns(name, compared, profile),
            absences.get(name, ""),
        )
        for name in dict.fromkeys([*names, *sorted(absences)])
    ]
    # The comparisons have their aspects worst first; the sort leaves equals in that order.
    return sorted(rows, key=lambda row: _WORST_FIRST.index(row.verdict))


def details(
    name: str,
    compared: Sequence[Compared],
    profile: TableProfile,
    found: Sequence[tuple[int, AspectDrift]],
) -> dict[str, Any]:
    """Returns what the page shows of a column that is opened, for its template.

    Args:
        name: The column's name.
        compared: All comparisons.
        profile: The profile that is reported.
        found: The column's findings, of `findings_of`.
    """
    current = profile.columns.get(name)
    references = [each.reference.columns.get(name) for each in compared]
    aspects = _ordered_aspects(found, [current, *references])
    shown = [
        _aspect(aspect, current, references, [d for d in found if d[1].aspect == aspect])
        for aspect in aspects[:ASPECTS]
    ]
    rows = [_rows_of(column) for column in (current, *references)]
    facts: dict[str, Any] = {"rows": rows, "aspects": shown}
    if len(aspects) > ASPECTS:
        facts["more"] = len(aspects) - ASPECTS
    return facts


def reason(measure: Measure) -> str:
    """Returns a measure that does not alarm in words: its effect, and the noise."""
    words = f"{MEASURES[measure.name].label} {figure(measure.value)}"
    if measure.outcome == "undecided":
        words += ", which noise alone may reach"
    return words + (f" ({one_line(measure.detail)})" if measure.detail else "")


def _columns(name: str, compared: Iterable[Compared], profile: TableProfile) -> list[ColumnProfile]:
    profiles = [profile, *(each.reference for each in compared)]
    return [each.columns[name] for each in profiles if name in each.columns]


def _sentence(wording: Sentences, aspect: AspectDrift) -> str:
    """Returns what changed, after the aspect's name unless the row has named it already."""
    said = wording.get((aspect.column, aspect.aspect), "")
    named = aspect.aspect == "value" or not said
    return said if named else f"{one_line(aspect.aspect, 24)}: {said}"


def _row(
    name: str,
    found: Sequence[tuple[AspectDrift, str]],
    columns: Sequence[ColumnProfile],
    absence: str,
) -> Row:
    judged = [each for each in found if each[0].judged]
    worst = min(judged, key=lambda each: _WORST_FIRST.index(each[0].verdict), default=None)
    if worst is not None:
        verdict, why = str(worst[0].verdict), worst[1] or _why(worst[0])
    elif found:
        verdict, why = "none", "the rules leave this column out"
    else:
        verdict, why = "fail" if absence == _GONE else "none", absence or _missing(columns[0])
    type_ = one_line(columns[0].type, 40) if columns else ""
    return Row(name, shown_name(name), long_name(name), type_, verdict, why)


def _missing(column: ColumnProfile) -> str:
    share = column.nulls / max(column.count, 1)
    verb = of_count(column.count, "is", "are")
    return f"{share:.2%} of {counted(column.count, 'row')} {verb} null" if share else "no nulls"


def _why(aspect: AspectDrift) -> str:
    measure = next((each for each in aspect.measures if each.outcome != "shown"), None)
    words = one_line(aspect.note, 120) if measure is None else reason(measure)
    return words if aspect.aspect == "value" else f"{one_line(aspect.aspect, 24)}: {words}"


def _ordered_aspects(
    found: Sequence[tuple[int, AspectDrift]], columns: Sequence[ColumnProfile | None]
) -> list[str]:
    """Returns the aspects of a column: the compared ones worst first, then the others."""
    worst = sorted(found, key=lambda each: _WORST_FIRST.index(each[1].verdict))
    others = [aspect for column in columns if column for aspect in column.aspects]
    return list(dict.fromkeys([*(each.aspect for _, each in worst), *others]))


def _aspect(
    name: str,
    current: ColumnProfile | None,
    references: Sequence[ColumnProfile | None],
    found: Sequence[tuple[int, AspectDrift]],
) -> dict[str, Any]:
    mine, *others = (c.aspects.get(name) if c else None for c in (current, *references))
    facts: dict[str, Any] = {"name": one_line(name, 40)}
    facts["statistics"] = _statistics([mine, *others])
    if not others:
        facts["plots"] = [_plot(None, mine)]
    else:
        facts["plots"] = [_plot(other, mine) for other in others]
    facts["found"] = [_finding(number, each) for number, each in found]
    return facts


def _plot(reference: Accumulator | None, current: Accumulator | None) -> dict[str, Any] | None:
    kinds = {each.kind for each in (reference, current) if each is not None}
    if kinds == {"numbers"}:
        return number_plot(cast("Numbers | None", reference), cast("Numbers | None", current))
    if kinds == {"categories"}:
        return category_plot(
            cast("Categories | None", reference), cast("Categories | None", current)
        )
    return None


def _statistics(sides: Sequence[Accumulator | None]) -> list[list[Any]]:
    """Returns lines of a name and each side's label; lines without any figure are left out."""
    figures = [{} if side is None else _plain_figures(side.summary()) for side in sides]
    known = dict.fromkeys(name for side in figures for name in side)
    names = [
        *(name for name in _ORDER if name in known),
        *(name for name in known if name not in _ORDER),
    ]
    lines = {name: [side.get(name) for side in figures] for name in names}
    lines = {name: line for name, line in lines.items() if any(v not in (None, 0) for v in line)}
    places = [name for name in lines if name in _PLACES]
    labels = iter(_labels([value for name in places for value in lines[name]], MOST_DIGITS))
    labelled = {name: [next(labels) for _ in figures] for name in places}
    return [[name, *(labelled.get(name) or _labels(line, _DIGITS))] for name, line in lines.items()]


def _labels(values: Sequence[Any], most: int) -> list[str | None]:
    """Returns the labels of numbers and texts; None where there is no finite number."""
    finite = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    texts = [one_line(value, _NOTE) for value in values if isinstance(value, str)]
    labels = dict(zip(finite, number_labels(finite, most=most), strict=True))
    named = dict(zip(texts, shortened(texts, _TEXT), strict=True))
    return [
        named[one_line(value, _NOTE)] if isinstance(value, str) else labels.get(value)
        for value in values
    ]


def _plain_figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    known = summary.get("distinct") is not None
    left_out = (*_LEFT_OUT, *(("distinct_estimate",) if known else ()))
    return {
        name: value
        for name, value in summary.items()
        if name not in left_out and isinstance(value, int | float | str)
    }


def _finding(number: int, aspect: AspectDrift) -> dict[str, Any]:
    facts: dict[str, Any] = {"with": number, "verdict": aspect.verdict}
    facts["measures"] = [_measure(each) for each in aspect.measures]
    facts |= {"note": one_line(aspect.note, _NOTE)} if aspect.note else {}
    return facts if aspect.judged else {**facts, "judged": False}


def _measure(measure: Measure) -> dict[str, Any]:
    """Returns a measure's fields, rounded, with what it is called and what it is."""
    fields = {
        name: one_line(value) if isinstance(value, str) else _short(value)
        for name, value in measure.to_json().items()
    }
    spec = MEASURES[measure.name]
    return {**fields, "label": spec.label, "meaning": spec.meaning}


def _short(value: float | bool | None) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    short: float | None = rounded(value, 4)
    return short


def _rows_of(column: ColumnProfile | None) -> list[int] | None:
    return None if column is None else [column.count, column.nulls]
