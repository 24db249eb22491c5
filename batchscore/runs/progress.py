"""How far a run is: workers write what they do about once a second, the launcher adds it up."""

from __future__ import annotations

import contextlib
import os
import platform
import posixpath
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import NamedTuple
from weakref import WeakSet

from batchscore.errors import StoppedError
from batchscore.messages.wording import counted, of_count, one_line
from batchscore.runs import layout
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import Count, decode
from batchscore.units.unit import Unit

_TICK_SECONDS = 1.0
_BEAT_SECONDS = 5.0
_STOP = "stop"
_SHARDS_SHOWN = 3
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        rows: Rows that came to their end.
        total: Rows that all of its units read.
        seconds: Since it was opened.
        state: What it does, as `status` says.
    """

    rows: int
    total: int
    seconds: float
    state: str = "scoring"


@dataclass(frozen=True)
class Doing:
    """A unit that a worker is on; times are in Unix seconds of the worker's clock.

    Args:
        unit: Its id.
        shards: What it reads, as messages show it.
        since: When the worker began.
        advanced: When the last batch of it was finished; `since` before the first one.
    """

    unit: str
    shards: str
    since: float
    advanced: float


@dataclass(frozen=True)
class Used:
    """What a worker process has used.

    Args:
        cpu_s: Seconds of CPU time, of its model's process too.
        peak_bytes: Memory that the larger of these processes held at its peak.
        total_bytes: The peaks of these processes, added up.
        gpu_bytes: Memory of its GPU in use at most; None without a GPU.
        gpu_share: Share of the time in which its GPU was at work; None if nobody could tell.
    """

    cpu_s: float
    peak_bytes: Count
    total_bytes: Count
    gpu_bytes: Count | None = None
    gpu_share: float | None = None


@dataclass(frozen=True)
class WorkerProgress:
    """What one process of a run last wrote of itself.

    Args:
        rows: Rows that came to their end, rejected ones among them.
        rejected: Rejected rows.
        host: Name of its machine; empty where an earlier version wrote it.
        pid: Its process id there.
        at: When it wrote this, in Unix seconds of its own clock.
        units: What it is on.
        used: What it has used, noted at the end of a bundle; None before, and in the launcher.
    """

    rows: int
    rejected: int
    host: str = ""
    pid: int = 0
    at: float = 0.0
    units: list[Doing] = field(default_factory=list)
    used: Used | None = None


@dataclass(frozen=True)
class Counts:
    """What workers have counted.

    Args:
        rows: Rows that came to their end.
        rejected: Those of them that were rejected.
        workers: How many have counted rows.
        stop_requested: Whether somebody asked the run to stop.
        processes: What each of them wrote; those that cannot be read are left out.
    """

    rows: int = 0
    rejected: int = 0
    workers: int = 0
    stop_requested: bool = False
    processes: Sequence[WorkerProgress] = ()


@dataclass(frozen=True)
class StopRequest:
    """Asks a run to stop.

    Args:
        by: Who wants that, as `user@host`; empty if it is the launcher itself.
        at: When, ISO 8601 in UTC.
    """

    by: str
    at: str


class _Underway(NamedTuple):
    """A unit, when it began, and when it last advanced."""

    unit: Unit
    since: float
    advanced: float


_lock = threading.Lock()
_doing: dict[tuple[str, str], _Underway] = {}
_pulses: WeakSet[Pulse] = WeakSet()


@contextlib.contextmanager
def working_on(run: str, unit: Unit) -> Iterator[None]:
    """Has this process's pulses name a unit while the block is worked on.

    Raises:
        StoppedError: The launcher asked all workers to stop, or closed the run.
    """
    key, now = (run, unit.id), time.time()
    with _lock:
        _doing[key] = _Underway(unit, now, now)
        pulses = [pulse for pulse in _pulses if pulse.run == run]
    try:
        for pulse in pulses:
            pulse.begin()
        yield
    finally:
        with _lock:
            _doing.pop(key, None)


def _describe(unit: Unit) -> str:
    """Returns the shards that a unit reads, on one line."""
    paths = list(dict.fromkeys(piece.shard.path for piece in unit.pieces))
    more = len(paths) - _SHARDS_SHOWN
    names = ", ".join(one_line(posixpath.basename(path)) for path in paths[:_SHARDS_SHOWN])
    what = f"{of_count(len(paths), 'shard', 'shards')} {names}"
    return f"{what} and {counted(more, 'other')}" if more > 0 else what


class Pulse:
    """One worker's side: writes its rows at most once a second, and looks whether to stop."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self.run = store, run
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._rows = self._rejected = 0
        self._last: float | None = None
        self._written: float | None = None
        self._used: Used | None = None
        with _lock:
            _pulses.add(self)

    def add(self, rows: int, rejected: int = 0, unit: str = "") -> None:
        """Counts rows, rejected ones among them; fewer than none takes back what was counted.

        Args:
            rows: Rows that came to their end.
            rejected: Those of them that were rejected.
            unit: Id of their unit, which has advanced by them.

        Raises:
            StoppedError: The launcher asked all workers to stop, or closed the run.
        """
        self._rows += rows
        self._rejected += rejected
        if (started := _doing.get((self.run, unit))) is not None:
            _doing[self.run, unit] = _Underway(started.unit, started.since, time.time())
        if self._last is None or time.monotonic() - self._last >= _TICK_SECONDS:
            self._last = time.monotonic()
            self._look()
            self._write()

    def begin(self) -> None:
        """Writes that a unit was started, unless something was written within a second.

        Raises:
            StoppedError: As `add` does.
        """
        if self._written is None or time.monotonic() - self._written >= _TICK_SECONDS:
            self._look()
            self._write()

    def note_used(self, used: Used) -> None:
        """Writes what the process has used so far, unless the run was closed meanwhile."""
        self._used = used
        # A late worker must not make the folder of a closed run again.
        with contextlib.suppress(OSError):
            if self._store.exists(layout.plan_file(self.run)):
                self._write()

    def beat(self) -> None:
        """Writes that the worker lives, where it is on a unit and has not written for a while."""
        is_busy = any(run == self.run for run, _ in list(_doing))
        late = self._written is None or time.monotonic() - self._written >= _BEAT_SECONDS
        if is_busy and late:
            with contextlib.suppress(StoppedError, OSError):
                self._look()
                self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with _lock:
            started = [each for (run, _), each in _doing.items() if run == self.run]
        units = [Doing(each.unit.id, _describe(each.unit), *each[1:]) for each in started]
        found = WorkerProgress(
            *(self._rows, self._rejected, platform.node(), os.getpid(), time.time(), units),
            self._used,
        )
        path = f"{layout.progress(self.run)}/{self._name}"
        # A count that could not be written is no reason to fail a run.
        with contextlib.suppress(OSError):
            self._store.write_json(path, asdict(found), flush=False)

    def _look(self) -> None:
        if self._store.exists(_stop_path(self.run)):
            raise StoppedError("stopped on request")
        if not self._store.exists(layout.plan_file(self.run)):
            raise StoppedError(f"run {self.run} was closed; its launcher is gone")


