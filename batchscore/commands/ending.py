"""Why a run ended without a result: what disturbed it, and the error that its command ends with."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from batchscore.engines.protocol import Handle
from batchscore.errors import BatchscoreError, FailedError, InvalidError, LeaseError, RetryError
from batchscore.messages.wording import counted, one_line
from batchscore.runs import layout
from batchscore.runs.failures import (
    describe,
    find_misfit,
    find_os_error,
    find_own_error,
    read_failure,
)
from batchscore.runs.history import read_manifest
from batchscore.runs.lease import holds, is_taken_over, lost, require_lease
from batchscore.runs.progress import read_counts
from batchscore.runs.publication import journal_path
from batchscore.runs.worker_logs import read_logs
from batchscore.worker.spec import RunSpec

_LINES = 3
"""So many lines of a worker's log a message shows."""


def is_publishing(spec: RunSpec) -> bool:
    """Tells whether the publication of the run was started and is not finished."""
    return spec.output.exists(journal_path(spec.slice, spec.identity.run))


def is_held(spec: RunSpec) -> bool:
    """Tells whether no other run has taken the slice over."""
    return holds(spec.output, spec.slice, spec.identity.lease)


def taken_over(spec: RunSpec) -> LeaseError:
    """Returns the error of a run that slept past its lease; the manifest tells its outcome."""
    with suppress(InvalidError):
        status = read_manifest(spec.output, spec.identity.run).status
        return lost(spec.slice, spec.identity.run, status in ("published", "empty", "revoked"))
    return lost(spec.slice, spec.identity.run, published=False)


def unfinished(run: str, cause: Exception) -> BatchscoreError:
    """Returns the error of a run whose publication has a journal that is still there."""
    kind = RetryError if isinstance(cause, RetryError) else FailedError
    why = str(cause) if isinstance(cause, BatchscoreError) else describe(cause)["message"]
    return kind(
        f"the publication of run {run} was started and is not finished ({why}); the next run, "
        "release, discard or rollback of the slice finishes it"
    )


def failed(cause: BaseException) -> FailedError:
    """Returns an error of another library as one of ours."""
    failure = FailedError(describe(cause)["message"])
    failure.__cause__ = cause
    return failure


def disturbed(spec: RunSpec) -> FailedError | None:
    """Returns what to report where somebody took the slice over, or removed output or lease."""
    store, run = spec.output, spec.identity.run
    try:
        if not layout.is_claimed(store):
            return removed(spec, "")
        if is_taken_over(store, spec.slice, spec.identity.lease):
            return taken_over(spec)
        require_lease(store, spec.slice, spec.identity.lease, run)
    except FailedError as error:
        return error
    except OSError:  # the store cannot be reached: the error itself says so
        return None
    return None


def removed(spec: RunSpec, what: str) -> FailedError:
    """Returns the error of a run whose output, or `what` of it, is gone."""
    return FailedError(
        f"output {spec.output.address}: {what}was removed while run {spec.identity.run} was under "
        "way; nothing was published: run again"
    )


def explained(spec: RunSpec, error: BaseException) -> BatchscoreError:
    """Returns what an engine's error comes from: a worker's own, where it could write that down."""
    run, elsewhere = spec.identity.run, spec.shipment is not None
    found = read_failure(spec.output, run, elsewhere=elsewhere)
    if found is not None:
        failure, trace = found
        failure.__cause__ = RuntimeError(trace)
        return failure
    cause = _first_cause(error)
    if isinstance(cause, BatchscoreError):
        return cause
    failure = find_own_error(str(cause)) or _unsaid(spec, cause)
    failure.__cause__ = error
    return failure


def _unsaid(spec: RunSpec, cause: BaseException) -> FailedError:
    """Returns an engine's error with what workers elsewhere did when they ended without one."""
    message = describe(find_os_error(str(cause)) or cause)["message"]
    if spec.shipment is not None and (last := _last_words(spec)):
        own = spec.execution.model_process
        hint = "" if own else "; runtime.model_process: on rejects a row that crashes the model"
        message = (
            f"{last}. A function or the model may end its process, as too little memory does"
            f"{hint}; finished units are kept; {message}"
        )
    return FailedError(message)


def _last_words(spec: RunSpec) -> str | None:
    """Returns which unit workers were on that ended without an error, and what the last logged.

    Each time that an engine starts work again, another process works on the unit.
    """
    store, run = spec.output, spec.identity.run
    found = [
        (each.at, doing, each) for each in read_counts(store, run).processes for doing in each.units
    ]
    if not found:
        return None
    [(unit, times)] = Counter(doing.unit for _, doing, _ in found).most_common(1)
    _, doing, worker = max((e for e in found if e[1].unit == unit), key=lambda each: each[0])
    lines = [
        line
        for log in read_logs(store, spec.slice, run)
        if (log.host, log.pid) == (worker.host, worker.pid)
        for line in log.lines
    ]
    said = "; ".join(one_line(f"{line.source}: {line.message}", 200) for line in lines[-_LINES:])
    return (
        f"unit {one_line(unit)} ({one_line(doing.shards, 200)}) was under way on "
        f"{counted(times, 'worker process')} that ended without an error, the last on "
        f"{one_line(worker.host)}, process {worker.pid}, which "
        + (f"last logged: {said}" if said else "logged nothing")
    )


def misfit(work: Handle) -> tuple[FailedError, str] | None:
    """Returns the error of workers that cannot do any work, and could not write that down."""
    # A handle of another package may have no such method.
    trouble = work.trouble() if hasattr(work, "trouble") else None
    found = find_misfit(trouble) if trouble else None
    return (found, trouble or "") if found else None


def _first_cause(error: BaseException) -> BaseException:
    """Returns what an engine wrapped, where workers could not write it down."""
    while not isinstance(error, (BatchscoreError, OSError)) and error.__cause__ is not None:
        error = error.__cause__
    return error
