"""Starts a run, watches it, and sees to it that it ends whole: what `batchscore run` does."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from batchscore.commands.ending import (
    disturbed,
    failed,
    is_held,
    is_publishing,
    removed,
    taken_over,
    unfinished,
)
from batchscore.commands.follow import Followed, follow_on
from batchscore.commands.launched import Launch, Run, watch_run
from batchscore.commands.prepared import all_flags, engine_of, prepared, with_process
from batchscore.commands.stop import Stop
from batchscore.commands.tidy import repair
from batchscore.commands.unwatched import ask, take
from batchscore.commands.unwritable import writable
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    InvalidError,
    RecordError,
    RetryError,
    StoppedError,
)
from batchscore.finish.accounting import accounted
from batchscore.finish.closing import remove_work
from batchscore.finish.finish import (
    failed_manifest,
    held_manifest,
    submitted_manifest,
    until_now,
)
from batchscore.models.process.current import ended, used_here
from batchscore.phases import BEAM, PUBLISHED, Stopwatch, by_phase, rounded, start_up_steps, times
from batchscore.plan import Plan, Work, keeping_kernels, plan_facts, scored_as, settle
from batchscore.plan.shipping import pack
from batchscore.runs import layout
from batchscore.runs.checks import rejects_allowed
from batchscore.runs.heal import relist
from batchscore.runs.history import read_raw, reading
from batchscore.runs.holder import last_holder
from batchscore.runs.lease import Lease, holds, require_free
from batchscore.runs.ledger import sweep_attempts
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Progress, current_unit
from batchscore.runs.publication import is_pending
from batchscore.runs.retention import purge
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.segments import expand
from batchscore.runs.snapshot import snapshot
from batchscore.runs.submission import Submission
from batchscore.storage.store import encode_json
from batchscore.system import json_lines
from batchscore.system.gpu import GpuWatch
from batchscore.system.imports import frozen
from batchscore.worker.spec import RunIdentity, RunSpec, Shipment

_log = logging.getLogger("batchscore.run")
# So many damaged files a manifest names.
_DAMAGED = 20


@ended()
def run_plan(
    plan: Plan,
    flags: Sequence[str],
    rescore: bool,
    watch: Callable[[Progress], None],
    stop: Stop,
    clock: Stopwatch | None = None,
    detach: bool = False,
) -> Manifest:
    """Runs a plan and returns its manifest, with the status `unchanged` where nothing was to do.

    Of a run that was left, the manifest has the status `submitted`, and is written nowhere.

    Args:
        flags: Beam's own options.
        rescore: Scores all rows again, even if nothing changed.
        watch: Called about twice a second.
        stop: Ends the run at the next batch once its signal is set.
        clock: Has measured the command's time so far; by default its time starts with this call.
        detach: Leaves the run once the engine has its job.

    Raises:
        InvalidError: The run cannot be left, since it ends with this process.
        RetryError: Another run holds the slice.
        BatchscoreError: The run failed or was stopped; its manifest and the message say so, and
            if a publication was started, who finishes it.
    """
    clock = clock or Stopwatch()
    clock.enter(PUBLISHED)
    launch = Launch(engine_of(plan), all_flags(plan.loaded.job.runtime, flags), detach)
    # Beam and the framework take seconds to import: a run that has nothing to do is spared them.
    if flags:
        with clock.during(BEAM):
            launch.engine.parse_flags(launch.flags)
    if detach:
        _require_detachable(plan, launch)
    return carry_out(plan, launch, rescore, watch, stop, clock)


def carry_out(
    plan: Plan,
    launch: Launch,
    rescore: bool,
    watch: Callable[[Progress], None],
    stop: Stop,
    clock: Stopwatch,
) -> Manifest:
    """Runs a plan as `run_plan` does, on an engine that is known; leaves the model's process."""
    spec = plan.spec
    in_order = require_free(spec.output, spec.slice, ask)
    # A first look without the lease: it finds what is wrong and what is done, and writes nothing.
    work = _first_look(plan, rescore)
    if work.unchanged and in_order and not is_pending(spec.output, spec.slice):
        return _unchanged(work, clock)
    plan = _verified(plan, work, clock, launch)
    with writable(spec.output):
        layout.claim_output(spec.output)
        run = layout.new_run_id(spec.output)
        lease = take(spec.output, spec.slice, "run", run)
    with lease, frozen():
        opened = _begin_held(plan, launch, rescore, run, lease, clock)
        if isinstance(opened, Manifest):
            return opened
        return _score(opened, launch, lease, watch, stop)


