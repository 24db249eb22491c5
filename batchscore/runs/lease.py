"""Who may write a slice: one process at a time, by numbered lease files."""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType

from batchscore.errors import FailedError, LeaseError, RecordError, RetryError, VersionError
from batchscore.runs import layout
from batchscore.runs.actor import user
from batchscore.runs.holder import (
    EXPIRY_SECONDS,
    RENEWAL_SECONDS,
    Holder,
    describe_holder,
    encode_lease,
    holder,
    last_holder,
    lease_numbers,
    lease_path,
    read_lease,
    utc_now,
)
from batchscore.runs.submission import Ask, Submission
from batchscore.storage.store import Store
from batchscore.system.processes import machine, start_of

QUEUE_SECONDS = 1800.0
"""So long a job may wait for its first worker, from the last sign of its launcher."""
_LOOK_SECONDS = 5.0
_TRIES = 10
Change = Callable[[Holder], Holder]


class Lease:
    """The right to write a slice, renewed by a thread until it is released or left.

    Attributes:
        before: Who had it before and did not give it back, or None.
    """

    def __init__(
        self, store: Store, slice_: str, holder: Holder, before: Holder | None = None
    ) -> None:
        self._store, self._slice, self._holder = store, slice_, holder
        self.before = before
        self._file = _LeaseFile(store, slice_, holder.number, self._is_mine, encode_lease(holder))
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()

    @property
    def number(self) -> int:
        """The lease's number, by which workers ask whether it still `holds`."""
        return self._holder.number

    def is_held(self) -> bool:
        """Tells, by a look at the store, whether no one else has taken the slice."""
        return not self._ended.is_set() and holds(self._store, self._slice, self.number)

    def submit(self, submission: Submission) -> None:
        """Says where the run's job will be, before it is there; from now on workers renew, too.

        Raises:
            LeaseError: Another run took the slice over, or the lease was removed.
        """
        self._holder = replace(self._holder, submission=submission)
        waiting = replace(submission, deadline=_deadline())
        if not self._file.change(lambda found: replace(found, submission=waiting)):
            raise lost(self._slice, self._holder.run, published=False)

    def note_job(self, job: str, detached: bool = False) -> bool:
        """Notes the engine's id of the job, and whether the launcher leaves; False if it is over.

        Once the launcher has left, workers alone renew the lease.
        """

        def noted(found: Holder) -> Holder:
            known = found.submission or Submission("")
            return replace(found, submission=replace(known, job=job, detached=detached))

        done = self._file.change(noted)
        if detached:
            self._end()
        return done

    def release(self) -> None:
        """Gives the slice back; again is fine. Where that cannot be written, it expires."""
        if self._ended.is_set():
            return
        self._end()
        self._file.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _end(self) -> None:
        self._ended.set()
        self._renewer.join()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS):
            # A store that cannot be reached now may be in ten seconds.
            with suppress(OSError, RetryError):
                renewed_by_us = self._file.renew(_waiting_longer, self._holder)
                if renewed_by_us is None and self._file.is_over():
                    return

    def _is_mine(self, found: Holder) -> bool:
        mine = self._holder
        return (found.run, found.since, found.pid) == (mine.run, mine.since, mine.pid)


class Heartbeat:
    """A worker's side of a lease: it renews what its launcher took, for as long as that counts."""

    def __init__(self, store: Store, slice_: str, number: int, run: str) -> None:
        self._file = _LeaseFile(store, slice_, number, lambda found: found.run == run)

    def beat(self) -> bool | None:
        """Renews the lease unless somebody did since the last beat.

        Returns:
            Whether this beat did it; None if the lease does not count any more.
        """
        return self._file.renew(_working)


