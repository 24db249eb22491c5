"""The page of `status --html`: each job with its last runs, as small plots and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import count, counted, one_line
from batchscore.report import formats
from batchscore.report.bar_plots import Plot, Stack, plot
from batchscore.report.formats import VERDICT_SIGNS
from batchscore.runs.lateness import Late, hours
from batchscore.runs.series import RunFacts, Series

RUNS = 31
_LISTED = 10
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_KINDS = {
    **{"held": "warn", "failed": "fail", "killed": "fail"},
    **dict.fromkeys(("interrupted", "discarded", "revoked", "no run"), "unsure"),
}

_DRIFT = {
    **{"ok": "ok", "warn": "warn", "fail": "fail"},
    **dict.fromkeys(("insufficient_data", "insufficient_resolution"), "unsure"),
}


@dataclass(frozen=True)
class JobView:
    """What the page shows of one job.

    Args:
        name: Its name with those parameters that are no dates.
        output: The output's address.
        folder: The output's folder, which tells it from others that were looked at.
        anchor: Names its section.
        last: Its last run; None without any.
        kind: Class of the style sheet of the last run's status.
        newest: Its newest published slice, in words.
        late: Why it is late; empty if it is not.
        runs: The last runs, the newest first.
        plots: What they show over time.
    """

    name: str
    output: str
    folder: str
    anchor: str
    last: RunFacts | None
    kind: str
    newest: str
    late: str
    runs: tuple[RunFacts, ...]
    plots: tuple[Plot, ...]


def make_jobs_page(where: str, jobs: Sequence[Series], late: Sequence[Late] = ()) -> str:
    """Returns a page of HTML that needs no other file, no network and no script.

    Args:
        where: What was looked at, as the user named it.
        jobs: The jobs, in the order in which the page shows them.
        late: Those whose newest slice is too old, or did not come.
    """
    import jinja2

    whys = {(each.output, each.job): each.why for each in late}
    known = {(each.output, each.job) for each in jobs}
    jobs = [*jobs, *(Series(*unknown) for unknown in whys if unknown not in known)]
    views = [_view(each, number, whys) for number, each in enumerate(jobs)]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": count, "line": one_line, "hours": hours}
    environment.filters |= {"seconds": formats.seconds, "moment": formats.moment, "kind": _kind}
    return environment.from_string(_file("jobs.html.jinja")).render(
        where=one_line(redacted_address(where), 300),
        now=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        jobs=[*(v for v in views if v.late), *(v for v in views if not v.late)],
        several=len({each.output for each in jobs}) > 1,
        signs=VERDICT_SIGNS,
        number=counted(len(views), "job"),
        listed=_LISTED,
        policy=_POLICY,
        style=_file("page.css") + _file("jobs.css"),
    )


def _view(job: Series, number: int, whys: dict[tuple[str, str], str]) -> JobView:
    newest = job.newest
    name = newest.dates or newest.slice if newest else ""
    return JobView(
        name=job.job,
        output=job.output,
        folder=one_line(job.output.rstrip("/").rpartition("/")[2], 120),
        anchor=f"job-{number}",
        last=job.last,
        kind=_kind(job.last.status) if job.last else "unsure",
        newest=f"{one_line(name, 60)}, {hours(newest.age_s)} ago" if newest else "nothing",
        late=whys.get((job.output, job.job), ""),
        runs=job.runs[:_LISTED],
        plots=_plots(job.runs[:RUNS][::-1]),
    )


def _plots(runs: Sequence[RunFacts]) -> tuple[Plot, ...]:
    rows = [_rows(each) for each in runs]
    took = [_took(each) for each in runs]
    judged = [_verdict(each) for each in runs]
    return (
        plot("Rows", rows, count),
        plot("Duration", took, formats.seconds),
        plot("Drift", judged, lambda _: ""),
    )


def _rows(run: RunFacts) -> list[Stack]:
    scored, rejected = run.scored or 0, run.rejected or 0
    title = f"{_about(run)}: {counted(scored, 'row')} scored, {count(rejected)} rejected"
    return [Stack(scored, _kind(run.status), title), Stack(rejected, "rejected", title)]


def _took(run: RunFacts) -> list[Stack]:
    if run.seconds is None:
        return []
    title = f"{_about(run)}: {formats.seconds(run.seconds)}"
    return [Stack(run.seconds, _kind(run.status), title)]


def _verdict(run: RunFacts) -> list[Stack]:
    if run.verdict not in _DRIFT:
        return []
    return [
        Stack(1.0, _DRIFT[run.verdict], f"{_about(run)}: drift {VERDICT_SIGNS[run.verdict][1]}")
    ]


def _about(run: RunFacts) -> str:
    of = f"{run.dates}, " if run.dates else ""
    return one_line(f"{of}run {run.run}, {run.status}", 160)


def _kind(status: str) -> str:
    """Returns the class of the style sheet for a status; `ok` for one that needs nobody."""
    return _KINDS.get(status, "ok")


def _file(name: str) -> Any:
    return resources.files("batchscore.report").joinpath(name).read_text(encoding="utf-8")