def _require_detachable(plan: Plan, launch: Launch) -> None:
    """Raises InvalidError where a run would end with its launcher."""
    if launch.engine.submission(plan, launch.flags) is None:
        raise InvalidError(
            f"--detach: workers of engine {launch.engine.name} are processes of this command here, "
            "and end with it; leave --detach out and run the command in the background, or choose "
            "an engine whose workers are elsewhere, such as flink with runtime.flink.pool"
        )


def _first_look(plan: Plan, rescore: bool) -> Work:
    """Settles a plan without the lease; what a repair can put right is put right first."""
    store, slice_ = plan.spec.output, plan.spec.slice
    try:
        return settle(plan, rescore)
    except RecordError:
        layout.check_output(store)
        with writable(store), take(store, slice_, "run") as lease:
            repair(store, slice_, lease.is_held)
        return settle(plan, rescore)


def _begin_held(
    plan: Plan, launch: Launch, rescore: bool, run: str, lease: Lease, clock: Stopwatch
) -> Run | Manifest:
    """Opens a run whose slice is held; returns its manifest if there is nothing to score."""
    store, slice_ = plan.spec.output, plan.spec.slice
    with writable(store):
        repair(store, slice_, lease.is_held)
    work = settle(plan, rescore, read=True)
    if work.unchanged:
        return _unchanged(work, clock)
    # The first look may have found nothing to score, and the repair may have changed that.
    plan = _verified(plan, work, clock, launch)
    if work.base is None:
        relist(store, slice_)
    if launch.engine.experimental:
        _log.warning("runtime.engine %s is experimental: it may change", launch.engine.name)
    shipment = pack(plan) if launch.engine.ships and not work.held else None
    plan = launch.engine.place(plan, work.units)
    submission = None if work.held else launch.engine.submission(plan, launch.flags)
    with writable(store):
        opened = begin(plan, work, run, lease.number, clock, shipment, submission)
        return _hold(opened) if work.held else opened


def _verified(plan: Plan, work: Work, clock: Stopwatch, launch: Launch) -> Plan:
    """Tries model, device and functions, unless they were, or nothing is to be scored with them."""
    if work.held or work.unchanged or _is_verified(plan, work):
        return plan
    plan = keeping_kernels(plan, work)
    if launch.dated is not None:
        return launch.dated.verified(plan, work, clock)
    plan = with_process(plan, launch.engine.place(plan, work.units).workers)
    launch.engine.start_workers(launch.engine.place(plan, work.units))
    return prepared(plan, work.units, clock, launch.flags)


def _is_verified(plan: Plan, work: Work) -> bool:
    """Tells whether a plan was tried, on a sample if rows are to be scored."""
    alike = work.kernels in (None, plan.spec.execution.kernels)
    return alike and "device" in plan.choices and ("alone" in plan.choices or not work.units)


def _unchanged(work: Work, clock: Stopwatch) -> Manifest:
    """Returns the manifest of what is published, with this command's own times."""
    assert work.base is not None
    steps, own = clock.steps(), times(clock.started_at())
    phases = rounded(by_phase(steps), own["seconds"])
    return (
        work.base.without("usage")
        .without("slow")
        .updated(
            status="unchanged",
            published_at=work.base.public_since,
            **own,
            phases=phases,
            start_up_seconds=start_up_steps(steps, phases),
            stage_seconds={},
            limited_by=None,
            timings=None,
        )
    )


