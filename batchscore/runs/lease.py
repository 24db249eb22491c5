"""Who may write a slice: one process at a time, by numbered lease files."""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from types import TracebackType

from batchscore.errors import FailedError, LeaseError, RecordError, RetryError
from batchscore.messages.wording import reason
from batchscore.runs import layout
from batchscore.runs.actor import user
from batchscore.storage.documents import parse_json
from batchscore.storage.durable import unfinished_name
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import require_version
from batchscore.system.processes import machine, start_of

EXPIRY_SECONDS = 60.0
"""A lease that was not renewed for so long is over; it is renewed six times as often."""
_RENEWAL_SECONDS = 10.0
_LOOK_SECONDS = 5.0
_TRIES = 10
_MOST_BYTES = 1 << 16
# A lease without the key is of version 1: earlier commits refuse one that has other keys.
_VERSION = "batchscore_lease"
_NEWEST = 1
_NAME = re.compile(r"([0-9]{8})\.json")


@dataclass(frozen=True)
class Holder:
    """Who holds, or held, a slice: what its lease file says.

    Args:
        number: Number of the lease; the highest of a slice is the one that counts.
        run: The run that it is held for, or empty.
        command: The command that holds it.
        user: Who started the command.
        host: The machine's name.
        pid: The process.
        started: The process's start, as its machine counts it, or empty: a pid is used again.
        machine: Names a boot of a machine and a space of process ids in it.
        since: When it was taken, ISO 8601 in UTC.
        renewed: When it was last renewed, ISO 8601 in UTC.
        released: Whether it was given back.
    """

    number: int
    run: str
    command: str
    user: str
    host: str
    pid: int
    started: str
    machine: str
    since: str
    renewed: str
    released: bool

    @property
    def age(self) -> float:
        """Seconds since it was renewed, by the reader's clock."""
        return _seconds_since(self.renewed)

    @property
    def is_alive(self) -> bool:
        """Whether it keeps others out, if the holder's clock and the reader's agree."""
        return not self.is_over and self.is_recent

    @property
    def is_recent(self) -> bool:
        """Whether the holder's clock dates the last renewal within a minute of the reader's now."""
        return -_RENEWAL_SECONDS <= self.age <= EXPIRY_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether it was released, or its process is known to be dead."""
        return self.released or self._is_dead

    @property
    def _is_dead(self) -> bool:
        if self.machine != machine():
            return False
        start = start_of(self.pid)
        # What one of them does not tell cannot differ.
        return start is None or ("" not in (start, self.started) and start != self.started)


_NAMES = frozenset(each.name for each in fields(Holder))


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
            numbers = _numbers(self._store, self._slice)
            if max(numbers, default=0) > self.number or not self._is_there():
                return
            self._write(released=True)
            for number in set(numbers) - {self.number}:
                self._store.remove(_path(self._slice, number))

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
        while not self._ended.wait(_RENEWAL_SECONDS):
            # A store that cannot be reached now may be in ten seconds.
            with suppress(OSError):
                if max(_numbers(self._store, self._slice), default=0) > self.number:
                    return
                if self._is_there():
                    self._write(released=False)

    def _is_there(self) -> bool:
        """Tells whether the lease file is this one's; one that was removed is not made again."""
        try:
            found = _read(self._store, self._slice, self.number)
        except FileNotFoundError:
            return False
        except RecordError:  # a damaged one is written again
            return True
        return (found.run, found.since, found.pid) == self._identity

    @property
    def _identity(self) -> tuple[str, str, int]:
        return self._holder.run, self._holder.since, self._holder.pid

    def _write(self, released: bool) -> None:
        facts = replace(self._holder, renewed=_now().isoformat(), released=released)
        self._store.write_json(_path(self._slice, self.number), asdict(facts), flush=False)


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
        path = _path(slice_, mine.number)
        if not store.create_new(path, encode_json(asdict(mine)), flush=False):
            continue
        if max(_numbers(store, slice_), default=0) == mine.number:
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
    age = _age_in_store(store, _path(slice_, last.number))
    if age is None or age < -_RENEWAL_SECONDS:
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
    if max(_numbers(store, slice_), default=0) != number:
        return False
    with suppress(FileNotFoundError):
        found = _read(store, slice_, number)
        return not found.released and run in ("", found.run)
    return False