class _LeaseFile:
    """A lease file that several processes change, each by compare-and-swap.

    One that was released, removed or succeeded is never changed, and never made again.
    """

    def __init__(
        self,
        store: Store,
        slice_: str,
        number: int,
        is_mine: Callable[[Holder], bool],
        seen: bytes = b"",
    ) -> None:
        self._store, self._slice, self._number = store, slice_, number
        self._path, self._is_mine, self._seen = lease_path(slice_, number), is_mine, seen

    def is_over(self) -> bool:
        """Tells whether the lease was released, or somebody took the slice after it."""
        if max(lease_numbers(self._store, self._slice), default=0) > self._number:
            return True
        with suppress(FileNotFoundError, RecordError):
            return read_lease(self._store, self._slice, self._number)[1].released
        return False

    def renew(self, change: Change, known: Holder | None = None) -> bool | None:
        """Renews the lease, unless somebody else did since the last call.

        No clock is asked for that: the file has other bytes then. Of any number of processes that
        renew a lease every ten seconds, about one writes.

        Args:
            change: What becomes of the lease apart from the moment.
            known: What is written in place of a damaged file.

        Returns:
            Whether it was this process that renewed it; None if the lease does not count any more.
        """
        found = self._current(known)
        if found is None:
            return None
        data, holder = found
        # What is more than a renewal is written in any case: that a job has its first worker.
        if data != self._seen and change(holder) == holder:
            self._seen = data
            return False
        return self._exchange(data, renewed(change(holder)))

    def change(self, change: Change) -> bool:
        """Changes the lease; False if it does not count any more."""
        for _ in range(_TRIES):
            found = self._current()
            if found is None:
                return False
            if self._exchange(found[0], renewed(change(found[1]))):
                return True
        return False

    def release(self) -> None:
        """Gives the slice back, unless another run took it, and removes older leases."""
        with suppress(OSError, RetryError):
            numbers = lease_numbers(self._store, self._slice)
            if max(numbers, default=0) > self._number or not self.change(_released):
                return
            for number in set(numbers) - {self._number}:
                self._store.remove(lease_path(self._slice, number))

    def _current(self, known: Holder | None = None) -> tuple[bytes, Holder] | None:
        """Returns the lease's bytes and what they say; None if it does not count any more."""
        if max(lease_numbers(self._store, self._slice), default=0) > self._number:
            return None
        try:
            data, holder = read_lease(self._store, self._slice, self._number)
        except (FileNotFoundError, VersionError):
            return None
        except RecordError:
            if known is None:
                return None
            data, holder = self._store.read(self._path), known
        return None if holder.released or not self._is_mine(holder) else (data, holder)

    def _exchange(self, data: bytes, holder: Holder) -> bool:
        new = encode_lease(holder)
        done = self._store.exchange(self._path, data, new, flush=False)
        self._seen = new if done else data
        return done


def renewed(holder: Holder) -> Holder:
    """Returns a lease as it is after a renewal at this moment."""
    return replace(holder, renewed=utc_now().isoformat())


def _released(holder: Holder) -> Holder:
    # Without the job, so that earlier versions read it.
    return replace(holder, released=True, submission=None)


def _waiting_longer(holder: Holder) -> Holder:
    """Returns a launcher's lease: a job without workers may wait on from now."""
    if holder.submission is None or holder.submission.deadline is None:
        return holder
    return replace(holder, submission=replace(holder.submission, deadline=_deadline()))


def _working(holder: Holder) -> Holder:
    """Returns a lease that a worker has renewed."""
    if holder.submission is None:
        return holder
    return replace(holder, submission=replace(holder.submission, deadline=None))


def _deadline() -> str:
    return (utc_now() + timedelta(seconds=QUEUE_SECONDS)).isoformat()


def release(store: Store, slice_: str, number: int, run: str) -> None:
    """Gives a run's slice back in place of its launcher; again is fine."""
    _LeaseFile(store, slice_, number, lambda found: found.run == run).release()


def acquire(
    store: Store, slice_: str, command: str, run: str = "", ask: Ask = lambda _: "unknown"
) -> Lease:
    """Takes a slice for this process.

    Of many who try at once exactly one gets it. A holder that was killed is succeeded at once on
    the same machine, from elsewhere when it has not renewed its lease for 60 s. Clocks need not
    agree: a renewal that does not look recent is judged by the store's clock. Where that does not
    tell, the lease is watched for 60 s. Whether a job at an engine is alive, the engine decides.

    Args:
        store: The output.
        slice_: The slice.
        command: The command that takes it.
        run: The run that it is taken for, or empty.
        ask: Asks the engine of a job.

    Raises:
        RetryError: Somebody holds it, or any other slice of a store without conditional puts.
        RecordError: A lease file is damaged.
    """
    if not store.is_conditional:
        _require_alone(store, slice_)
    for _ in range(_TRIES):
        last = last_holder(store, slice_)
        patience = _patience(last, ask) if last is not None else 0.0
        if last is not None and _keeps_out(store, slice_, last, patience):
            if math.isinf(patience):
                _let_wait(store, slice_, last)
            raise RetryError(describe_holder(store, slice_, last))
        mine = _claim(last.number + 1 if last else 1, command, run)
        path = lease_path(slice_, mine.number)
        if not store.create_new(path, encode_lease(mine), flush=False):
            continue
        if max(lease_numbers(store, slice_), default=0) == mine.number:
            return Lease(store, slice_, mine, None if last and last.released else last)
        # The number was free because others had come, gone and tidied up since the look.
        store.remove(path)
    raise RetryError(
        f"slice {slice_} of {store.address}: many runs compete for it; run again in a minute"
    )


def _require_alone(store: Store, slice_: str) -> None:
    for other in store.names(f"{layout.HOME}/slices"):
        if other != slice_ and (found := holder(store, other)) is not None:
            raise RetryError(
                f"{describe_holder(store, other, found)}. Runs side by side need a store with "
                "conditional puts, which this one has not: a local disk, S3 or Google Cloud Storage"
            )