def begin(
    plan: Plan,
    work: Work,
    run: str,
    lease: int,
    clock: Stopwatch | None = None,
    shipment: Shipment | None = None,
    submission: Submission | None = None,
) -> Run:
    """Opens a run: writes down what its last step needs.

    Args:
        plan: What the run carries out.
        work: What of the plan is left.
        run: Name of the run.
        lease: Number of the lease under which the run holds the slice.
        clock: Has measured the command's time so far; by default its time starts with this call.
        shipment: What its workers fetch, if they do not see what the launcher sees.
        submission: How its job is found, if the run goes on without its launcher.

    Raises:
        RetryError: Another run took its name at the same moment.
    """
    plan = scored_as(plan, work.score)
    store = plan.spec.output
    clock = clock or Stopwatch()
    planned = plan_facts(plan, clock.started_at())
    changed = {"changed": list(work.changes.score), "rescored": list(work.again)}
    written = RunPlan(
        **{**planned, "facts": {**planned["facts"], **changed}},
        units={unit.id: unit.rows for unit in work.units},
        resumed=sorted(work.resumed),
        kept=sorted(work.kept),
        base=work.base.run if work.base else None,
        before=snapshot(store, plan.spec.slice),
        revoked=list(work.revoked),
        damaged=dict(sorted(work.damaged.items())[:_DAMAGED]),
        shipped=shipment.names if shipment else [],
        spent=clock.steps(),
        submitted=submission is not None,
        rejected=sum(record.rejected for record in work.reused),
        retention_days=plan.loaded.job.output.retention_days,
    )
    if not store.create_new(layout.plan_file(run), encode_plan(written), flush=False):
        raise _name_taken(run)
    if store.exists(layout.run_file(run, "manifest.json")):  # it came and went meanwhile
        remove_work(store, run)
        raise _name_taken(run)
    identity = RunIdentity(run, lease, plan.score, submission is not None)
    spec = _make_spec(plan, work, identity)
    json_lines.note(current_unit, run=run, slice=spec.slice)
    made = replace(spec, shipment=shipment)
    gpu = GpuWatch(spec.execution.device)
    return Run(plan, work, written, made, submission, clock.cpu_before, gpu)


def _name_taken(run: str) -> RetryError:
    return RetryError(f"run {run}: another run took this name at the same moment; run again")


def _make_spec(plan: Plan, work: Work, identity: RunIdentity) -> RunSpec:
    """Returns the spec with the number of rows that may be rejected of all that it publishes."""
    spec = plan.spec
    allowed = rejects_allowed(spec.scoring.rejects, work.most_rows)
    execution = replace(spec.execution, max_rejects=allowed, fresh=not work.reused)
    return RunSpec(spec.job, spec.slice, spec.output, spec.scoring, execution, identity)


def _hold(run: Run) -> Manifest:
    """Ends a run that its job does not let score what changed."""
    store, name = run.spec.output, run.spec.identity.run
    manifest = held_manifest(name, run.written, run.work.checks)
    store.write_json(layout.run_file(name, "manifest.json"), manifest.document)
    remove_work(store, name)
    return manifest


def _score(
    run: Run, launch: Launch, lease: Lease, watch: Callable[[Progress], None], stop: Stop
) -> Manifest:
    spec, left = run.spec, False
    if launch.dated is not None:
        launch.dated.opened(spec.identity.run)
    try:
        metrics = watch_run(run, launch, lease, watch, stop)
        if metrics is None:
            left = True
            followed = Followed(spec.output, spec.slice, spec.identity.run)
            asked = launch.detach or stop.leave
            return (None if asked else follow_on(followed, watch, stop)) or _left(run)
        if launch.dated is not None:
            launch.dated.judge(run)
        if not is_held(spec) and not _is_closed(spec):
            raise taken_over(spec)
        return _close(run, metrics)
    except (BatchscoreError, OSError) as error:
        if _is_closed(spec):
            return _close(run, [])
        found = disturbed(spec)
        if found is not None:
            raise found from error
        if is_publishing(spec):
            raise unfinished(spec.identity.run, error) from error
        if spec.output.exists(layout.run_file(spec.identity.run, "manifest.json")):
            # The last step was done before things went wrong: its outcome is final.
            return _close(run, [])
        known = error if isinstance(error, BatchscoreError) else failed(error)
        if not spec.output.exists(layout.plan_file(spec.identity.run)):
            known = removed(spec, f"{layout.work(spec.identity.run)} ")
        _record_failure(run, known)
        raise known from error.__cause__
    finally:
        if not left:
            put_away(spec)


