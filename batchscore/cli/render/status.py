"""What is under way in an output, as lines of text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscore.cli.render.results import table
from batchscore.cli.render.times import duration, rate
from batchscore.messages.wording import count, one_line
from batchscore.runs.underway import Activity, Undecided

_HEADER = (
    *("run", "state", "slice", "engine", "by", "since"),
    *("heartbeat", "workers", "rows", "of", "speed", "left"),
)
_LOST = (
    "nobody works on it any more: its process was killed, or lost with its machine; run the job "
    "again, which resumes what it finished"
)


def status(activities: Sequence[Activity], undecided: Sequence[Undecided]) -> list[str]:
    """Returns a line for each slice that somebody works on, and for each that waits for a person.

    Args:
        activities: What is under way.
        undecided: Slices whose last run published nothing, or whose documents are damaged.
    """
    shown = table(_HEADER, [_row(each) for each in activities], left=6)
    lines = shown if activities else ["nothing is under way"]
    notes = [note for each in activities for note in _notes(each)]
    return [*lines, *notes, *map(_undecided, undecided)]


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
        yield f"LOST  {name} of slice {one_line(activity.slice)}: {_LOST}"
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
