"""A model's process that its launcher lends to worker processes: requests over a socket.

All workers have the same process, also after one died, and one launcher counts and reports deaths.
"""

from __future__ import annotations

import json
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from batchscore.errors import FailedError
from batchscore.models.process.keeper import OwnKeeper
from batchscore.models.process.raised import failure_from_json, failure_to_json
from batchscore.models.process.wire import ANSWER, ASK, Message, receive, send


def lend(keeper: OwnKeeper) -> socket.socket:
    """Returns what a worker process makes a `Borrowed` of; a thread serves it until it closes."""
    ours, theirs = socket.socketpair()
    # A worker process has it from a launcher that has tried the model.
    keeper.note_answer()
    lender = _Lender(keeper, ours)
    threading.Thread(target=lender.serve, name="model lending", daemon=True).start()
    return theirs


class _Lender:
    """Does for one worker process what it asks of the launcher's keeper."""

    def __init__(self, keeper: OwnKeeper, connection: socket.socket) -> None:
        self._keeper, self._connection = keeper, connection
        self._turn = ExitStack()

    def serve(self) -> None:
        """Answers until the worker closes the connection; a turn that it held is given back."""
        try:
            while (message := receive(self._connection)) is not None:
                self._answer(message)
        except OSError:
            pass  # the worker ended; nobody waits for an answer
        finally:
            self._turn.close()
            self._connection.close()

    def _answer(self, message: Message) -> None:
        with ExitStack() as sent:
            descriptors: tuple[int, ...] = ()
            try:
                fields = self._done(**message.json())
            except FailedError as error:
                fields = {"error": failure_to_json(error)}
            if "opened" in fields:
                descriptors = (sent.enter_context(fields.pop("opened")).fileno(),)
            body = json.dumps(fields).encode()
            send(self._connection, Message(ANSWER, message.sequence, body, 0, descriptors))

    def _done(self, request: str, generation: int = 0, silence: str = "") -> dict[str, Any]:
        if request == "open":
            opened, generation = self._keeper.open()
            return {"opened": opened, "generation": generation}
        if request == "note_end":
            return {"how": self._keeper.note_end(generation, silence)}
        if request == "take turn":
            self._turn.enter_context(self._keeper.turn())
        else:
            self._turn.close()
        return {}


class Borrowed:
    """The keeper of a worker process, which asks that of the launcher.

    Args:
        connection: What `lend` returned in the launcher.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        weakref.finalize(self, connection.close)
        self._asking, self._alone = threading.Lock(), threading.Lock()
        self._asked = 0

    def open(self) -> tuple[socket.socket, int]:
        """Returns a new connection, and how many processes ended before; see `Keeper.open`."""
        answer = self._ask(request="open")
        (descriptor,) = answer.descriptors
        return socket.socket(fileno=descriptor), int(answer.json()["generation"])

    def note_end(self, generation: int, silence: str = "") -> str:
        """Notes that a process is gone, and returns how it ended; see `Keeper.note_end`."""
        answer = self._ask(request="note_end", generation=generation, silence=silence)
        return str(answer.json()["how"])

    def note_answer(self) -> None:
        """The launcher knows that the model works."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Holds the turn of this process among its threads, then that among all processes."""
        # In this order no thread waits for the launcher while another one needs its answer.
        with self._alone:
            self._ask(request="take turn")
            try:
                yield
            finally:
                self._ask(request="leave turn")

    def _ask(self, **fields: Any) -> Message:
        with self._asking:
            self._asked += 1
            try:
                send(self._connection, Message(ASK, self._asked, json.dumps(fields).encode()))
                answer = receive(self._connection)
            except OSError:
                answer = None
        if answer is None:
            raise FailedError("the process that started this worker is gone; run again")
        if "error" in answer.json():
            raise failure_from_json(answer.json()["error"])
        return answer
