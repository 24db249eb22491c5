"""How far a run is: workers write their counts about once a second, the launcher adds them up."""

from __future__ import annotations

import contextlib
import os
import secrets
import time

from batchscore.errors import StoppedError
from batchscore.runs import layout
from batchscore.storage import Store

_TICK_SECONDS = 1.0
_STOP = "stop"


class Pulse:
    """One worker's side: writes its rows at most once a second, and looks whether to stop."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._rows = 0
        self._last = 0.0

    def add(self, rows: int) -> None:
        """Counts rows.

        Raises:
            StoppedError: the launcher asked all workers to stop.
        """
        self._rows += rows
        if time.monotonic() - self._last < _TICK_SECONDS:
            return
        self._last = time.monotonic()
        folder = layout.progress(self._run)
        # A count that could not be written is no reason to fail a run.
        with contextlib.suppress(OSError):
            self._store.write_json(f"{folder}/{self._name}", {"rows": self._rows})
        if self._store.exists(f"{layout.staging(self._run)}/{_STOP}"):
            raise StoppedError("stopped on request")


def read_rows(store: Store, run: str) -> int:
    """Returns the rows that all workers have counted so far."""
    folder = layout.progress(run)
    total = 0
    for name in store.names(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            total += int(store.read_json(f"{folder}/{name}")["rows"])
    return total


def request_stop(store: Store, run: str) -> None:
    """Asks a run's workers to stop at their next tick."""
    store.write(f"{layout.staging(run)}/{_STOP}", b"")
