"""What is under way in outputs, and the last run of each job, as lines of text for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from batchscore.cli.render.results import table
from batchscore.cli.render.times import duration, rate
from batchscore.commands.overview import Overview
from batchscore.messages.wording import count, one_line
from batchscore.runs.lateness import Late, hours
from batchscore.runs.series import Series
from batchscore.runs.underway import Activity, Undecided

_HEADER = (
    *("run", "state", "slice", "engine", "by", "since"),
    *("heartbeat", "workers", "rows", "of", "speed", "left"),
)
_LOST = (
    "nobody works on it any more: its process was killed, or lost with its machine; run the job "
    "again, which resumes what it finished"
)
_LOST_JOB = (
    "nobody works on it any more: engine {} has ended its job, or lost it; `batchscore wait` says "
    "why and closes the run, or run the job again, which resumes what it finished"
)


_SHOWN = 10
_FIRST = ("held", "failed", "interrupted")
_JOBS = ("job", "last run", "status", "age", "drift", "newest published", "published")
_JOB_FIGURES = ("rows", "scored", "rejected", "took")


def overview(found: Overview, late: Sequence[Late]) -> list[str]:
    """Returns a line for each job, what is under way, and what waits for a person.

    Args:
        found: The outputs.
        late: Jobs whose newest slice is too old, or did not come.
    """
    several = found.is_folder
    lines = [_late(each, several) for each in late]
    lines += [
        f"UNREADABLE  {one_line(where, 300)}: {why}" for where, why in found.unreadable if not late
    ]
    if found.jobs:
        header = (*(("output",) if several else ()), *_JOBS, *_JOB_FIGURES)
        rows = [_job_row(each, several) for each in found.jobs]
        lines += [*table(header, rows, left=len(header) - len(_JOB_FIGURES)), ""]
    lines += status([each for _, each in found.under_way])
    named = [(output if several else "", each) for output, each in found.undecided]
    return [*lines, *waiting(named)]


def waiting(found: Sequence[tuple[str, Undecided]]) -> Iterator[str]:
    """Yields a line for each slice that waits for a person; of many alike, the first ones.

    Args:
        found: Slices whose last run published nothing, or whose documents are damaged, each with
            its output if there are several outputs.
    """
    by_status = defaultdict[str, list[str]](list)
    for output, each in found:
        by_status[each.status].append(
            f"{_undecided(each)}{f'   in {one_line(output, 300)}' if output else ''}"
        )
    for status_, lines in sorted(by_status.items(), key=lambda pair: _place(pair[0])):
        yield from lines[:_SHOWN]
        if len(lines) > _SHOWN:
            yield f"{status_.upper()}  {len(lines) - _SHOWN:,} more; --json lists all"


def _place(status: str) -> int:
    return _FIRST.index(status) if status in _FIRST else len(_FIRST)


def _late(found: Late, several: bool) -> str:
    where = f" in {one_line(found.output, 300)}" if several else ""
    return f"LATE  {one_line(found.job, 160)}{where}: {found.why}"


def _job_row(job: Series, several: bool) -> list[str]:
    last, newest = job.last, job.newest
    where = [one_line(job.output.rstrip("/").rpartition("/")[2], 48)] if several else []
    head = [last.run, one_line(last.status, 16), hours(last.age_s)] if last else ["-"] * 3
    name = newest.dates or newest.run if newest else "-"
    published = f"{hours(newest.age_s)} ago" if newest else "-"
    verdict = (last.verdict if last else None) or "-"
    figures = [last.rows, last.scored, last.rejected] if last else [None] * 3
    took = duration(last.seconds) if last and last.seconds is not None else "-"
    counts = ["-" if each is None else count(each) for each in figures]
    return [*where, one_line(job.job, 48), *head, verdict, name, published, *counts, took]


def status(activities: Sequence[Activity]) -> list[str]:
    """Returns a line for each slice that somebody works on, and what is odd about it."""
    shown = table(_HEADER, [_row(each) for each in activities], left=6)
    lines = shown if activities else ["nothing is under way"]
    return [*lines, *(note for each in activities for note in _notes(each))]


def _row(activity: Activity) -> list[str]:
    total, speed, left = activity.total, activity.rows_per_s, activity.left_s
    return [
        activity.run or "-",
        activity.state,
        one_line(activity.slice, 48),
        activity.engine or "-",
        one_line(f"{activity.by}:{activity.pid}", 32),
        activity.since[:19],
        f"{duration(activity.heartbeat_s)} ago",
        str(activity.workers),
        count(activity.rows),
        "-" if total is None else count(total),
        "-" if speed is None else rate(speed, 1.0),
        "-" if left is None else duration(left),
    ]


def _notes(activity: Activity) -> Iterator[str]:
    name = f"run {activity.run}" if activity.run else f"`{activity.command}`"
    if activity.job:
        where = f" at {activity.address}" if activity.address else ""
        left = ", and no launcher watches it" if activity.detached else ""
        yield f"{name}: {activity.engine} job {activity.job}{where}{left}"
    if activity.state == "lost":
        lost = _LOST_JOB.format(activity.engine) if activity.job else _LOST
        yield f"LOST  {name} of slice {one_line(activity.slice)}: {lost}"
    for each in activity.stalled:
        yield f"STALLED  {name}: {each}"
    if activity.problem:
        yield f"DAMAGED  {name}: {one_line(activity.problem, 400)}"


def _undecided(found: Undecided) -> str:
    if not found.run:
        return f"{found.status.upper()}  {one_line(found.why, 400)}"
    at = f" at {found.finished[:19]}" if found.finished else ""
    decide = "; release or discard it" if found.status == "held" else ""
    return (
        f"{found.status.upper()}  run {found.run} of slice {one_line(found.slice)}{at}: "
        f"{one_line(found.why, 300)}{decide}"
    )
