"""The process of a model as its launcher keeps it: started when needed, and again if it dies."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import AbstractContextManager
from typing import Any, Protocol

from batchscore.errors import FailedError
from batchscore.messages.wording import counted
from batchscore.models.process.connection import Connection, GoneError
from batchscore.models.process.started import StartedProcess
from batchscore.system.usage import Usage, join

_MOST_DEATHS = 64
"""As many rows as kill a process are isolated, each with a few deaths; more end the run."""
_MOST_UNUSED = 8
"""Deaths before a first answer; to isolate the first of 32 rows takes seven."""


class Keeper(Protocol):
    """Has the process that computes a model, in this process or in the launcher."""

    def open(self) -> tuple[socket.socket, int]:
        """Returns a new connection, and how many processes ended before the one that it goes to.

        Raises:
            FailedError: They died too often.
        """

    def note_end(self, generation: int, silence: str = "") -> str:
        """Notes that a process is gone, and returns how it ended.

        Args:
            generation: How many processes ended before it.
            silence: How it kept silent, for which it is killed; empty: it died.

        Raises:
            FailedError: It kept silent, and no process has answered yet.
        """

    def note_answer(self) -> None:
        """Notes that the model works for some rows at least."""

    def turn(self) -> AbstractContextManager[Any]:
        """Returns what is held by a call while nobody else, in any process, makes one."""


class OwnKeeper:
    """Starts the process of a model, and another one where it died.

    Args:
        format: Of the model.
        timeout_s: Seconds that an answer may take.
        started: A process that was started before.
    """

    def __init__(
        self, format: str, timeout_s: float, started: StartedProcess | None = None
    ) -> None:
        self._format, self._timeout_s, self._started = format, timeout_s, started
        self._root = None if started is None else Connection(started.connection, timeout_s)
        self._lock, self._alone = threading.RLock(), threading.Lock()
        self._ends: list[str] = []
        self._dismissed: list[StartedProcess] = []
        self._works = self._printed = False

    def start(self) -> None:
        """Starts the process, if there is none, and does not wait for it."""
        with self._lock:
            self._ready()

    def open(self) -> tuple[socket.socket, int]:
        """Returns a new connection, and how many processes ended before; see `Keeper.open`."""
        with self._lock:
            while True:
                try:
                    return self._ready().open(), len(self._ends)
                except GoneError:
                    self._note("")

    def note_end(self, generation: int, silence: str = "") -> str:
        """Notes that a process is gone, and returns how it ended; see `Keeper.note_end`."""
        with self._lock:
            if generation == len(self._ends):
                if silence and not self._works:
                    self.close()
                    raise given_up(silence)
                self._note(silence)
            return self._ends[generation]

    def note_answer(self) -> None:
        """Notes that the model works for some rows at least."""
        self._works = True

    def turn(self) -> AbstractContextManager[Any]:
        """Returns what a call holds that is made alone."""
        return self._alone

    def dismiss(self) -> None:
        """Ends the process without waiting for its end; whoever asks later gets another one."""
        with self._lock:
            if self._started is not None:
                self._started.kill()
                self._dismissed.append(self._started)
                self._ends.append("was dismissed")
            self._started = self._root = None

    def close(self) -> None:
        """Ends the process, and waits for its end and for that of those that were dismissed."""
        with self._lock:
            self._root = None
            for each in (*self._dismissed, self._started):
                if each is not None:
                    each.close()
            self._dismissed.clear()

    def usage(self) -> Usage:
        """Returns what its processes used, but for CPU time of those that were waited for."""
        with self._lock:
            return join([each.usage() for each in (*self._dismissed, self._started) if each])

    def _ready(self) -> Connection:
        if self._root is None:
            self._require_hope()
            self._started = StartedProcess(self._format)
            self._root = Connection(self._started.connection, self._timeout_s)
        return self._root

    def _note(self, silence: str) -> None:
        if silence:
            self.close()
        assert self._started is not None
        self._ends.append(silence or self._started.how_it_ended())
        self._started = self._root = None
        # Everybody sees the first one of a model that works; the run may go on after dozens.
        level = logging.ERROR if self._works and not self._printed else logging.WARNING
        self._printed |= self._works
        logging.log(level, "the model's process %s; another one takes its place", self._ends[-1])

    def _require_hope(self) -> None:
        """Raises FailedError where processes only die."""
        deaths = len(self._ends)
        if deaths < (_MOST_DEATHS if self._works else _MOST_UNUSED):
            return
        often = "each time" if not self._works else f"the last of {counted(deaths, 'time')}"
        raise hopeless(self._ends[-1], often)


def hopeless(how: str, often: str) -> FailedError:
    """Returns the error of a process that ends too often."""
    return FailedError(f"the model's process {how}, {often}; {_REMEDY}")


def given_up(silence: str) -> FailedError:
    """Returns the error of a process that gives no answer, or none that can be read."""
    return FailedError(
        f"the model's process {silence}; nothing was published: raise runtime.model_timeout if "
        f"the model is slow, or {_REMEDY}"
    )


_REMEDY = (
    "see what it printed, and correct the model or the library that computes it; "
    "runtime.model_process: off runs it in the worker instead"
)
