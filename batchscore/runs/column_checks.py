"""The checks of columns: what was counted of all units compared with what the job allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from batchscore.job import Checks, ColumnCheck, age_seconds
from batchscore.messages.wording import counted, one_line
from batchscore.runs.checks import Check
from batchscore.units.tallies import Example, Tally

_VALUES = 10
_COUNTS = {
    "training": "which counts as null or as unknown",
    "the model's sample": "which the model scores as training had it, or as unknown",
}
_BILLION = 10**9
_HOUR, _DAY = 3600, 86_400


def check_columns(
    wanted: Sequence[ColumnCheck],
    tallies: Mapping[str, Tally],
    checks: Checks,
    moment: datetime | None = None,
) -> list[Check]:
    """Returns one check for each kind that the job asks for.

    Args:
        wanted: The checks of columns.
        tallies: What each counted of all scored rows, by its key.
        checks: The job's section, which has the allowed ages.
        moment: When the age of the newest value is taken; None where no check is of ages.
    """
    found, wanted = [], _counted(wanted, tallies)
    for kind in dict.fromkeys(each.kind for each in wanted):
        judged = [
            _judged(each, tallies[each.key], checks, moment) for each in wanted if each.kind == kind
        ]
        failed = [text for passed, text in judged if not passed]
        texts = failed or [text for _, text in judged]
        found.append(Check(kind, not failed, "; ".join(texts), "held"))
    return found


def _counted(wanted: Sequence[ColumnCheck], tallies: Mapping[str, Tally]) -> list[ColumnCheck]:
    """Leaves out columns that the job's function never made: it made the model's input itself."""
    return [each for each in wanted if not each.is_made or tallies[each.key].rows]


def _judged(
    check: ColumnCheck, tally: Tally, checks: Checks, moment: datetime | None
) -> tuple[bool, str]:
    """Returns whether a column passes, and why."""
    if check.kind == "fresh":
        assert moment is not None
        return _fresh(check.column, tally, checks.fresh[check.column], moment)
    name = one_line(check.column, 40)
    if check.kind == "unseen":
        return True, _unseen(name, tally, "the model's sample" if check.of_sample else "training")
    null, rows = check.kind == "not_null", counted(tally.rows, "row")
    if not tally.failed:
        return True, f"{name} has {'no null' if null else 'accepted values only'} in {rows}"
    what = "is null" if null else "has a value that is not accepted"
    places = "; ".join(_place(each, null) for each in tally.examples)
    text = f"{name} {what} in {tally.failed:,} of {rows} ({places})"
    return False, text if null else f"{text}; accepted: {_listed(check.values)}"


def _unseen(name: str, tally: Tally, known: str) -> str:
    rows = counted(tally.rows, "row")
    if not tally.failed:
        return f"{name} has no category that {known} lacks in {rows}"
    places = "; ".join(_place(each, False) for each in tally.examples)
    share = f"{tally.failed / tally.rows:.2%}"
    return (
        f"{name} has a category that {known} lacks, {_COUNTS[known]}, in "
        f"{tally.failed:,} of {rows}, {share} ({places})"
    )


def _place(example: Example, null: bool) -> str:
    value = "" if null else f"{one_line(repr(example.value), 64)} in "
    return f"{value}row {example.row:,} of {one_line(example.shard, 200)}"


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(one_line(value, 40) for value in values[:_VALUES])
    return shown + (f" and {len(values) - _VALUES:,} more" if len(values) > _VALUES else "")


def _fresh(column: str, tally: Tally, allowed: str, moment: datetime) -> tuple[bool, str]:
    name = one_line(column, 40)
    if tally.newest is None:
        rows = counted(tally.rows, "row")
        return False, f"{name} has no value in {rows}, so its age is not known"
    at = int(moment.timestamp()) * _BILLION + moment.microsecond * 1000
    age = at - tally.newest
    shown = f"{_span(age)} before" if age >= 0 else f"{_span(-age)} after"
    return age <= age_seconds(allowed) * _BILLION, (
        f"the newest {name} is {instant(tally.newest)}, {shown} {instant(at)}; {allowed} is allowed"
    )


def _span(nanoseconds: int) -> str:
    seconds = nanoseconds / _BILLION
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:,.1f} days"
    return f"{seconds / _HOUR:.1f} h" if seconds >= _HOUR else f"{seconds / 60:.1f} min"


def instant(nanoseconds: int) -> str:
    """Returns an instant in nanoseconds since 1970 as a text, to the second; of any year."""
    return f"{np.datetime64(nanoseconds // _BILLION, 's')}Z"


def columns_to_json(
    wanted: Sequence[ColumnCheck], tallies: Mapping[str, Tally]
) -> list[dict[str, Any]]:
    """Returns what a manifest says of each check of a column: rows, examples, the newest value."""
    return [_to_json(each, tallies[each.key]) for each in _counted(wanted, tallies)]


def _to_json(check: ColumnCheck, tally: Tally) -> dict[str, Any]:
    head = {"check": check.kind, "column": check.column, "rows": tally.rows}
    if check.kind == "fresh":
        return {**head, "newest": None if tally.newest is None else instant(tally.newest)}
    examples = [{"shard": e.shard, "row": e.row, "value": e.value} for e in tally.examples]
    return {**head, "failed": tally.failed, "examples": examples}
