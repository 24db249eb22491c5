"""A connection to a model's process, as its caller sees it: questions, calls and their answers."""

from __future__ import annotations

import json
import pickle
import socket
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchscore.columnar.array_type import Array
from batchscore.models.process.memory import (
    Named,
    SharedMemory,
    UnreadableError,
    look,
    new_memory,
    put,
    read_place,
)
from batchscore.models.process.raised import failure_from_json
from batchscore.models.process.wire import (
    ANSWER,
    ASK,
    CALL,
    OPEN,
    SLOTS,
    Message,
    receive,
    send,
)


class GoneError(Exception):
    """The process at the other end is gone."""


class SilentError(Exception):
    """The process gives no answer in time, or one that cannot be read."""


@dataclass(frozen=True)
class Answer:
    """What a call came to.

    Args:
        outputs: By name; empty if it failed.
        error: What it failed with.
        seconds: For which the process was busy with it.
        halved: Numbers that the model gave to the call's `halved` meanwhile.
    """

    outputs: dict[str, Array]
    error: Exception | None
    seconds: float
    halved: tuple[int, ...]


class Connection:
    """A connection, on which one thread asks and calls; any thread may wait for an answer.

    Args:
        to: Is closed when nobody uses this object any more.
        timeout_s: Seconds that an answer may take.
        generation: How many processes ended before the one that it goes to.
    """

    def __init__(self, to: socket.socket, timeout_s: float, generation: int = 0) -> None:
        self._socket, self.generation = to, generation
        self._timeout_s = timeout_s
        to.settimeout(timeout_s)
        weakref.finalize(self, to.close)
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._sent = self._received = 0
        self._answers: dict[int, Message | Answer] = {}
        self._memory: list[SharedMemory] = []
        self._free = deque(range(SLOTS))

    def open(self) -> socket.socket:
        """Returns a further connection to the process.

        Raises:
            GoneError: It is gone.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._send(OPEN, descriptors=(theirs.fileno(),))
        return ours

    def ask(self, name: str, *arguments: Any) -> Any:
        """Has the process do something, and returns what it answers.

        Raises:
            GoneError: It is gone.
            SilentError: It does not answer in time.
            Exception: What it failed with.
        """
        return self._ask(pickle.dumps((name, arguments)))

    def ask_calls(self, *arguments: Any) -> None:
        """Has the process prepare for calls, through memory that both share from now on."""
        self._memory = [new_memory() for _ in range(2 * SLOTS)]
        self._ask(pickle.dumps(("calls", arguments)), [each.descriptor for each in self._memory])

    def ask_about(self, arrays: Sequence[Named], name: str, *arguments: Any) -> Any:
        """Asks something about arrays, while no call is under way."""
        places, size = put(arrays, self._memory[0])
        fields = [each.to_json() for each in places]
        return self._ask(pickle.dumps((name, (*arguments, fields, size))))

    def call(self, arrays: Sequence[Named], rows: int) -> int:
        """Starts a call and returns its number; waits while as many as there is memory for run.

        Raises:
            GoneError: The process is gone.
            SilentError: It does not answer in time.
        """
        slot = self._free_slot()
        places, size = put(arrays, self._memory[slot])
        fields = {"places": [each.to_json() for each in places], "size": size, "rows": rows}
        return self._send(CALL, json.dumps(fields).encode(), slot)

    def answer(self, number: int, within_s: float) -> Answer:
        """Waits for what a call came to; once for each call.

        Raises:
            GoneError: The process is gone.
            SilentError: It does not answer in so many seconds, or not what was asked.
        """
        answer = self._wait(number, within_s)
        assert isinstance(answer, Answer)
        return answer

    def _ask(self, body: bytes, descriptors: Sequence[int] = ()) -> Any:
        answer = self._wait(self._send(ASK, body, descriptors=descriptors))
        assert isinstance(answer, Message)
        fields = answer.json()
        if "error" in fields:
            raise failure_from_json(fields["error"])
        return fields.get("value")

    def _send(
        self, kind: int, body: bytes = b"", slot: int = 0, descriptors: Sequence[int] = ()
    ) -> int:
        with self._sending:
            number = self._sent + (kind != OPEN)
            try:
                send(self._socket, Message(kind, number, body, slot, descriptors))
            except TimeoutError as error:
                raise SilentError("takes no message") from error
            except OSError as error:
                raise GoneError from error
            self._sent = number
            return number

    def _free_slot(self) -> int:
        while True:
            with suppress(IndexError):
                return self._free.popleft()
            with self._receiving:
                if not self._free:
                    self._receive()

    def _wait(self, number: int, within_s: float | None = None) -> Message | Answer:
        with self._receiving:
            self._socket.settimeout(within_s or self._timeout_s)
            while number not in self._answers:
                self._receive()
            return self._answers.pop(number)

    def _receive(self) -> None:
        """Takes the next answer, which is that to the oldest question or call."""
        try:
            message = receive(self._socket)
            if message is None:
                raise GoneError
            self._received += 1
            if message.kind != ANSWER or message.sequence != self._received:
                raise UnreadableError(f"answer {message.sequence} instead of {self._received}")
            is_call = "value" not in (fields := message.json()) and "seconds" in fields
            self._answers[message.sequence] = self._read(message, fields) if is_call else message
        except TimeoutError as error:
            raise SilentError("gave no answer") from error
        except OSError as error:
            raise GoneError from error
        except UnreadableError as error:
            raise SilentError(f"gave an answer that cannot be read ({error})") from error

    def _read(self, message: Message, fields: dict[str, Any]) -> Answer:
        """Reads what a call came to, and leaves its memory to another one."""
        try:
            error = failure_from_json(fields["error"]) if "error" in fields else None
            places = [read_place(each) for each in fields.get("places", ())]
            found = look(places, int(fields.get("size", 0)), self._memory[SLOTS + message.slot])
            outputs = {name: array.copy() for name, _, array in found}
            halved = tuple(int(each) for each in fields["halved"])
            answer = Answer(outputs, error, float(fields["seconds"]), halved)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableError(str(error)) from error
        self._free.append(message.slot)
        return answer
