"""The process of a model as those see it that call the model."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from batchscore.messages.wording import counted
from batchscore.models.process.connection import Connection, GoneError, SilentError
from batchscore.models.process.deadly import DeadlyRows
from batchscore.models.process.keeper import Keeper, OwnKeeper, given_up, hopeless
from batchscore.models.process.lending import Borrowed, lend
from batchscore.models.process.started import StartedProcess
from batchscore.system.usage import Usage

T = TypeVar("T")

_MOST_ASKED = 3
"""Deaths of one question, such as to load the model: then it is not the rows."""


class Host:
    """Connects this process to the process of a model.

    Args:
        format: Of the model.
        timeout_s: Seconds that an answer may take.
        shared: What the launcher's host returned for this process; by default this process has a
            process of its own for the model.
        started: A process that was started for this host.

    Attributes:
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
        self.deadly = DeadlyRows()
        self._own: OwnKeeper | None = None
        self._keeper: Keeper
        if shared is None:
            self._keeper = self._own = OwnKeeper(format, timeout_s, started)
        else:
            self._keeper = Borrowed(shared)
        self._lock = threading.Lock()
        self._generation = 0

    @property
    def careful(self) -> bool:
        """Whether a process died.

        From then on calls are made one at a time, so that it is known which of them it dies of.
        """
        return self._generation > 0

    def start(self) -> None:
        """Starts the process, if there is none, and does not wait for it."""
        if self._own is not None:
            self._own.start()

    def connect(self) -> Connection:
        """Returns a new connection, to a new process if the one before died.

        Raises:
            FailedError: It died too often.
        """
        opened, generation = self._keeper.open()
        self._reach(generation)
        return Connection(opened, self.timeout_s, generation)

    def asked(self, ask: Callable[[Connection], T]) -> T:
        """Returns what a new connection answers; asks another process if one dies.

        Raises:
            FailedError: The processes die, or do not answer.
        """
        how = ""
        for _ in range(_MOST_ASKED):
            link = self.connect()
            try:
                return ask(link)
            except GoneError:
                how = self.note_death(link)
            except SilentError as error:
                raise given_up(self._described(error, self.timeout_s)) from error
        raise hopeless(how, "each time")

    def share(self) -> socket.socket:
        """Returns a connection that another process may use as its `shared`."""
        assert self._own is not None
        return lend(self._own)

    def is_current(self, connection: Connection) -> bool:
        """Tells whether a connection goes to the newest process that is known."""
        return connection.generation == self._generation

    def note_answer(self) -> None:
        """Notes that the model works for some rows at least."""
        self._keeper.note_answer()

    def note_death(self, connection: Connection) -> str:
        """Notes that a connection's process is gone, and returns how it ended."""
        self._reach(connection.generation + 1)
        return self._keeper.note_end(connection.generation)

    def note_silence(self, connection: Connection, silent: SilentError, within_s: float) -> str:
        """Has a process killed that did not answer in time, and returns how it ended.

        Raises:
            FailedError: No process has answered yet, or what it answers cannot be read.
        """
        how = self._described(silent, within_s)
        if not isinstance(silent.__cause__, TimeoutError):
            raise given_up(how) from silent
        self._reach(connection.generation + 1)
        return self._keeper.note_end(connection.generation, how)

    def turn(self) -> AbstractContextManager[Any]:
        """Returns what is held by a call that is made alone."""
        return self._keeper.turn()

    def dismiss(self) -> None:
        """Ends the process, if it is this process's own, as `OwnKeeper.dismiss` does."""
        if self._own is not None:
            self._own.dismiss()

    def usage(self) -> Usage:
        """Returns what the process used, if it is this process's own; see `OwnKeeper.usage`."""
        return Usage() if self._own is None else self._own.usage()

    def close(self) -> None:
        """Ends the process, if it is this process's own."""
        if self._own is not None:
            self._own.close()

    def _reach(self, generation: int) -> None:
        with self._lock:
            self._generation = max(self._generation, generation)

    def _described(self, silent: SilentError, within_s: float) -> str:
        if not isinstance(silent.__cause__, TimeoutError):
            return str(silent)
        if within_s < 120:
            return f"{silent} within {counted(round(within_s), 'second')}"
        return f"{silent} within {counted(round(within_s / 60), 'minute')}"
