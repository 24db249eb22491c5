"""Runs whose launchers may be gone: their engines are asked before anybody takes their slices."""

from __future__ import annotations

import time
from contextlib import suppress

from batchscore.errors import BatchscoreError, FailedError
from batchscore.runs import layout
from batchscore.runs.failures import find_own_error, read_failure, recorded, shortened
from batchscore.runs.holder import Holder
from batchscore.runs.lease import Lease, acquire
from batchscore.runs.submission import JobState, Submission
from batchscore.storage.store import Store

_END_SECONDS = 30.0
_LOOK_SECONDS = 0.5


def ask(submission: Submission) -> JobState:
    """Asks the engine of a job for its state."""
    # Few slices have a job, and an engine imports much.
    from batchscore.engines.jobs import job_state

    return job_state(submission)


def take(store: Store, slice_: str, command: str, run: str = "") -> Lease:
    """Takes a slice, as `acquire` does, once the engine of its last run says that it may be taken.

    What is left of that run at its engine is cancelled. Its late workers write nothing any more.

    Raises:
        RetryError: Somebody holds it, or an engine works on it.
        RecordError: A lease file is damaged.
    """
    lease = acquire(store, slice_, command, run, ask)
    before = lease.before
    if before is not None and before.job is not None:
        _note_error(store, before.run, before.job)
        _cancel(before.job)
    return lease


def _note_error(store: Store, run: str, submission: Submission) -> None:
    """Writes down what the engine says of a job that failed, unless its workers did so."""
    from batchscore.engines.jobs import job_error

    if not store.exists(layout.plan_file(run)) or read_failure(store, run) is not None:
        return
    if text := job_error(submission):
        with suppress(BatchscoreError, OSError), recorded(store, run):
            raise find_own_error(text) or FailedError(shortened(text))


def has_ended(store: Store, last: Holder) -> bool:
    """Tells whether the engine has ended the job of a run that nobody watches, so that it is left.

    A job whose workers met what they would meet again is cancelled first.
    """
    submission = last.job
    if submission is None or last.released or not (submission.detached or last.is_dead):
        return False
    state = ask(submission)
    if state == "alive" and _must_fail(store, last):
        _cancel(submission)
        _await_end(submission)
        state = ask(submission)
    return state == "ended"


def _must_fail(store: Store, last: Holder) -> bool:
    """Tells whether a run cannot end well, and its last step has not said so."""
    if store.exists(layout.run_file(last.run, "manifest.json")):
        return False
    return read_failure(store, last.run, final=True) is not None


def _cancel(submission: Submission) -> None:
    if ask(submission) in ("alive", "unknown"):
        from batchscore.engines.jobs import cancel_job

        cancel_job(submission)


def _await_end(submission: Submission) -> None:
    end = time.monotonic() + _END_SECONDS
    while ask(submission) == "alive" and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
