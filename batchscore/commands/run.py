"""Starts a run, watches it, and sees to it that it ends whole: what `batchscore run` does."""

from __future__ import annotations

import logging
import posixpath
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from batchscore.commands.ending import (
    disturbed,
    explained,
    failed,
    is_held,
    is_publishing,
    misfit,
    removed,
    taken_over,
    unfinished,
)
from batchscore.commands.prepared import all_flags, engine_of, prepared, with_process
from batchscore.commands.stop import Stop
from batchscore.commands.tidy import purge, repair
from batchscore.commands.unwritable import writable
from batchscore.engines.protocol import Engine, Handle
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    RecordError,
    RetryError,
    StoppedError,
)
from batchscore.finish.finish import failed_manifest, held_manifest, until_now
from batchscore.messages.wording import counted, counted_were
from batchscore.models.process.current import ended
from batchscore.phases import BEAM, PUBLISHED, Stopwatch, by_phase, rounded, start_up_steps, times
from batchscore.plan import Plan, Work, keeping_kernels, plan_facts, scored_as, settle
from batchscore.plan.shipping import pack, send
from batchscore.runs import layout
from batchscore.runs.actor import actor
from batchscore.runs.checks import rejects_allowed
from batchscore.runs.failures import read_failure
from batchscore.runs.heal import relist
from batchscore.runs.history import read_raw, reading
from batchscore.runs.holder import describe_holder, last_holder
from batchscore.runs.lease import Lease, acquire, holds
from batchscore.runs.ledger import finished_units, sweep_attempts
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Progress, read_counts, read_stop, request_stop
from batchscore.runs.publication import is_pending
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.segments import expand
from batchscore.runs.snapshot import snapshot
from batchscore.runs.stalls import Stalls
from batchscore.storage.store import Store, encode_json
from batchscore.system.imports import frozen, uncollected
from batchscore.worker.spec import RunIdentity, RunSpec, Shipment

_log = logging.getLogger("batchscore.run")
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 15.0
# So many damaged files a manifest names.
_DAMAGED = 20


@dataclass(frozen=True)
class Launch:
    """The engine of a run, and Beam's options for it."""

    engine: Engine
    flags: Sequence[str]


@dataclass(frozen=True)
class Run:
    """One run under way: its plan, what it has to do, and the spec that its workers get."""

    plan: Plan
    work: Work
    written: RunPlan
    spec: RunSpec


@ended()
def run_plan(
    plan: Plan,
    flags: Sequence[str],
    rescore: bool,
    watch: Callable[[Progress], None],
    stop: Stop,
    clock: Stopwatch | None = None,
) -> Manifest:
    """Runs a plan and returns its manifest, with the status `unchanged` where nothing was to do.

    Args:
        flags: Beam's own options.
        rescore: Scores all rows again, even if nothing changed.
        watch: Called about twice a second.
        stop: Ends the run at the next batch once its signal is set.
        clock: Has measured the command's time so far; by default its time starts with this call.

    Raises:
        RetryError: Another run holds the slice.
        BatchscoreError: The run failed or was stopped; its manifest and the message say so, and
            if a publication was started, who finishes it.
    """
    clock = clock or Stopwatch()
    clock.enter(PUBLISHED)
    launch = Launch(engine_of(plan), all_flags(plan.loaded.job.runtime, flags))
    # Beam and the framework take seconds to import: a run that has nothing to do is spared them.
    if flags:
        with clock.during(BEAM):
            launch.engine.parse_flags(launch.flags)
    spec = plan.spec
    in_order = _require_free(spec.output, spec.slice)
    # A first look without the lease: it finds what is wrong and what is done, and writes nothing.
    work = _first_look(plan, rescore)
    if work.unchanged and in_order and not is_pending(spec.output, spec.slice):
        return _unchanged(work, clock)
    plan = _verified(plan, work, clock, launch)
    with writable(spec.output):
        layout.claim_output(spec.output)
        run = layout.new_run_id(spec.output)
        lease = acquire(spec.output, spec.slice, "run", run)
    with lease, frozen():
        opened = _begin_held(plan, launch, rescore, run, lease, clock)
        return opened if isinstance(opened, Manifest) else _score(opened, launch, watch, stop)


def _first_look(plan: Plan, rescore: bool) -> Work:
    """Settles a plan without the lease; what a repair can put right is put right first."""
    store, slice_ = plan.spec.output, plan.spec.slice
    try:
        return settle(plan, rescore)
    except RecordError:
        layout.check_output(store)
        with writable(store), acquire(store, slice_, "run") as lease:
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
    with writable(store):
        opened = begin(plan, work, run, lease.number, clock, shipment)
        return _hold(opened) if work.held else opened


