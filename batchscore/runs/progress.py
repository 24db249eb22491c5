"""How far a run is: workers write their counts about once a second, the launcher adds them up."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from batchscore.errors import StoppedError
from batchscore.messages.wording import one_line
from batchscore.runs import layout
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import decode

_TICK_SECONDS = 1.0
_STOP = "stop"


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows that came to their end, of all that its units read, and seconds."""

    rows: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Counts:
    """What workers have counted.

    Args:
        rows: Rows that came to their end.
        rejected: Those of them that were rejected.
        workers: How many have counted rows.
        stop_requested: Whether somebody asked the run to stop.
    """

    rows: int = 0
    rejected: int = 0
    workers: int = 0
    stop_requested: bool = False


@dataclass(frozen=True)
class StopRequest:
    """Asks a run to stop.

    Args:
        by: Who wants that, as `user@host`; empty if it is the launcher itself.
        at: When, ISO 8601 in UTC.
    """

    by: str
    at: str


class Pulse:
    """One worker's side: writes its rows at most once a second, and looks whether to stop."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._rows = self._rejected = 0
        self._last = 0.0

    def add(self, rows: int, rejected: int = 0) -> None:
        """Counts rows, rejected ones among them; fewer than none takes back what was counted.

        Raises:
            StoppedError: The launcher asked all workers to stop, or closed the run.
        """
        self._rows += rows
        self._rejected += rejected
        if time.monotonic() - self._last < _TICK_SECONDS:
            return
        self._last = time.monotonic()
        self._look()
        # A count that could not be written is no reason to fail a run.
        with contextlib.suppress(OSError):
            counts = {"rows": self._rows, "rejected": self._rejected}
            self._store.write_json(
                f"{layout.progress(self._run)}/{self._name}", counts, flush=False
            )

    def _look(self) -> None:
        if self._store.exists(_stop_path(self._run)):
            raise StoppedError("stopped on request")
        if not self._store.exists(layout.plan_file(self._run)):
            raise StoppedError(f"run {self._run} was closed; its launcher is gone")


def read_counts(store: Store, run: str) -> Counts:
    """Returns what all workers have counted so far."""
    folder = layout.progress(run)
    names = store.names(folder)
    workers = [name for name in names if name != _STOP]
    rows = rejected = 0
    for name in workers:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = store.read_json(f"{folder}/{name}")
            rows += int(found["rows"])
            rejected += int(found["rejected"])
    return Counts(rows, rejected, len(workers), len(workers) < len(names))


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