def _is_closed(spec: RunSpec) -> bool:
    """Tells whether the last step of a run that needs no launcher has written its outcome.

    It gives the slice back, which another run may have taken since.
    """
    path = layout.run_file(spec.identity.run, "manifest.json")
    return spec.identity.submitted and spec.output.exists(path)


def _left(run: Run) -> Manifest:
    """Returns what is known of a run that goes on."""
    store, name = run.spec.output, run.spec.identity.run
    found = last_holder(store, run.spec.slice)
    job = found.submission if found is not None and found.run == name else run.submission
    return submitted_manifest(name, run.written, asdict(job) if job else {})


def put_away(spec: RunSpec) -> None:
    """Removes what the run worked with, and attempts that it did not finish.

    One that was taken for dead and wakes up leaves the slice to who took it over.
    """
    # What cannot be removed is removed by the next run; it must not hide the error.
    with suppress(OSError, BatchscoreError):
        remove_work(spec.output, spec.identity.run)
        if not layout.is_claimed(spec.output):
            _remove_remains(spec)
            return
        mine = holds(spec.output, spec.slice, spec.identity.lease)
        if mine and not is_pending(spec.output, spec.slice):
            sweep_attempts(spec.output, spec.slice)


def _remove_remains(spec: RunSpec) -> None:
    """Removes what the run wrote after its output was removed; it would keep the next run out."""
    folders = [
        layout.staging(spec.slice),
        layout.ledger(spec.slice, spec.identity.score),
        layout.logs(spec.slice, spec.identity.run),
    ]
    for folder in folders:
        spec.output.remove(folder)
    spec.output.prune_empty(posixpath.dirname(folder) for folder in folders)


def _close(run: Run, metrics: list[dict[str, Any]]) -> Manifest:
    spec = run.spec
    path = layout.run_file(spec.identity.run, "manifest.json")
    try:
        written = spec.output.read(path)
    except FileNotFoundError as error:
        raise FailedError(
            f"engine {run.plan.loaded.job.runtime.engine} says that its job ended well, and run "
            f"{spec.identity.run} has no outcome, so its last step did not run; nothing was "
            "published: run again, which resumes finished units"
        ) from error
    ended, closed = read_raw(spec.output, spec.identity.run), spec.identity.submitted
    manifest = ended if closed else _accounted(run, until_now(ended))
    manifest = manifest.updated(beam_metrics=metrics)
    # The outcome is final, whatever becomes of what is only good to have.
    try:
        # Who took the slice over meanwhile may have taken the run back.
        spec.output.exchange(path, written, encode_json(manifest.document))
        if manifest.status in ("published", "empty") and not closed:
            purge(spec.output, spec.slice, run.plan.loaded.job.output.retention_days)
    except (OSError, BatchscoreError) as error:
        _log.warning(
            "run %s: Beam's metrics or retention were left out: %s", spec.identity.run, error
        )
    with reading(spec.output, spec.identity.run):
        return expand(spec.output, manifest)


def _accounted(run: Run, manifest: Manifest) -> Manifest:
    """Returns a manifest with what the run used, this process among it."""
    mine = used_here().since(run.cpu_before)
    return accounted(run.spec.output, manifest, mine, run.gpu.to_json())


def _record_failure(run: Run, error: BatchscoreError) -> None:
    spec = run.spec
    # Only the command says `retry`; a run that was started, and did not publish, failed.
    status = "failed" if isinstance(error, RetryError) else error.status
    manifest = failed_manifest(spec.identity.run, run.written, status, str(error))
    if isinstance(error, StoppedError):
        facts = {"by": error.by, "at": manifest.finished, "exit_code": error.exit_code}
        manifest = manifest.updated(stopped=facts)
    manifest = _accounted(run, manifest)
    # Where even this cannot be written, the error itself must still be reported.
    with suppress(OSError):
        path = layout.run_file(spec.identity.run, "manifest.json")
        spec.output.create_new(path, encode_json(manifest.document))
