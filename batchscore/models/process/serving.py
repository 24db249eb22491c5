"""What a model's process does for those that are connected to it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.columnar.texts import Texts
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Call, Inputs, Outputs
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.registry import backend_of, naming
from batchscore.models.importing import guarded
from batchscore.models.loadable import Model
from batchscore.models.process.memory import (
    SharedMemory,
    inputs_from,
    look,
    outputs_to_parts,
    put,
    read_place,
)
from batchscore.models.process.raised import failure_to_json
from batchscore.models.process.recipe import Recipe
from batchscore.models.process.started import CLOSED_FILES
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

_STARTED = 2
"""Calls of a device that are under way; copies of one overlap with the work of another."""
_NOT_OURS = (errno.EBADF, errno.ENOTSOCK)
"""Errors of a connection that this process itself has closed."""

Predict = Callable[[Inputs, int], Outputs]

_MAKES: Mapping[str, Callable[[Predictor], Predictor | None]] = {
    "again": lambda predictor: predictor.again(),
    "compiled": lambda predictor: predictor.compiled(),
    "explained": lambda predictor: predictor.explaining(),
}
"""What a step of a recipe makes of a model."""


@dataclass
class Shared:
    """A loaded model, and how many connections use it.

    Args:
        building: Held by whoever loads it.
        turn: Held by whoever calls it, if one thread at a time may.
        predictor: The model; None until it is loaded.
        users: Connections that hold it.
        callers: Connections that have called it or will.
    """

    building: threading.Lock = field(default_factory=threading.Lock)
    turn: AbstractContextManager[Any] = field(default_factory=threading.Lock)
    predictor: Predictor | None = None
    users: int = 0
    callers: int = 0


class Models:
    """The loaded models of this process, by the names of their recipes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[tuple[object, ...], Shared] = {}

    def take(self, recipe: Recipe) -> Shared | None:
        """Returns a model, which is loaded unless somebody uses it; None if it is not made again.

        Each call needs one of `leave`.
        """
        with self._lock:
            shared = self._shared.setdefault(recipe.name, Shared())
            shared.users += 1
        try:
            with shared.building:
                if shared.predictor is None:
                    shared.predictor = self._made(recipe)
        except BaseException:
            self.leave(recipe)
            raise
        if shared.predictor is None:
            self.leave(recipe)
            return None
        return shared

    def leave(self, recipe: Recipe) -> None:
        """Forgets a model that nobody uses any more."""
        with self._lock:
            shared = self._shared[recipe.name]
            shared.users -= 1
            if not shared.users:
                del self._shared[recipe.name]

    def _made(self, recipe: Recipe) -> Predictor | None:
        model = recipe.model
        if not recipe.steps:
            with naming(model.format):
                return backend_of(model.format).load(
                    model, recipe.device, recipe.threads, recipe.prove
                )
        before = self.take(recipe.before())
        if before is None:
            return None
        try:
            assert before.predictor is not None
            return _MAKES[recipe.steps[-1][0]](before.predictor)
        finally:
            self.leave(recipe.before())


