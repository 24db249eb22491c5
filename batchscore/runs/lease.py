"""Who may write a slice: one process at a time, by numbered lease files."""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from batchscore.errors import FailedError, LeaseError, RecordError, RetryError
from batchscore.runs.actor import user
from batchscore.runs.holder import (
    EXPIRY_SECONDS,
    RENEWAL_SECONDS,
    Holder,
    describe_holder,
    encode_lease,
    last_holder,
    lease_numbers,
    lease_path,
    read_lease,
    utc_now,
)
from batchscore.storage.durable import unfinished_name
from batchscore.storage.store import Store
from batchscore.system.processes import machine, start_of

_LOOK_SECONDS = 5.0
_TRIES = 10


class Lease:
    """The right to write a slice, renewed by a thread until it is released."""

    def __init__(self, store: Store, slice_: str, holder: Holder) -> None:
        self._store, self._slice, self._holder = store, slice_, holder
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

    def release(self) -> None:
        """Gives the slice back; again is fine. Where that cannot be written, it expires."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._renewer.join()
        with suppress(OSError):
            numbers = lease_numbers(self._store, self._slice)
            if max(numbers, default=0) > self.number or not self._is_there():
                return
            self._write(released=True)
            for number in set(numbers) - {self.number}:
                self._store.remove(lease_path(self._slice, number))

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS):
            # A store that cannot be reached now may be in ten seconds.
            with suppress(OSError):
                if max(lease_numbers(self._store, self._slice), default=0) > self.number:
                    return
                if self._is_there():
                    self._write(released=False)

    def _is_there(self) -> bool:
        """Tells whether the lease file is this one's; one that was removed is not made again."""
        try:
            found = read_lease(self._store, self._slice, self.number)[1]
        except FileNotFoundError:
            return False
        except RecordError:  # a damaged one is written again
            return True
        return (found.run, found.since, found.pid) == self._identity

    @property
    def _identity(self) -> tuple[str, str, int]:
        return self._holder.run, self._holder.since, self._holder.pid

    def _write(self, released: bool) -> None:
        facts = replace(self._holder, renewed=utc_now().isoformat(), released=released)
        self._store.write(lease_path(self._slice, self.number), encode_lease(facts), flush=False)


def acquire(store: Store, slice_: str, command: str, run: str = "") -> Lease:
    """Takes a slice for this process.

    Of many who try at once exactly one gets it. A holder that was killed is succeeded at once on
    the same machine, from elsewhere when it has not renewed its lease for 60 s. Clocks need not
    agree: a renewal that does not look recent is judged by the store's clock. Where that does not
    tell, the lease is watched for 60 s.

    Raises:
        RetryError: Somebody holds it.
        RecordError: A lease file is damaged.
    """
    for _ in range(_TRIES):
        last = last_holder(store, slice_)
        if last is not None and _keeps_out(store, slice_, last):
            raise RetryError(describe_holder(store, slice_, last))
        mine = _claim(last.number + 1 if last else 1, command, run)
        path = lease_path(slice_, mine.number)
        if not store.create_new(path, encode_lease(mine), flush=False):
            continue
        if max(lease_numbers(store, slice_), default=0) == mine.number:
            return Lease(store, slice_, mine)
        # The number was free because others had come, gone and tidied up since the look.
        store.remove(path)
    raise RetryError(
        f"slice {slice_} of {store.address}: many runs compete for it; run again in a minute"
    )


def _keeps_out(store: Store, slice_: str, last: Holder) -> bool:
    """Tells whether a lease is alive, whatever its holder's clock and this machine's say."""
    if last.is_over or last.is_alive:
        return not last.is_over
    age = _age_in_store(store, lease_path(slice_, last.number))
    if age is None or age < -RENEWAL_SECONDS:
        return _is_renewed(store, slice_, last)
    return age <= EXPIRY_SECONDS


def _age_in_store(store: Store, path: str) -> float | None:
    """Returns the seconds since a lease was renewed, by the store's clock; None if it tells none.

    The store dates a file that is written now, too, so that no other clock is needed.
    """
    probe = unfinished_name(path)
    with suppress(FileNotFoundError):  # renewed, released or removed at this moment
        store.write(probe, b"")
        try:
            now, then = store.written(probe), store.written(path)
        finally:
            store.remove(probe)
        return None if now is None or then is None else now - then
    return None


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
