"""What a backfill replaces, and the table that it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from batchscore.commands.backfill import KEPT, Backfilled
from batchscore.commands.date_worker import DateEnd
from batchscore.commands.dates import Replaced
from batchscore.messages.wording import counted, one_line

_REASON = 300
_KINDS = {
    "held": "held",
    "later": "try later",
    "failed": "failed",
}


def replaced(found: Sequence[Replaced]) -> list[str]:
    """Returns a line for each date whose published rows are replaced."""
    if not found:
        return []
    head = f"--rescore replaces what is published of {counted(len(found), 'date')}:"
    lines = [
        f"  {each.date}  run {each.run}  {counted(each.rows, 'row')}  model {each.model}"
        for each in found
    ]
    return [head, *lines]


def table(done: Backfilled, program: str) -> list[str]:
    """Returns the table that a backfill ends with.

    Args:
        done: What it came to.
        program: How this program is started.
    """
    found = done.outcomes
    count = counted(len(found), "date")
    lines = [
        f"BACKFILL {done.job}   {done.over} {found[0].date} to {found[-1].date}: {count} in "
        f"{done.seconds:,.1f} s   {done.status}",
        _published(done),
    ]
    for kind, label in _KINDS.items():
        lines += _each(label, done.of_status(kind))
    left = done.of_status("left")
    if left:
        same = "the same command goes on with these"
        what = f"go on with --from {left[0].date}" if done.rescored else same
        lines.append(f"{'left':<10}{len(left):>6}   {_spans(left)}; {what}")
    if done.for_all is not None:
        why = one_line(done.for_all.reason, 900)
        lines.append(f"{done.for_all.status.upper()}  each date would end so: {why}")
    has_runs = any(each.run for each in found)
    # A folder of outputs has no runs of its own; `status` shows them all.
    what = "runs" if done.output in done.outputs.values() else "status"
    look = f"look   {program} {what} {shlex.quote(done.output)}"
    return [*lines, *([look] if has_runs else [])]


def _published(done: Backfilled) -> str:
    found = done.of_status("published")
    before = sum(each.status == KEPT for each in found)
    earlier = f" ({before:,} of them before)" if before else ""
    rows = sum(each.rows.get("scored", 0) for each in found)
    scored = f"; {counted(rows, 'row')} scored" if rows else ""
    return f"{'published':<10}{len(found):>6}   {_spans(found)}{earlier}{scored}"


def _each(label: str, outcomes: Sequence[DateEnd]) -> Iterator[str]:
    if outcomes:
        yield f"{label:<10}{len(outcomes):>6}   {_spans(outcomes)}"
    for each in outcomes:
        run = f"run {each.run}  " if each.run else ""
        yield f"  {each.date}  {run}{one_line(each.reason, _REASON)}"


def _spans(outcomes: Sequence[DateEnd]) -> str:
    """Returns dates as spans: `2026-01-01 to 2026-01-31, 2026-02-03`."""
    spans: list[list[date]] = []
    for day in (date.fromisoformat(each.date) for each in outcomes):
        if spans and day - spans[-1][-1] == timedelta(days=1):
            spans[-1] = [spans[-1][0], day]
        else:
            spans.append([day, day])
    return ", ".join(_span(first, last) for first, last in spans) or "none"


def _span(first: date, last: date) -> str:
    return first.isoformat() if first == last else f"{first} to {last}"