class Session:
    """One connection, served on a thread of its own.

    Args:
        models: Of this process.
        connection: Is closed at the end.
        backend: Of the model's format.
        open_session: Serves a further connection.
    """

    def __init__(
        self,
        models: Models,
        connection: socket.socket,
        backend: Backend,
        open_session: Callable[[socket.socket], None],
    ) -> None:
        self._models, self._connection, self._backend = models, connection, backend
        self._open_session = open_session
        self._recipe: Recipe | None = None
        self._shared: Shared | None = None
        self._calls: Calls | None = None
        self._predict: Predict | None = None
        self._call = Call()
        self._halved: list[int] = []
        self._memory: list[SharedMemory] = []
        self._started: deque[tuple[Message, Outputs, float]] = deque()

    def serve(self) -> None:
        """Answers until the other side closes the connection."""
        try:
            while (message := self._next()) is not None:
                self._handle(message)
        except OSError as error:
            if error.errno in _NOT_OURS:
                os._exit(CLOSED_FILES)
            # Else the other side ended, and nobody waits for an answer.
        finally:
            self._connection.close()
            if self._recipe is not None:
                self._models.leave(self._recipe)

    def _next(self) -> Message | None:
        """Returns the next message; finishes calls that were started while there is none."""
        while self._started and (
            len(self._started) == _STARTED or not _is_readable(self._connection)
        ):
            self._finish()
        return receive(self._connection)

    def _handle(self, message: Message) -> None:
        if message.kind == OPEN:
            (descriptor,) = message.descriptors
            self._open_session(socket.socket(fileno=descriptor))
        elif message.kind == CALL:
            self._begin(message)
        elif message.kind == ASK:
            self._finish_all()
            self._reply(message, lambda: self._asked(message))

    def _reply(self, message: Message, make: Callable[[], Any]) -> None:
        try:
            fields = {"value": make()}
        except BaseException as error:  # whatever a model raises is its caller's to judge
            fields = {"error": failure_to_json(error)}
        send(self._connection, Message(ANSWER, message.sequence, json.dumps(fields).encode()))

    def _asked(self, message: Message) -> Any:
        name, arguments = pickle.loads(message.body)
        return getattr(self, f"_ask_{name}")(message, *arguments)

    def _ask_backend(self, _: Message, method: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._backend, method)(*arguments)

    def _ask_load(self, _: Message, recipe: Recipe) -> dict[str, Any] | None:
        shared = self._models.take(recipe)
        if shared is None:
            return None
        self._recipe, self._shared = recipe, shared
        predictor = self._predictor
        return {"takes_missing": predictor.takes_missing, "notes": dict(predictor.notes)}

    def _ask_promises(self, _: Message) -> dict[str, Any]:
        return asdict(self._predictor.promises)

    def _ask_may_enter(self, _: Message) -> bool:
        return self._predictor.enter() is not None

    def _ask_calls(self, message: Message, call: Call | None) -> None:
        """Prepares calls on this connection's thread; without a call, those of any rows."""
        self._memory = [SharedMemory(each) for each in message.descriptors]
        assert self._shared is not None
        assert self._recipe is not None
        _join(self._shared)
        if call is None:
            self._predict = self._plain
        else:
            self._call = replace(call, halved=self._halved.append)
            self._calls = self._predictor.called(self._call)
            self._predict = self._calls.predict
        code = self._recipe.model.code
        if code:
            self._predict = guarded(self._predict, code)

    def _ask_best_rows(self, message: Message, rows: int, fields: list[Any], size: int) -> int:
        inputs = self._inputs(message, fields, size)
        return self._predictor.best_rows(self._call, inputs, rows)

    def _ask_known_kernels(self, _: Message, model: Model, call: Call) -> dict[str, Any] | None:
        found = self._backend.known_kernels(model, call)
        return None if found is None else asdict(found)

    def _ask_try_kernels(
        self, message: Message, rows: int, fields: list[Any], size: int
    ) -> dict[str, Any]:
        inputs = self._inputs(message, fields, size)
        return asdict(self._predictor.try_kernels(self._call, inputs, rows))

    @property
    def _predictor(self) -> Predictor:
        assert self._shared is not None
        assert self._shared.predictor is not None
        return self._shared.predictor

    def _plain(self, inputs: Inputs, _: int) -> Outputs:
        found = dict(self._predictor(inputs))
        return lambda: found

    def _inputs(
        self, message: Message, fields: list[Any], size: int
    ) -> dict[str, Array | Ragged | Texts]:
        places = [read_place(each) for each in fields]
        return inputs_from(look(places, size, self._memory[message.slot]))

    def _begin(self, message: Message) -> None:
        start = time.perf_counter()
        try:
            asked = message.json()
            inputs = self._inputs(message, asked["places"], asked["size"])
            assert self._predict is not None
            assert self._shared is not None
            with self._shared.turn:
                outputs = self._predict(inputs, asked["rows"])
        except BaseException as error:
            outputs = _raising(error)
        self._started.append((message, outputs, time.perf_counter() - start))
        if self._calls is None or not self._calls.late:
            self._finish()

    def _finish_all(self) -> None:
        while self._started:
            self._finish()

    def _finish(self) -> None:
        message, outputs, spent = self._started.popleft()
        start = time.perf_counter()
        try:
            arrays = outputs_to_parts(outputs())
            places, size = put(arrays, self._memory[SLOTS + message.slot])
            fields: dict[str, Any] = {"places": [each.to_json() for each in places], "size": size}
        except BaseException as error:
            fields = {"error": failure_to_json(error)}
        fields["seconds"] = spent + time.perf_counter() - start
        fields["seconds"] += 0.0 if self._calls is None else self._calls.take_extra_seconds()
        fields["halved"], self._halved[:] = list(self._halved), []
        answer = Message(ANSWER, message.sequence, json.dumps(fields).encode(), message.slot)
        send(self._connection, answer)


def _join(shared: Shared) -> None:
    """Lets a further thread call a model next to the others if it may, else in turn with them."""
    with shared.building:
        assert shared.predictor is not None
        shared.callers += 1
        # A single caller has its turn always; to prove that others may call takes time.
        enter = shared.predictor.enter() if shared.callers > 1 else None
        if enter is not None:
            shared.turn = nullcontext()
            enter()


def _raising(error: BaseException) -> Outputs:
    def outputs() -> dict[str, Array]:
        raise error

    return outputs


def _is_readable(connection: socket.socket) -> bool:
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))
