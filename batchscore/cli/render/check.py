"""What `check` found, as lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchscore.cli.render.results import (
    check_line,
    count,
    duration,
    interrupted,
    rate,
    row_text,
    size,
    table,
)
from batchscore.cli.render.times import phase_seconds
from batchscore.finish.drift_policy import learning_line
from batchscore.messages.wording import counted, one_line
from batchscore.phases import PUBLISHING
from batchscore.plan.reference import drift_policy
from batchscore.telemetry import STAGES

if TYPE_CHECKING:
    from batchscore.commands.check import Checked
    from batchscore.commands.workers_check import WorkersChecked
    from batchscore.plan import Plan
    from batchscore.plan.rehearsal import Rehearsal
    from batchscore.runs.checks import Check
    from batchscore.worker.inspection import Findings


def checked(found: Checked, probed: bool) -> list[str]:
    """Returns what `check` found."""
    plan, work, rehearsal = found.plan, found.work, found.rehearsal
    spec = plan.spec
    lines = [
        f"{found.status.upper()}   {one_line(spec.slice)}   "
        + ("nothing that was written is left" if found.workers else "nothing was written"),
        f"input   {counted(len(plan.shards), 'shard')}, "
        f"{counted(sum(s.rows for s in plan.shards), 'row')}, {size(plan.input_bytes)}; the filter "
        f"skips {counted(plan.pruned_rows, 'row')} unread",
        f"units   {len(work.units)} to score, {counted(work.unit_rows, 'row')}; "
        f"{len(work.reused)} reused, {counted(work.reused_rows, 'row')}",
        f"model   {one_line(spec.scoring.model.name)} {one_line(spec.scoring.model.version)}, "
        f"{counted(len(spec.scoring.model.sha256), 'file')}, SHA-256 {_pinned(plan)}",
        f"output  {spec.output.address}, "
        + (
            "a test object was written and removed"
            if probed
            else "looks writable (--probe tries it)"
        ),
        *(f"{key:<10}  {value}" for key, value in plan.choices.items()),
        *(
            f"bad shard   {one_line(b.path, 120)}: {one_line(b.reason, 200)}"
            for b in plan.bad_files
        ),
        *_references(plan),
        *_changes(found),
        *(f"WARNING     {one_line(warning, 400)}" for warning in found.warnings),
        "",
        *([f"later       {found.later}"] if found.later else _rehearsed(rehearsal)),
        *(_seen(found.workers) if found.workers else []),
        *(f"{_mark(check):<6}  {check_line(check)}" for check in found.checks),
    ]
    return [*lines, "", _verdict(found)]


def _pinned(plan: Plan) -> str:
    """Returns whether the model's hash is known to the job, or what to add so that it is."""
    model, asked = plan.spec.scoring.model, plan.loaded.job.model
    if asked.sha256 or model.weights != os.path.basename(asked.path):
        return "as pinned"
    return f"not pinned; to pin it, add to model: sha256: {model.sha256[model.weights]}"


def _references(plan: Plan) -> list[str]:
    drift, found = plan.spec.scoring.drift, plan.references
    columns = ", ".join(drift.columns or (*plan.spec.scoring.model_columns, "scores"))
    own = {each: f" (on_fail {each.on_fail})" for each in found.chosen if each.on_fail}
    against = " and ".join(f"{each.title}{own.get(each, '')}" for each in found.chosen)
    policy = "" if own else f", on_fail {drift.on_fail}"
    line = f"against {against}{policy}; judged: {columns}"
    return [
        f"drift       {one_line(line if found.chosen else 'not judged: no reference yet', 400)}",
        *(f"drift       {one_line(note, 300)}" for note in (*found.notes, *_policy(plan))),
    ]


def _policy(plan: Plan) -> Iterator[str]:
    """Yields the columns that do not count, and whether a failure would only warn."""
    policy = drift_policy(plan.loaded.job, plan.spec.slice)
    for each in policy.muted:
        yield f"{each.column} is muted until {each.until}, {each.why}"
    if policy.is_learning:
        yield learning_line(policy.night)


