"""Which jobs are late: the newest published slice is too old, or the newest did not come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchscore.messages.wording import counted, one_line
from batchscore.runs.series import Series


@dataclass(frozen=True)
class Late:
    """A job of which nothing new enough is published.

    Args:
        output: The output's address.
        job: The job, with those of its parameters that are no dates.
        slice: The slice that is meant: the newest published one, or the one that did not come.
        why: What there is, as a sentence.
    """

    output: str
    job: str
    slice: str
    why: str


def find_late(
    jobs: Sequence[Series],
    max_age_s: float,
    outputs: Sequence[str] = (),
    unreadable: Sequence[tuple[str, str]] = (),
) -> list[Late]:
    """Returns the jobs whose newest published slice is too old, or whose newest did not come.

    Args:
        jobs: The jobs.
        max_age_s: Seconds since its publication that the newest slice of a job may have.
        outputs: All outputs. One of which no job is known is late, since it hides its jobs.
        unreadable: Outputs that could not be read, each with why: these hide their jobs too.
    """
    found = [late for job in jobs if (late := _late(job, max_age_s)) is not None]
    hidden = find_hidden(unreadable)
    known = {*(job.output for job in jobs), *(each.output for each in hidden)}
    return [*found, *hidden, *(_unknown(each) for each in outputs if each not in known)]


def find_hidden(unreadable: Sequence[tuple[str, str]]) -> list[Late]:
    """Returns the jobs of outputs that could not be read, each with why."""
    return [Late(output, "every job", "", why) for output, why in unreadable]


def _unknown(output: str) -> Late:
    why = (
        "nothing tells which jobs it has: no manifest and no plan of a run is there that can be "
        "read; restore its _batchscore folder from a copy, or move the output away"
    )
    return Late(output, "every job", "", why)


def _late(job: Series, max_age_s: float) -> Late | None:
    newest, concern = job.newest, job.concern
    if newest is None:
        slice_ = job.last.slice if job.last else job.job
        return Late(job.output, job.job, slice_, f"nothing is published; {_last_run(job)}")
    what = f"the newest published slice is {one_line(newest.slice, 160)}, of run {newest.run}"
    published = f"{what}, published {hours(newest.age_s)} ago"
    if newest.age_s > max_age_s:
        more = "a little more than " if hours(newest.age_s) == hours(max_age_s) else ""
        published = f"{what}, published {more}{hours(newest.age_s)} ago"
        rest = f"at most {hours(max_age_s)} were expected; {_last_run(job)}"
        return Late(job.output, job.job, newest.slice, f"{published}; {rest}")
    if concern is not None:
        return Late(job.output, job.job, concern.slice, f"{_last_run(job)}; {published}")
    return None


def _last_run(job: Series) -> str:
    """Says what the last run is that could have published something newer."""
    run = job.concern or job.last
    if run is None:
        return "no run is known"
    if job.newest is not None and run.run == job.newest.run:
        return "no run came after it"
    ended = "ended" if run.finished else "started"
    why = f" ({one_line(run.why, 300)})" if run.why else ""
    decide = "; release or discard it" if run.status == "held" else ""
    return (
        f"run {run.run} of slice {one_line(run.slice, 160)}, which {ended} {hours(run.age_s)} ago, "
        f"is {run.status}{why}{decide}"
    )


def hours(seconds: float) -> str:
    """Returns an age as people say it: `40 s`, `12 min`, `26.4 h`, `3.1 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h".replace(".0 h", " h")
    return counted(round(seconds / 86_400), "day")