def current_unit() -> str:
    """Returns the unit that this process started last and is still on; empty without one."""
    with _lock:
        found = max(_doing.values(), key=lambda each: each.since, default=None)
    return "" if found is None else found.unit.id


def beat_all() -> None:
    """Has all pulses of this process write that it lives, where they have something to do."""
    with _lock:
        pulses = list(_pulses)
    for pulse in pulses:
        pulse.beat()


def read_counts(store: Store, run: str) -> Counts:
    """Returns what all workers have counted so far, and what each of them is on."""
    folder = layout.progress(run)
    names = store.names(folder)
    workers = [name for name in names if name != _STOP]
    found = list[WorkerProgress]()
    for name in workers:
        with contextlib.suppress(*_UNREADABLE):
            found.append(decode(WorkerProgress, store.read_json(f"{folder}/{name}")))
    rows, rejected = (sum(getattr(p, kind) for p in found) for kind in ("rows", "rejected"))
    return Counts(rows, rejected, len(workers), len(workers) < len(names), tuple(found))


def request_stop(store: Store, run: str, by: str = "") -> None:
    """Asks a run's workers to stop at their next tick, and its launcher too; the first one counts.

    Args:
        store: The output.
        run: The run.
        by: Who wants that, as `user@host`; the launcher itself does not say.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    store.create_new(_stop_path(run), encode_json(asdict(StopRequest(by, now))), flush=False)


def read_stop(store: Store, run: str) -> StopRequest | None:
    """Returns who asked a run to stop, from outside of its launcher; None if nobody did."""
    try:
        found = decode(StopRequest, store.read_json(_stop_path(run)))
    except FileNotFoundError:
        return None
    except ValueError:  # a request that is damaged is one all the same
        return StopRequest("somebody unknown", datetime.now(timezone.utc).isoformat())
    return StopRequest(one_line(found.by), one_line(found.at)) if found.by else None


def _stop_path(run: str) -> str:
    # Among the counts, so that the launcher, who lists these, need not look for it.
    return f"{layout.progress(run)}/{_STOP}"