def _changes(found: Checked) -> list[str]:
    lines = [
        f"{'change    ' if check.passed else 'HELD      '}  {check_line(check)}"
        for check in found.work.checks
    ]
    if found.pending is not None:
        lines.append(f"pending     {interrupted(found.pending)}")
    if found.held_by is not None:
        lines.append(f"in use      {found.held_by}")
    return lines


def _rehearsed(rehearsal: Rehearsal | None) -> list[str]:
    if rehearsal is None:
        return ["no row is left to score, so no batch was tried"]
    rows = [
        (
            stage.name,
            f"{rehearsal.seconds.get(stage.name, 0.0) * 1e3:.1f}",
            _stage_rate(rehearsal, stage.name),
        )
        for stage in STAGES
        if stage.name in rehearsal.seconds
    ]
    reasons = [
        f"rejected {count(n)}  {one_line(r, 160)}" for r, n in rehearsal.reject_reasons.items()
    ]
    marks = {True: "golden rows ok", False: "HELD"}
    golden = [f"{marks[check.passed]}  {check_line(check)}" for check in rehearsal.golden]
    return [
        f"one batch of {counted(rehearsal.rows, 'row')}: {count(rehearsal.scored)} scored",
        *reasons,
        *golden,
        *table(("stage", "ms", "speed"), rows),
        f"columns {', '.join(f'{one_line(n)} {k}' for n, k in rehearsal.columns)}",
        f"first row's scores {row_text(rehearsal.example)}",
    ]


def _seen(workers: WorkersChecked) -> list[str]:
    """Returns a line for each worker elsewhere that tried some rows."""
    lines = []
    for each in workers.found:
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items())
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in each.seconds.items())
        same = _compared(workers.own, each)
        lines.append(
            f"worker      {one_line(each.host)}, process {each.pid}: {one_line(versions, 300)}; "
            f"{one_line(each.device)}; {counted(each.rows, 'row')}, {same}; {one_line(steps, 200)}"
        )
    answered = f"{counted(len(lines), 'process')} answered in {workers.seconds:.0f} s"
    return [*lines, f"workers     {answered}; the folder that they used was removed"]


def _compared(own: Findings, found: Findings) -> str:
    if own.device != found.device:
        return f"scores of another device than here, {one_line(own.device)}"
    same = own.scores_sha256 == found.scores_sha256
    return "scores as here" if same else "OTHER SCORES than here"


def _stage_rate(rehearsal: Rehearsal, stage: str) -> str:
    return rate(rehearsal.rows, rehearsal.seconds.get(stage, 0.0))


def _mark(check: Check) -> str:
    return "ok" if check.passed else check.status.upper()


def _verdict(found: Checked) -> str:
    work = found.work
    if found.held_by is not None:
        return f"a run would end immediately (exit 4, try again later): {found.held_by}"
    if work.unchanged and work.base is not None:
        return f"a run would do nothing: run {work.base.run} already published the same"
    if work.held:
        return "a run would be held (exit 3) and score nothing, for the reasons under HELD"
    if found.failed:
        return _refused(found)
    if found.status == "held":
        return (
            "a run would be held (exit 3): 0 rows to score; input.allow_empty: true would "
            "publish an empty result"
        )
    if found.seconds is None:
        return "a run would score nothing; it would check and publish rows that were scored before"
    phases = found.estimate or {}
    left = "" if PUBLISHING in phases else "; starting workers and publishing are not included"
    return (
        f"estimate: about {counted(work.unit_rows, 'row')}, about "
        f"{duration(found.seconds)}, give or take a half ({phase_seconds(phases)}){left}"
    )


def _refused(found: Checked) -> str:
    names = ", ".join(check.name for check in found.failed)
    if found.status == "held":
        return f"a run would be held (exit 3), for the reasons under HELD: {names}"
    batch, rows = found.rehearsal, found.work.unit_rows + found.work.reused_rows
    part = batch is not None and batch.rows < rows
    provided = f", if the rest of the {count(rows)} rows are like the first" if part else ""
    return f"a run would fail (exit 1), for the reasons under FAILED: {names}{provided}"
