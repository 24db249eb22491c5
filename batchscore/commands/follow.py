"""Follows a run by its output alone, from any machine, and asks it to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from batchscore.commands.stop import Stop
from batchscore.commands.tidy import repair
from batchscore.commands.unwatched import ask, has_ended, take
from batchscore.commands.unwritable import writable
from batchscore.engines.jobs import cancel_job
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    InvalidError,
    RecordError,
    RetryError,
    VersionError,
)
from batchscore.messages.wording import counted, one_line
from batchscore.runs import layout
from batchscore.runs.actor import actor
from batchscore.runs.history import newest, read_manifest
from batchscore.runs.holder import Holder, last_holder, seconds_since
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Progress, request_stop
from batchscore.runs.publication import journal_path
from batchscore.runs.run_plan import read_plan
from batchscore.runs.underway import Activity, describe_activity, find_activities
from batchscore.storage.store import Store

_LOOK_SECONDS = 1.0
# The launcher completes the manifest, and purges old files, before it gives the slice back.
_ENDING_SECONDS = 10.0
_CANCEL_SECONDS = 120.0
# So long a launcher that watches has to end a run and its job by itself.
_LAUNCHER_SECONDS = 20.0
_UNSTOPPED = ("published", "empty", "held")

Watch = Callable[[Progress], None]
"""Takes how far a run is, each time that somebody looked."""


@dataclass(frozen=True)
class Followed:
    """A run that is followed, and the slice that it is of."""

    store: Store
    slice: str
    run: str

    @property
    def is_publishing(self) -> bool:
        """Whether its publication was started and is not finished."""
        return self.store.exists(journal_path(self.slice, self.run))

    @property
    def manifest(self) -> Manifest | None:
        """What it came to; None as long as it has not ended, InvalidError if it is damaged."""
        if not self.store.exists(layout.run_file(self.run, "manifest.json")):
            return None
        try:
            return read_manifest(self.store, self.run)
        except RecordError as error:
            raise InvalidError(f"run {self.run!r}: cannot be followed; {error}") from error

    def holder(self) -> Holder | None:
        """Returns the run's lease if nobody took the slice later, given back or not.

        Raises:
            InvalidError: The slice's lease cannot be read.
        """
        try:
            last = last_holder(self.store, self.slice)
        except RecordError as error:
            raise InvalidError(f"run {self.run!r}: cannot be followed; {error}") from error
        return last if last is not None and last.run == self.run else None


def find_run(store: Store, slice_: str | None, run: str | None) -> Followed:
    """Returns the run that is meant: by default the one under way, else the newest.

    Raises:
        InvalidError: There is no such run, or several are under way.
    """
    if run is None:
        return _only_run(store, slice_)
    run = _run_of_job(store, run) or run
    found = _slice_of(store, run)
    if slice_ not in (None, found):
        raise InvalidError(
            f"run {run!r}: belongs to slice {found!r}, not to {slice_!r}; name the slice that it "
            "belongs to"
        )
    return Followed(store, found, run)


def _only_run(store: Store, slice_: str | None) -> Followed:
    found = [each for each in find_activities(store, slice_) if isinstance(each, Activity)]
    runs = [each for each in found if each.run]
    if len(runs) > 1:
        names = ", ".join(f"{each.run} of slice {each.slice}" for each in runs[:5])
        raise InvalidError(
            f"{store.address}: {counted(len(runs), 'run')} are under way ({names}); name one"
        )
    if runs:
        return Followed(store, runs[0].slice, runs[0].run)
    last = newest(store, slice_)
    return Followed(store, last.slice, last.run)


def _run_of_job(store: Store, job: str) -> str:
    """Returns the run under way that an engine knows by the id of a job; empty if there is none."""
    known = find_activities(store, None)
    return next((e.run for e in known if isinstance(e, Activity) and e.job == job and job), "")


def _slice_of(store: Store, run: str) -> str:
    """Returns the slice of a run, which may be about to open; InvalidError if it is unknown."""
    if run in store.names(f"{layout.HOME}/work"):
        try:
            return read_plan(store, run).slice
        except VersionError:
            raise
        except (FileNotFoundError, RecordError):  # not yet opened, or just closed
            pass
    known = find_activities(store, None)
    held = [each.slice for each in known if isinstance(each, Activity) and run and each.run == run]
    return held[0] if held else read_manifest(store, run).slice


def wait_for(followed: Followed, watch: Watch, timeout: float | None = None) -> Manifest:
    """Waits until a run has ended, and returns its manifest.

    A run that nobody works on any more is closed, as the next run of its slice would do it.

    Args:
        followed: The run.
        watch: Called about once a second.
        timeout: Seconds after which to give up; None waits for as long as it takes.

    Raises:
        RetryError: It has not ended in time.
        InvalidError: The slice's lease is damaged, the output was removed, or the run was never
            opened.
        FailedError: Nobody works on it any more, and it could not be closed.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while (ended := _look(followed, watch)) is None:
        left = _LOOK_SECONDS if end is None else end - time.monotonic()
        if left <= 0:
            raise RetryError(_unended(followed, f"after {timeout:g} s"))
        time.sleep(min(left, _LOOK_SECONDS))
    return ended


def follow_on(followed: Followed, watch: Watch, stop: Stop) -> Manifest | None:
    """Follows a run in place of its launcher to its end; None if somebody has it left.

    Raises:
        BatchscoreError: As `wait_for` does.
    """
    while not stop.leave:
        if stop.signal is not None:
            with suppress(InvalidError, FailedError, RetryError):
                return cancel_run(followed, watch)
            return wait_for(followed, watch)  # it ends, and cannot be stopped
        with suppress(RetryError):
            return wait_for(followed, watch, _LOOK_SECONDS)
    return None


