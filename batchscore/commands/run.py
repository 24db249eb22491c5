"""Starts a run, watches it, and sees to it that it ends whole: what `batchscore run` does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from batchscore.engines.workers import start_server
from batchscore.errors import BatchscoreError, FailedError, OutputError, StoppedError
from batchscore.finish import failed_manifest
from batchscore.plan import Plan, plan_facts
from batchscore.runs import layout
from batchscore.runs.failures import describe, read_failure
from batchscore.runs.history import read_manifest
from batchscore.runs.progress import read_rows, request_stop
from batchscore.runs.publish import is_pending, published_run, roll_forward, snapshot
from batchscore.spec import RunSpec

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows that came to their end, of all that its units read, and seconds."""

    rows: int
    total: int
    seconds: float


class Stop:
    """Asked by a signal handler, heeded by a run: the signal's number, or None."""

    signal: int | None = None


def last_same(plan: Plan) -> dict[str, Any] | None:
    """Returns the manifest of what is published if a run would publish the same again."""
    spec = plan.spec
    run = published_run(spec.output, spec.slice)
    if run is None:
        return None
    manifest = read_manifest(spec.output, run)
    files = {str(file["path"]) for file in manifest["files"]}
    whole = set(snapshot(spec.output, spec.slice)) == files
    whole = whole and all(spec.output.exists(path) for path in files)
    return manifest if whole and manifest.get("fingerprint") == plan.fingerprint else None


def run_plan(
    plan: Plan,
    flags: Sequence[str],
    rescore: bool,
    watch: Callable[[Progress], None],
    stop: Stop,
) -> dict[str, Any]:
    """Runs a plan and returns its manifest, with the status `unchanged` where nothing was to do.

    Args:
        flags: Beam's own options.
        rescore: scores even what would come out the same.
        watch: is called about twice a second.
        stop: ends the run at the next batch once its signal is set.

    Raises:
        BatchscoreError: the run failed or was stopped; nothing was published, its manifest says so.
    """
    # Beam and torch take seconds to import: a run that has nothing to do is spared them.
    if flags:
        from batchscore.engines import direct

        direct.parse_options(flags)
    _repair(plan.spec)
    same = None if rescore else last_same(plan)
    if same is not None:
        return {**same, "status": "unchanged"}
    if plan.workers > 1:
        start_server()
    from batchscore.plan.verify import verify

    return _run(verify(plan), flags, watch, stop)


def _run(
    plan: Plan, flags: Sequence[str], watch: Callable[[Progress], None], stop: Stop
) -> dict[str, Any]:
    with _writable(plan.spec):
        layout.claim_output(plan.spec.output)
        run = layout.new_run_id(plan.spec.output)
        plan = replace(plan, spec=replace(plan.spec, run=run))
        facts = plan_facts(plan, datetime.now(timezone.utc).isoformat(timespec="milliseconds"))
        plan.spec.output.write_json(layout.run_file(run, "plan.json"), facts)
    try:
        metrics = _watched(plan, flags, watch, stop)
        return _close(plan.spec, metrics)
    except BatchscoreError as error:
        if plan.spec.output.exists(layout.run_file(run, "manifest.json")):
            # The last step was done before things went wrong: its outcome stands.
            return _close(plan.spec, [])
        _remove_staging(plan.spec)
        _record_failure(plan.spec, facts, error)
        raise
    finally:
        _remove_staging(plan.spec)


def _remove_staging(spec: RunSpec) -> None:
    """Removes what was not published; what a journal still needs stays."""
    if not is_pending(spec.output, spec.slice):
        spec.output.remove(layout.staging(spec.run))


def _repair(spec: RunSpec) -> None:
    """Finishes a publication that an earlier run began."""
    with _writable(spec):
        run = roll_forward(spec.output, spec.slice)
        if run is not None:
            spec.output.remove(layout.staging(run))


@contextmanager
def _writable(spec: RunSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output {spec.output.address}: cannot be written ({error}); "
            "grant the permission, or choose another folder"
        ) from error


class _Work(threading.Thread):
    """The engine on a thread of its own, so that this one can watch and be interrupted."""

    def __init__(self, plan: Plan, flags: Sequence[str], stop: Stop) -> None:
        super().__init__(daemon=True)
        self._plan, self._flags, self._request = plan, flags, stop
        self.begun = False
        self.metrics: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self.lost: str | None = None

    def run(self) -> None:
        """Runs the pipeline to its end."""
        try:
            from batchscore.engines import direct
            from batchscore.pipeline import build

            if self._request.signal is not None:
                return
            self.begun = True
            spec, units, workers = self._plan.spec, self._plan.units, self._plan.workers
            options = direct.parse_options(self._flags)
            self.metrics = direct.run(
                lambda p: build(p, spec, units), options, workers, self._note_lost
            )
        except BaseException as error:
            self.error = error

    def _note_lost(self, reason: str) -> None:
        self.lost = reason


def _watched(
    plan: Plan, flags: Sequence[str], watch: Callable[[Progress], None], stop: Stop
) -> list[dict[str, Any]]:
    spec = plan.spec
    work = _Work(plan, flags, stop)
    started = time.monotonic()
    work.start()
    while work.is_alive():
        work.join(_LOOK_SECONDS)
        if stop.signal is not None:
            _stop(spec, work, stop.signal)
        if work.lost is not None and work.is_alive():
            raise FailedError(
                f"{work.lost}; nothing was published. Where memory ran out, lower "
                "runtime.workers or runtime.batch_rows, and run again"
            )
        watch(
            Progress(read_rows(spec.output, spec.run), plan.unit_rows, time.monotonic() - started)
        )
    if work.error is not None:
        raise _explained(spec, work.error)
    if stop.signal is not None and not work.begun:
        raise stopped(stop.signal)
    return work.metrics


def _stop(spec: RunSpec, work: _Work, signal: int) -> None:
    """Waits for the workers to stop; a run that had just been published is not stopped."""
    if work.begun:
        request_stop(spec.output, spec.run)
        work.join(_GRACE_SECONDS)
    if not work.begun or work.is_alive() or work.error is not None:
        raise stopped(signal)


def stopped(signal: int) -> StoppedError:
    """Returns the error of a run that a signal ended, with the exit code that shells expect."""
    error = StoppedError("stopped; nothing was published. The same command starts it again")
    error.exit_code = 128 + signal
    return error


def _explained(spec: RunSpec, error: BaseException) -> BatchscoreError:
    found = read_failure(spec.output, spec.run)
    if found is not None:
        failure, trace = found
        failure.__cause__ = RuntimeError(trace)
        return failure
    cause = _first_cause(error)
    if isinstance(cause, BatchscoreError):
        return cause
    failure = FailedError(describe(cause)["message"])
    failure.__cause__ = error
    return failure


def _first_cause(error: BaseException) -> BaseException:
    """Returns what an engine wrapped, where workers could not write it down."""
    while not isinstance(error, (BatchscoreError, OSError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _close(spec: RunSpec, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = read_manifest(spec.output, spec.run)
    manifest["beam_metrics"] = metrics
    spec.output.write_json(layout.run_file(spec.run, "manifest.json"), manifest)
    return manifest


def _record_failure(spec: RunSpec, facts: dict[str, Any], error: BatchscoreError) -> None:
    manifest = failed_manifest(spec, facts, error.status, str(error))
    # Where even this cannot be written, the error itself must still be told.
    with suppress(OSError):
        spec.output.write_json(layout.run_file(spec.run, "manifest.json"), manifest)
