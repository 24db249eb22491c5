"""The process of a model as one process sees it: started when needed, and again if it dies."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from batchscore.errors import FailedError
from batchscore.messages.wording import counted
from batchscore.models.process.connection import Connection, GoneError, SilentError
from batchscore.models.process.deadly import DeadlyRows
from batchscore.models.process.started import StartedProcess

T = TypeVar("T")

_MOST_DEATHS = 64
"""As many rows as kill a process are isolated, each with a few deaths; more end the run."""
_MOST_UNUSED = 8
"""Deaths before a first answer; to isolate the first of 32 rows takes seven."""
_MOST_ASKED = 3
"""Deaths of one question, such as to load the model: then it is not the rows."""


class Host:
    """Starts the process of a model, connects to it, and starts it again where it died.

    Args:
        format: Of the model.
        timeout_s: Seconds that an answer may take.
        shared: A connection to a process that somebody else started; it is used until that ends.
        started: A process that was started for this host.

    Attributes:
        careful: Whether a process died: from then on calls are made one at a time, so that it is
            known which of them it died of.
        alone: Held by a call that is made alone.
        deadly: The rows that processes died of.
    """

    def __init__(
        self,
        format: str,
        timeout_s: float,
        shared: socket.socket | None = None,
        started: StartedProcess | None = None,
    ) -> None:
        self.format, self.timeout_s = format, timeout_s
        self.careful = False
        self.alone = threading.Lock()
        self.deadly = DeadlyRows()
        self._lock = threading.RLock()
        self._started = started
        first = started.connection if started is not None else shared
        self._root = None if first is None else Connection(first, timeout_s)
        self._ends: list[str] = []
        # Whoever shares a process has it from a launcher that has tried the model.
        self._works = shared is not None

    def start(self) -> None:
        """Starts the process, if there is none, and does not wait for it."""
        with self._lock:
            self._ready()

    def connect(self) -> Connection:
        """Returns a new connection, to a new process if the one before died.

        Raises:
            FailedError: It died too often.
        """
        with self._lock:
            return Connection(self.share(), self.timeout_s, len(self._ends))

    def asked(self, ask: Callable[[Connection], T]) -> T:
        """Returns what a new connection answers; asks another process if one dies.

        Raises:
            FailedError: The processes die, or do not answer.
        """
        for _ in range(_MOST_ASKED):
            link = self.connect()
            try:
                return ask(link)
            except GoneError:
                self.note_death(link)
            except SilentError as error:
                raise self.given_up(error) from error
        raise self._hopeless("each time")

    def share(self) -> socket.socket:
        """Returns a connection that another process may use as its `shared`.

        Raises:
            FailedError: The process died too often.
        """
        with self._lock:
            while True:
                try:
                    return self._ready().open()
                except GoneError:
                    self._note_end()

    def is_current(self, connection: Connection) -> bool:
        """Tells whether a connection goes to the process that there is now."""
        return connection.generation == len(self._ends)

    def note_answer(self) -> None:
        """Notes that the model works for some rows at least."""
        self._works = True

    def note_death(self, connection: Connection) -> str:
        """Notes that a connection's process is gone, and returns how it ended."""
        with self._lock:
            if connection.generation == len(self._ends):
                self._note_end()
            return self._ends[connection.generation]

    def given_up(self, silent: SilentError) -> FailedError:
        """Ends a process that gives no answer, or none that can be read, and returns the error."""
        with self._lock:
            if self._started is not None:
                self._started.close()
        if not isinstance(silent.__cause__, TimeoutError):
            return FailedError(f"the model's process {silent}; {_REMEDY}")
        minutes = counted(round(self.timeout_s / 60), "minute")
        return FailedError(
            f"the model's process {silent} within {minutes} (runtime.model_timeout); nothing was "
            f"published: allow more, or {_REMEDY}"
        )

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._root = None
            if self._started is not None:
                self._started.close()

    def _ready(self) -> Connection:
        if self._root is None:
            self._require_hope()
            self._started = StartedProcess(self.format)
            self._root = Connection(self._started.connection, self.timeout_s)
        return self._root

    def _note_end(self) -> None:
        how = "ended" if self._started is None else self._started.how_it_ended()
        self._ends.append(how)
        self._started = self._root = None
        self.careful = True
        logging.warning("the model's process %s; another one takes its place", how)

    def _require_hope(self) -> None:
        """Raises FailedError where processes only die."""
        deaths = len(self._ends)
        if deaths < (_MOST_DEATHS if self._works else _MOST_UNUSED):
            return
        often = "each time" if not self._works else f"the last of {counted(deaths, 'time')}"
        raise self._hopeless(often)

    def _hopeless(self, often: str) -> FailedError:
        return FailedError(f"the model's process {self._ends[-1]}, {often}; {_REMEDY}")


_REMEDY = (
    "see what it printed, and correct the model or the library that computes it; "
    "runtime.model_process: off runs it in the worker instead"
)