def _require_free(store: Store, slice_: str) -> bool:
    """Tells whether the last holder of a slice gave it back; a killed one may have left files.

    Raises:
        RetryError: Somebody holds it.
    """
    last = last_holder(store, slice_)
    if last is not None and last.is_alive:
        raise RetryError(describe_holder(store, slice_, last))
    return last is None or last.released


def _verified(plan: Plan, work: Work, clock: Stopwatch, launch: Launch) -> Plan:
    """Tries model, device and functions, unless they were, or nothing is to be scored with them."""
    if work.held or work.unchanged or _is_verified(plan, work):
        return plan
    plan = keeping_kernels(plan, work)
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
    return work.base.updated(
        status="unchanged",
        published_at=work.base.public_since,
        **own,
        phases=phases,
        start_up_seconds=start_up_steps(steps, phases),
        stage_seconds={},
        limited_by=None,
        timings=None,
    )


def begin(
    plan: Plan,
    work: Work,
    run: str,
    lease: int,
    clock: Stopwatch | None = None,
    shipment: Shipment | None = None,
) -> Run:
    """Opens a run: writes down what its last step needs.

    Args:
        plan: What the run carries out.
        work: What of the plan is left.
        run: Name of the run.
        lease: Number of the lease under which the run holds the slice.
        clock: Has measured the command's time so far; by default its time starts with this call.
        shipment: What its workers fetch, if they do not see what the launcher sees.

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
    )
    if not store.create_new(layout.plan_file(run), encode_plan(written), flush=False):
        raise _name_taken(run)
    if store.exists(layout.run_file(run, "manifest.json")):  # it came and went meanwhile
        _remove_work(store, run)
        raise _name_taken(run)
    spec = _make_spec(plan, work, RunIdentity(run, lease, plan.score))
    return Run(plan, work, written, replace(spec, shipment=shipment))


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
    _remove_work(store, name)
    return manifest


def _remove_work(store: Store, run: str) -> None:
    store.remove(layout.work(run))
    store.prune_empty([posixpath.dirname(layout.work(run))])


def _score(run: Run, launch: Launch, watch: Callable[[Progress], None], stop: Stop) -> Manifest:
    spec = run.spec
    try:
        metrics = _watched(run, launch, watch, stop)
        if not is_held(spec):
            raise taken_over(spec)
        return _close(run, metrics)
    except (BatchscoreError, OSError) as error:
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
        put_away(spec)


def put_away(spec: RunSpec) -> None:
    """Removes what the run worked with, and attempts that it did not finish.

    One that was taken for dead and wakes up leaves the slice to who took it over.
    """
    # What cannot be removed is removed by the next run; it must not hide the error.
    with suppress(OSError, BatchscoreError):
        _remove_work(spec.output, spec.identity.run)
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


def _watched(
    run: Run, launch: Launch, watch: Callable[[Progress], None], stop: Stop
) -> list[dict[str, Any]]:
    with uncollected():
        from batchscore.pipeline import build

    if stop.signal is not None:
        raise stopped(run, stop)
    started = time.monotonic()
    spec, units = run.spec, run.work.units
    stalls = Stalls(spec.execution.model_timeout_s)
    if spec.shipment is not None:
        send(run.plan, spec.shipment)
    work = launch.engine.submit(lambda p: build(p, spec, units), run.plan, launch.flags)
    try:
        while work.is_alive():
            work.join(_LOOK_SECONDS)
            _look(run, work, watch, stop, started, stalls)
            if launch.engine.retries:
                _check_failures(run, work)
    finally:
        if work.is_alive():
            work.cancel()
    if work.error is not None:
        # Beam's own error of a worker that died says nothing of it.
        raise _lost(run, work.lost) if work.lost else explained(spec, work.error)
    return work.metrics


def _look(
    run: Run,
    work: Handle,
    watch: Callable[[Progress], None],
    stop: Stop,
    started: float,
    stalls: Stalls,
) -> None:
    """Reports progress, and raises what ends a run before its pipeline ends."""
    if stop.signal is not None:
        _stop(run, work, stop)
    if work.lost is not None and work.is_alive():
        raise _lost(run, work.lost)
    counts = read_counts(run.spec.output, run.spec.identity.run)
    if counts.stop_requested and _is_cancelled(run, stop):
        _stop(run, work, stop)
    for stall in stalls.look(counts.processes):
        _log.warning("%s", stall)
    watch(Progress(counts.rows, run.work.unit_rows, time.monotonic() - started))
    _check_rejects(run, work, counts.rejected)


def _check_failures(run: Run, work: Handle) -> None:
    """Ends a run whose workers met what they would meet again; it is cancelled on the way out."""
    name, elsewhere = run.spec.identity.run, run.spec.shipment is not None
    found = read_failure(run.spec.output, name, final=True, elsewhere=elsewhere) or misfit(work)
    if found is None or not work.is_alive() or is_publishing(run.spec):
        return
    request_stop(run.spec.output, run.spec.identity.run)
    raise found[0] from RuntimeError(found[1])


def _lost(run: Run, reason: str) -> FailedError:
    if is_publishing(run.spec):
        return FailedError(reason)
    return FailedError(
        f"{reason}; nothing was published. Run again; if memory ran out, first lower "
        f"runtime.workers or runtime.batch_rows{_kept(run)}"
    )


def _check_rejects(run: Run, work: Handle, rejected: int) -> None:
    """Ends a run early whose rejects are too many already, whatever the rest brings."""
    rejected += sum(record.rejected for record in run.work.reused)
    allowed = run.spec.execution.max_rejects
    if rejected <= allowed or not work.is_alive():
        return
    request_stop(run.spec.output, run.spec.identity.run)
    work.join(_GRACE_SECONDS)
    raise FailedError(
        f"{counted_were(rejected, 'row')} rejected so far, more than the {allowed:,} that "
        "rejects.max_ratio and rejects.max_rows allow of all rows; nothing was published. "
        "Correct the rows or the code, or allow more"
    )


def _is_cancelled(run: Run, stop: Stop) -> bool:
    """Tells whether somebody elsewhere cancelled the run, which then ends as by SIGTERM."""
    found = read_stop(run.spec.output, run.spec.identity.run)
    if found is not None:
        stop.signal, stop.by = signal.SIGTERM, found.by
    return found is not None


def _stop(run: Run, work: Handle, stop: Stop) -> None:
    """Waits for the workers to stop; a run that is published, or about to be, is not stopped."""
    request_stop(run.spec.output, run.spec.identity.run)
    _await_stop(run, work)
    while work.is_alive() and work.lost is None and is_publishing(run.spec):
        work.join(_LOOK_SECONDS)
    if work.lost is not None and work.is_alive():
        raise _lost(run, work.lost)
    if work.error is not None and is_publishing(run.spec):
        raise explained(run.spec, work.error)
    if work.is_alive() or work.error is not None:
        raise stopped(run, stop)


def _await_stop(run: Run, work: Handle) -> None:
    """Waits until a worker elsewhere stopped, which its engine would start again; or a while."""
    name, elsewhere = run.spec.identity.run, run.spec.shipment is not None
    end = time.monotonic() + _GRACE_SECONDS
    while work.is_alive() and time.monotonic() < end:
        work.join(_LOOK_SECONDS)
        if elsewhere and read_failure(run.spec.output, name) is not None:
            return


def stopped(run: Run, stop: Stop) -> StoppedError:
    """Returns the error of a run that a signal ended, with the exit code that shells expect."""
    who = f"cancelled by {stop.by}" if stop.by else "stopped"
    error = StoppedError(
        f"{who}; nothing was published. The same command scores what is left{_kept(run)}"
    )
    error.exit_code = 128 + (stop.signal or signal.SIGINT)
    error.by = stop.by or actor()
    return error


def _kept(run: Run) -> str:
    """Says what the next run need not score again."""
    spec = run.spec
    done = finished_units(spec.output, spec.slice, spec.identity.score) & {
        u.id for u in run.work.units
    }
    rows = sum(unit.rows for unit in run.work.units if unit.id in done)
    of_units = f"{len(done)} of {counted(len(run.work.units), 'unit')}"
    return f"; finished and kept: {of_units}, {counted(rows, 'row')}"


def _close(run: Run, metrics: list[dict[str, Any]]) -> Manifest:
    spec = run.spec
    path = layout.run_file(spec.identity.run, "manifest.json")
    written = spec.output.read(path)
    ended = until_now(read_raw(spec.output, spec.identity.run))
    manifest = ended.updated(beam_metrics=metrics)
    # The outcome is final, whatever becomes of what is only good to have.
    try:
        # Who took the slice over meanwhile may have taken the run back.
        spec.output.exchange(path, written, encode_json(manifest.document))
        if manifest.status in ("published", "empty"):
            purge(spec.output, spec.slice, run.plan.loaded.job.output.retention_days)
    except (OSError, BatchscoreError) as error:
        _log.warning(
            "run %s: Beam's metrics or retention were left out: %s", spec.identity.run, error
        )
    with reading(spec.output, spec.identity.run):
        return expand(spec.output, manifest)


def _record_failure(run: Run, error: BatchscoreError) -> None:
    spec = run.spec
    # Only the command says `retry`; a run that was started, and did not publish, failed.
    status = "failed" if isinstance(error, RetryError) else error.status
    manifest = failed_manifest(spec.identity.run, run.written, status, str(error))
    if isinstance(error, StoppedError):
        facts = {"by": error.by, "at": manifest.finished, "exit_code": error.exit_code}
        manifest = manifest.updated(stopped=facts)
    # Where even this cannot be written, the error itself must still be reported.
    with suppress(OSError):
        path = layout.run_file(spec.identity.run, "manifest.json")
        spec.output.create_new(path, encode_json(manifest.document))
