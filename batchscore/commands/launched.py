"""A run that was given to its engine: it is watched to its end, stopped, or left."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from batchscore.commands.ending import explained, is_publishing, misfit
from batchscore.commands.stop import Stop
from batchscore.engines.protocol import Engine, Handle, Metrics
from batchscore.errors import FailedError, RetryError, StoppedError
from batchscore.messages.wording import counted
from batchscore.phases import Stopwatch
from batchscore.plan import Plan, Work
from batchscore.plan.shipping import send
from batchscore.runs.actor import actor
from batchscore.runs.checks import too_many_rejected
from batchscore.runs.failures import read_failure
from batchscore.runs.lease import Lease
from batchscore.runs.ledger import finished_units
from batchscore.runs.progress import Progress, read_counts, read_stop, request_stop
from batchscore.runs.run_plan import RunPlan
from batchscore.runs.stalls import Stalls
from batchscore.runs.submission import Submission
from batchscore.system.gpu import GpuWatch
from batchscore.system.imports import uncollected
from batchscore.worker.spec import RunSpec

_log = logging.getLogger("batchscore.run")
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 15.0


class InTurn(Protocol):
    """What a run does otherwise that is one of several, which are judged one after another."""

    def verified(self, plan: Plan, work: Work, clock: Stopwatch) -> Plan:
        """Returns the plan with how its model is called, once its functions were tried."""

    def opened(self, run: str) -> None:
        """Notes the name of the run."""

    def judge(self, run: Run) -> None:
        """Waits for the run's turn, and does its last step.

        Raises:
            StoppedError: The run was stopped while it waited.
        """


@dataclass(frozen=True)
class Launch:
    """The engine of a run.

    Args:
        engine: The engine.
        flags: Beam's options for it.
        detach: Whether to leave the run once the engine has its job.
        dated: Says when the run may be judged, if it is one of several; None: its engine judges.
    """

    engine: Engine
    flags: Sequence[str]
    detach: bool = False
    dated: InTurn | None = None


@dataclass(frozen=True)
class Run:
    """One run under way.

    Args:
        plan: Its plan.
        work: What it has to do.
        written: The plan as its last step reads it.
        spec: What its workers get.
        submission: How its job is found if the run goes on without its launcher, or None.
        cpu_before: CPU seconds that this process had used when the command started.
        gpu: What this process sees of the GPU that it uses itself.
    """

    plan: Plan
    work: Work
    written: RunPlan
    spec: RunSpec
    submission: Submission | None = None
    cpu_before: float = 0.0
    gpu: GpuWatch = field(default_factory=lambda: GpuWatch("cpu"))


def watch_run(
    run: Run, launch: Launch, lease: Lease, tell: Callable[[Progress], None], stop: Stop
) -> Metrics | None:
    """Has an engine score a run, and watches it to its end.

    Args:
        run: The run.
        launch: Its engine.
        lease: The run's lease.
        tell: Called about twice a second.
        stop: Ends the run, or leaves it.

    Returns:
        Beam's metrics; None if the run was left, or the engine is not heard, and it goes on.

    Raises:
        BatchscoreError: The pipeline failed, or was stopped; it is cancelled.
    """
    with uncollected():
        from batchscore.pipeline import build, build_scoring

    if stop.signal is not None:
        raise stopped(run, stop)
    spec, units = run.spec, run.work.units
    if launch.dated is not None and not units:
        return []
    add = build if launch.dated is None else build_scoring
    watching = _Watching(run, lease, tell, stop, Stalls(spec.execution.model_timeout_s))
    if spec.shipment is not None:
        send(run.plan, spec.shipment)
    if run.submission is not None:
        lease.submit(run.submission)
        stop.may_leave = True
    work = launch.engine.submit(lambda p: add(p, spec, units), run.plan, launch.flags)
    left = False
    try:
        while work.is_alive():
            work.join(_LOOK_SECONDS)
            left = watching.leaves(work, launch.detach)
            if left:
                return None
            watching.look(work)
            if launch.engine.retries:
                _check_failures(run, work)
    finally:
        if work.is_alive() and not left:
            work.cancel()
    if work.error is not None:
        if _goes_on(run, work, lease):
            return None
        # Beam's own error of a worker that died says nothing of it.
        raise _lost(run, work.lost) if work.lost else explained(spec, work.error)
    return work.metrics


def _goes_on(run: Run, work: Handle, lease: Lease) -> bool:
    """Leaves a run whose job may go on though nobody says so any more; tells whether it did."""
    # A handle of another package may have no such attribute.
    lost = getattr(work, "unheard", None)
    if lost is None or run.submission is None:
        return False
    _log.warning(
        "run %s: engine %s is not heard any more (%s), and may go on with job %s; from now on this "
        "command follows the run by its output, as `batchscore wait` does",
        *(run.spec.identity.run, run.submission.engine, lost, work.job),
    )
    lease.note_job(work.job, detached=True)
    return True


@dataclass
class _Watching:
    """What a launcher knows of a run that it watches."""

    run: Run
    lease: Lease
    tell: Callable[[Progress], None]
    stop: Stop
    stalls: Stalls
    started: float = field(default_factory=time.monotonic)
    job: str = ""
    rows: int = 0

    def leaves(self, work: Handle, detach: bool) -> bool:
        """Notes the id of the job once the engine has it; tells whether the launcher leaves."""
        job = getattr(work, "job", "")  # a handle of another package may have none
        leaving = (detach or self.stop.leave) and self.stop.signal is None
        # A store that cannot be reached now may be in a moment.
        with suppress(OSError, RetryError):
            if self.run.submission is not None and job and (leaving or job != self.job):
                known = self.lease.note_job(job, detached=leaving)
                self.job = job
                return known and leaving
        return False

    def look(self, work: Handle) -> None:
        """Reports progress, and raises what ends a run before its pipeline ends."""
        run, stop = self.run, self.stop
        if stop.signal is not None:
            _stop(run, work, stop)
        if work.lost is not None and work.is_alive():
            raise _lost(run, work.lost)
        counts = read_counts(run.spec.output, run.spec.identity.run)
        if counts.stop_requested and is_cancelled(run, stop):
            _stop(run, work, stop)
        run.gpu.look()
        for stall in self.stalls.look(counts.processes):
            _log.warning("%s", stall)
        # The last step of a run that needs no launcher removes the counts.
        self.rows = max(self.rows, counts.rows)
        seconds = time.monotonic() - self.started
        self.tell(Progress(self.rows, run.work.unit_rows, seconds))
        if not run.spec.identity.submitted:  # else its workers do
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
    raise too_many_rejected(rejected, allowed)


def is_cancelled(run: Run, stop: Stop) -> bool:
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