def is_taken_over(store: Store, slice_: str, number: int) -> bool:
    """Tells whether somebody took a slice after the holder of a lease."""
    return max(_numbers(store, slice_), default=0) > number


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
        f"output {store.address}: {_path(slice_, number)} was removed or replaced while run {run} "
        "was under way; nothing was published: run again"
    )


def holder(store: Store, slice_: str) -> Holder | None:
    """Returns who holds a slice, or None if it is free: given back, expired, or its holder dead.

    This is a look, which trusts clocks, and counts a lease that is dated ahead. `acquire` judges.
    """
    last = last_holder(store, slice_)
    free = last is None or last.is_over or last.age > EXPIRY_SECONDS
    return None if free else last


def last_holder(store: Store, slice_: str) -> Holder | None:
    """Returns who took a slice last, whether it is still held or not; None if nobody ever did."""
    while numbers := _numbers(store, slice_):
        # A file that was listed goes when its successor gives the slice back.
        with suppress(FileNotFoundError):
            return _read(store, slice_, max(numbers))
    return None


def _numbers(store: Store, slice_: str) -> list[int]:
    names = store.names(layout.slice_file(slice_, "lease"))
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def _path(slice_: str, number: int) -> str:
    return layout.slice_file(slice_, f"lease/{number:08d}.json")


def _read(store: Store, slice_: str, number: int) -> Holder:
    path = _path(slice_, number)
    try:
        data = store.read(path, _MOST_BYTES)
        if not data.strip(b"\0"):
            return _lost(number)
        facts = parse_json(data)
        if not isinstance(facts, dict) or facts.keys() != _NAMES:
            require_version(facts, _VERSION, _NEWEST, f"lease {store.url(path)}")
            facts = {name: facts[name] for name in facts.keys() & _NAMES}
        # Not `decode`, which costs more: workers look at the lease at each unit's end.
        found = Holder(**facts)
        kinds = {"number": int, "pid": int, "released": bool}
        wrong = [k for k, fact in facts.items() if not isinstance(fact, kinds.get(k, str))]
        if wrong or found.number != number or found.pid < 1:
            raise ValueError(
                f"its {wrong[0] if wrong else 'number or pid'} is not valid for a lease"
            )
        _seconds_since(found.renewed)
    except (TypeError, ValueError, IsADirectoryError) as error:
        raise RecordError(
            f"lease {store.url(path)}: damaged ({reason(error)}); when no run of the slice is "
            "under way, remove the file"
        ) from error
    return found


def _lost(number: int) -> Holder:
    """Returns a lease whose bytes a power cut took, before they were on disk, with its holder."""
    never = datetime.fromtimestamp(0, timezone.utc).isoformat()
    return Holder(number, "", "", "", "", 1, "", "", never, never, released=True)


def _claim(number: int, command: str, run: str) -> Holder:
    now = _now().isoformat()
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


def describe_holder(store: Store, slice_: str, last: Holder) -> str:
    """Says who holds a slice, since when, and what to do."""
    run = f"run {last.run}" if last.run else f"`{last.command}`"
    renewed = f"renewed {last.age:.0f} s ago"
    if not last.is_recent:
        renewed = f"renewed just now; the clock of {last.host} or of this machine is wrong"
    return (
        f"slice {slice_} of {store.address} is held by {run}, {last.user}@{last.host}, "
        f"pid {last.pid}, since {last.since} ({renewed}); "
        "run again when it is done"
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


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _seconds_since(moment: str) -> float:
    """Returns seconds; ValueError or TypeError if it is no time of a known zone."""
    return (_now() - datetime.fromisoformat(moment)).total_seconds()
