"""How far a run is: workers write their counts about once a second, the launcher adds them up."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass

from batchscore.errors import StoppedError
from batchscore.runs import layout
from batchscore.storage.store import Store

_TICK_SECONDS = 1.0
_STOP = "stop"


@dataclass(frozen=True)
class Counts:
    """Rows that came to their end, and those of them that were rejected."""

    rows: int = 0
    rejected: int = 0


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
        if self._store.exists(f"{layout.work(self._run)}/{_STOP}"):
            raise StoppedError("stopped on request")
        if not self._store.exists(layout.plan_file(self._run)):
            raise StoppedError(f"run {self._run} was closed; its launcher is gone")


def read_counts(store: Store, run: str) -> Counts:
    """Returns what all workers have counted so far."""
    folder = layout.progress(run)
    rows = rejected = 0
    for name in store.names(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = store.read_json(f"{folder}/{name}")
            rows += int(found["rows"])
            rejected += int(found["rejected"])
    return Counts(rows, rejected)


def request_stop(store: Store, run: str) -> None:
    """Asks a run's workers to stop at their next tick."""
    store.write(f"{layout.work(run)}/{_STOP}", b"", flush=False)