def require_free(store: Store, slice_: str, ask: Ask) -> bool:
    """Tells whether the last holder of a slice gave it back; a killed one may have left files.

    This is a look, which trusts clocks, and writes nothing.

    Raises:
        RetryError: Somebody holds it.
    """
    last = last_holder(store, slice_)
    if last is not None and not last.is_over and last.is_within(_patience(last, ask)):
        raise RetryError(describe_holder(store, slice_, last))
    return last is None or last.released


def _patience(last: Holder, ask: Ask) -> float:
    """Returns for how many seconds after its renewal a lease keeps others out, by its engine."""
    if last.job is None or last.released:
        return last.patience
    state = ask(last.job)
    if state == "alive":
        return math.inf
    if state == "unknown":
        return last.patience
    # The launcher ends a run whose job has ended; a job may be unknown to its engine for a while.
    is_watched = not (last.job.detached or last.is_dead)
    return EXPIRY_SECONDS if is_watched or state == "gone" else 0.0


def _let_wait(store: Store, slice_: str, last: Holder) -> None:
    """Gives a job that waits for slots more time, since its engine says that it is alive."""
    file = _LeaseFile(store, slice_, last.number, lambda found: found.run == last.run)
    waits = last.submission is not None and last.submission.deadline is not None
    if waits and last.age > QUEUE_SECONDS / 2:
        with suppress(OSError, RetryError):
            file.change(_waiting_longer)


def _keeps_out(store: Store, slice_: str, last: Holder, patience: float) -> bool:
    """Tells whether a lease is alive, whatever its holder's clock and this machine's say."""
    if last.is_over or math.isinf(patience) or not patience:
        return not last.is_over and patience > 0
    if last.is_within(patience):
        return True
    age = None
    with suppress(FileNotFoundError):  # renewed, released or removed at this moment
        age = store.age(lease_path(slice_, last.number))
    if age is None or age < -RENEWAL_SECONDS:
        return patience > EXPIRY_SECONDS or _is_renewed(store, slice_, last)
    return age <= patience


def _is_renewed(store: Store, slice_: str, last: Holder) -> bool:
    """Watches a lease for as long as a living holder may take to renew it, by this clock alone."""
    started = _monotonic()
    while _monotonic() - started < EXPIRY_SECONDS:
        _sleep(_LOOK_SECONDS)
        now = last_holder(store, slice_)
        if now != last:
            return now is not None and not now.is_over
    return False


def holds(store: Store, slice_: str, number: int, run: str = "") -> bool:
    """Tells whether a lease counts: none has a higher number, and it is not released.

    Whoever holds it may have been too slow to renew it; as long as nobody else came, it counts.

    Args:
        run: The run that it must be of, or empty. Numbers come again where an output was removed.
    """
    if max(lease_numbers(store, slice_), default=0) != number:
        return False
    with suppress(FileNotFoundError):
        found = read_lease(store, slice_, number)[1]
        return not found.released and run in ("", found.run)
    return False


def is_taken_over(store: Store, slice_: str, number: int) -> bool:
    """Tells whether somebody took a slice after the holder of a lease."""
    return max(lease_numbers(store, slice_), default=0) > number


def require_lease(store: Store, slice_: str, number: int, run: str) -> None:
    """Checks that a run still holds its slice.

    Raises:
        FailedError: Another run took the slice over, or the lease was removed.
    """
    if holds(store, slice_, number, run):
        return
    if is_taken_over(store, slice_, number):
        raise lost(slice_, run, published=False)
    raise FailedError(
        f"output {store.address}: {lease_path(slice_, number)} was removed or replaced while run "
        f"{run} was under way; nothing was published: run again"
    )


def _claim(number: int, command: str, run: str) -> Holder:
    now = utc_now().isoformat()
    return Holder(
        number=number,
        run=run,
        command=command,
        user=user(),
        host=platform.node(),
        pid=os.getpid(),
        started=start_of(os.getpid()) or "",
        machine=machine(),
        since=now,
        renewed=now,
        released=False,
    )


def lost(slice_: str, run: str, published: bool) -> LeaseError:
    """Returns the error of a run whose slice another one took over while it slept.

    Args:
        published: What the run made was published all the same, by this process or by the other.
    """
    outcome = (
        "what it made was published all the same; `batchscore runs` shows what is published now"
        if published
        else "nothing of it was published; run again, its finished units are kept"
    )
    return LeaseError(
        f"run {run} does not hold slice {slice_!r} any more: another run took it over when this "
        f"one had not renewed its lease for {EXPIRY_SECONDS:.0f} s; {outcome}"
    )


_monotonic, _sleep = time.monotonic, time.sleep