def _look(followed: Followed, watch: Watch) -> Manifest | None:
    """Returns the manifest of a run that has ended; None as long as somebody works on it."""
    # The lease first: a run writes its manifest before it gives the slice back.
    last = followed.holder()
    mine = last if last is not None and not last.released else None
    lost = mine is None or _is_lost(followed.store, mine)
    manifest = None if followed.is_publishing else followed.manifest
    if manifest is not None and (lost or _is_late(manifest)):
        return manifest
    if mine is not None:
        _tell(describe_activity(followed.store, followed.slice, mine), watch)
    return _close(followed) if lost else None


def _is_lost(store: Store, last: Holder) -> bool:
    """Tells whether nobody seems to work on a run, so that it may be closed."""
    if last.is_over or last.age > last.patience or has_ended(store, last):
        return True
    return last.job is not None and ask(last.job) in ("ended", "gone")


def _is_late(manifest: Manifest) -> bool:
    """Tells whether a run has ended for so long that its launcher may have died on the way out."""
    return manifest.finished is None or seconds_since(manifest.finished) > _ENDING_SECONDS


def _tell(activity: Activity, watch: Watch) -> None:
    if activity.total is None:
        return
    speed = activity.rows_per_s
    seconds = activity.rows / speed if speed else 0.0
    watch(Progress(activity.rows, activity.total, seconds, activity.state))


def _close(followed: Followed) -> Manifest | None:
    """Closes a run that nobody seems to work on; None if somebody does all the same.

    The lease decides that: it judges by the store's clock where clocks do not agree.
    """
    store, run = followed.store, followed.run
    if not layout.is_claimed(store):
        raise InvalidError(f"run {run!r}: its output {store.address} was removed")
    try:
        with writable(store), take(store, followed.slice, f"close {run}") as lease:
            repair(store, followed.slice, lease.is_held)
    except RetryError:
        return None
    except (BatchscoreError, OSError) as error:
        if (ended := followed.manifest) is not None:
            return ended
        raise FailedError(
            f"run {run}: nobody works on it any more, and it could not be closed ({error}); the "
            "next run of its slice closes it, and resumes what it finished"
        ) from error
    if (ended := followed.manifest) is not None:
        return ended
    raise InvalidError(
        f"run {run!r}: ended before it was opened, and left no manifest; its own command says why"
    )


def _unended(followed: Followed, when: str) -> str:
    """Says how far a run is that has not ended."""
    last, far = followed.holder(), ""
    if last is not None:
        found = describe_activity(followed.store, followed.slice, last)
        rows = f", {found.rows:,} of {counted(found.total, 'row')}" if found.total else ""
        far = f" ({found.state}{rows})"
    return f"run {followed.run} has not ended {when}{far}; it goes on"


def cancel_run(followed: Followed, watch: Watch) -> Manifest:
    """Asks a run to stop, through its output and its engine; returns its manifest once it has.

    Raises:
        InvalidError: It has ended, publishes already, or nobody works on it; or the output cannot
            be written.
        FailedError: It was published, or is held, before it could stop.
        RetryError: It has not stopped in time.
    """
    _require_under_way(followed)
    with writable(followed.store):
        request_stop(followed.store, followed.run, actor())
    start = time.monotonic()
    ended, asked = None, False
    while ended is None and time.monotonic() - start < _CANCEL_SECONDS:
        asked = asked or _cancel_job(followed, time.monotonic() - start)
        time.sleep(_LOOK_SECONDS)
        ended = _look(followed, watch)
    if ended is None:
        raise RetryError(
            f"{_unended(followed, f'{_CANCEL_SECONDS:.0f} s after it was asked to stop')} until "
            "it notices; `batchscore wait` follows it"
        )
    if ended.status in _UNSTOPPED:
        raise FailedError(
            f"run {followed.run}: is {ended.status}, since it ended before it could stop; "
            f"{_remedy(ended.status)}"
        )
    return ended


def _require_under_way(followed: Followed) -> None:
    """Raises InvalidError if there is nothing to cancel."""
    run, last = followed.run, followed.holder()
    if followed.is_publishing:
        raise InvalidError(
            f"run {run!r}: is being published, which cannot be cancelled; "
            f"{_remedy('published')} once it has ended"
        )
    ended = followed.manifest
    if ended is None and (last is None or last.released or last.is_over):
        ended = _close(followed)
    if ended is not None:
        remedy = f"; {_remedy(ended.status)}" if ended.status in _UNSTOPPED else ""
        why = f" ({one_line(ended.why, 300)})" if ended.why else ""
        raise InvalidError(
            f"run {run!r}: is {ended.status}{why}, and only a run under way can be "
            f"cancelled{remedy}"
        )


def _remedy(status: str) -> str:
    taken_back = "`batchscore rollback --undo` takes it back"
    return "`batchscore discard` drops it" if status == "held" else taken_back


def _cancel_job(followed: Followed, seconds: float) -> bool:
    """Has the engine end the job of a run that no launcher ends; tells whether it was asked."""
    last = followed.holder()
    job = last.job if last is not None and not last.released else None
    if last is None or job is None:
        return False
    alone = job.detached or last.is_dead or seconds > _LAUNCHER_SECONDS
    return alone and cancel_job(job)
