"""A backend, its models and their calls, all of which are in a process of their own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from batchscore.columnar.array_type import Array
from batchscore.errors import StepError
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import (
    Call,
    Facts,
    Inputs,
    KernelTrial,
    Outputs,
    Promises,
    RowTrial,
    Sample,
)
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.loadable import Model
from batchscore.models.process.connection import Answer, Connection, GoneError, SilentError
from batchscore.models.process.host import Host
from batchscore.models.process.memory import Named, parts_of
from batchscore.models.process.raised import foreign_class
from batchscore.models.process.recipe import Recipe

_LEAST_S = 10.0
"""Seconds that each answer may take, if the job allows as many for a batch."""


class ProcessBackend(Backend):
    """A backend whose framework is imported by another process alone.

    Args:
        own: Tells what needs no framework.
        host: Has the process.
        shared: Whoever loads a model with the same text shares it; empty: nobody does.
    """

    def __init__(self, own: Backend, host: Host, shared: str = "") -> None:
        self._own, self._host, self._shared = own, host, shared
        # Workers need no modules beforehand: the framework is not in their process.
        for name in Backend.__annotations__.keys() - {"preloads"}:
            setattr(self, name, getattr(own, name))

    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads a verified model in the process; see `Backend.load`."""
        key = self._shared or secrets.token_hex(8)
        return ProcessPredictor(self._host, Recipe(key, _encoded(model), device, threads, prove))

    def inspect(self, model: Model) -> Facts:
        """Returns what the model's files say."""
        return self._own.inspect(model)

    def prepare(self) -> None:
        """Waits until the process has imported the framework."""
        self._ask("prepare")

    def resolve(self, asked: str) -> str:
        """Returns the device for what `runtime.device` asks for."""
        return str(self._ask("resolve", asked))

    def describe(self, device: str) -> str:
        """Returns a device with what scores depend on."""
        return str(self._ask("describe", device))

    def gpus(self, device: str) -> tuple[str, ...]:
        """Names the GPUs that workers may share out."""
        return tuple(self._ask("gpus", device))

    def release(self, device: str) -> None:
        """Returns memory of a device that the process does not use."""
        self._ask("release", device)

    def scores_as_earlier(self, model: Model) -> bool:
        """Tells whether versions up to commit 020ad64 computed the same scores."""
        return bool(self._ask("scores_as_earlier", _encoded(model)))

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns the rows of a call and why so many; None where only a search can tell."""
        rows, why = self._ask("known_rows", _encoded(model), _sendable(call))
        return rows, why

    def remember_rows(self, model: Model, call: Call, rows: int) -> None:
        """Remembers what a search found, for later runs."""
        self._ask("remember_rows", _encoded(model), _sendable(call), rows)

    def known_kernels(self, model: Model, call: Call) -> KernelTrial | None:
        """Returns what an earlier trial of kernels found on this machine, or None."""
        ask = (_encoded(model), _sendable(call))
        found = self._host.asked(lambda link: link.ask("known_kernels", *ask))
        return None if found is None else KernelTrial(**found)

    def remember_kernels(self, model: Model, call: Call, trial: KernelTrial) -> None:
        """Remembers what a trial of kernels found, for later runs."""
        self._ask("remember_kernels", _encoded(model), _sendable(call), trial)

    def trial(self, sample: Sample) -> RowTrial:
        """Returns which rows of a sample to score again, and in what calls."""
        return self._own.trial(sample)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._host.asked(lambda link: link.ask("backend", method, arguments))


class ProcessPredictor(Predictor):
    """A model that another process has loaded."""

    def __init__(self, host: Host, recipe: Recipe) -> None:
        self._host, self._recipe = host, recipe
        self._link, self._fields = host.asked(partial(_held, recipe=recipe))

    @property
    def is_made(self) -> bool:
        """Whether there is such a model: not each one is made again."""
        return self._fields is not None

    @property
    def promises(self) -> Promises:
        """What holds for every call."""
        return Promises(**self._ask("promises"))

    @property
    def takes_missing(self) -> bool:
        """Whether rows with a NaN among their inputs reach the model, or are rejected."""
        return bool(self._fields["takes_missing"])

    @property
    def notes(self) -> Mapping[str, str]:
        """Facts about loading that a person should know."""
        return dict(self._fields["notes"])

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the outputs of any number of rows."""
        return ProcessCalls(self._host, self._recipe, None).predict(inputs, 0)()

    def called(self, call: Call) -> Calls:
        """Returns the model as a run calls it; the process computes while the caller goes on."""
        return ProcessCalls(self._host, self._recipe, call)

    def compiled(self) -> Predictor:
        """Returns the model compiled, if the backend compiles models."""
        return ProcessPredictor(self._host, self._recipe.then("compiled"))

    def explaining(self) -> Predictor:
        """Returns a model that explains the scores of this one, in the same process."""
        return ProcessPredictor(self._host, self._recipe.then("explained"))

    def again(self) -> Predictor | None:
        """Returns the model without what it kept of calls; None: loading it again does that."""
        made = ProcessPredictor(self._host, self._recipe.then("again"))
        return made if made.is_made else None

    def enter(self) -> Callable[[], object] | None:
        """Returns a function that does nothing: a thread of the process is made ready there."""
        return _nothing if self._ask("may_enter") else None

    def best_rows(self, call: Call, inputs: Inputs, rows: int) -> int:
        """Returns the best rows of a call, by a search in the process."""
        calls = ProcessCalls(self._host, self._recipe, call)
        return int(self._host.asked(lambda link: calls.best_rows(link, inputs, rows)))

    def try_kernels(self, call: Call, inputs: Inputs, rows: int) -> KernelTrial:
        """Times calls with each of the model's kernels in the process."""
        calls = ProcessCalls(self._host, self._recipe, call)
        found = self._host.asked(lambda link: calls.try_kernels(link, inputs, rows))
        return KernelTrial(**found)

    def _ask(self, name: str) -> Any:
        def ask(link: Connection) -> Any:
            link.ask("load", self._recipe)
            return link.ask(name)

        return self._host.asked(ask)


class ProcessCalls:
    """Calls of a model in another process; the caller goes on while they are computed.

    Each thread that calls has a connection, which a thread of the process serves. If the process
    dies, calls that were under way are repeated one at a time; one that it dies of then fails.

    Args:
        host: Has the process.
        recipe: Of the model.
        call: How it is called; None: with any number of rows.
    """

    late = True

    def __init__(self, host: Host, recipe: Recipe, call: Call | None) -> None:
        self._host, self._recipe = host, recipe
        self._call = None if call is None else _sendable(call)
        self._halved = (lambda halvings: None) if call is None else call.halved
        self._own = threading.local()
        self._counting = threading.Lock()
        self._seconds = 0.0

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Starts a call, and returns what waits for it; see `Calls.predict`."""
        arrays = parts_of(inputs)
        started = None if self._host.careful else self._started(arrays, rows)
        if started is not None:
            return _Once(partial(self._outputs, *started, arrays, rows))
        outputs = self._alone(arrays, rows)
        return lambda: outputs

    def take_extra_seconds(self) -> float:
        """Returns the seconds for which the process computed, and sets their count to zero."""
        with self._counting:
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    def best_rows(self, link: Connection, inputs: Inputs, rows: int) -> Any:
        """Has the process search for the best rows of a call."""
        self._prepare(link)
        return link.ask_about(parts_of(inputs), "best_rows", rows)

    def try_kernels(self, link: Connection, inputs: Inputs, rows: int) -> Any:
        """Has the process time calls with each of the model's kernels."""
        self._prepare(link)
        return link.ask_about(parts_of(inputs), "try_kernels", rows)

    def _started(self, arrays: Sequence[Named], rows: int) -> tuple[Connection, int] | None:
        """Starts a call next to others; None if a process died, and calls are made alone."""
        link = self._connected()
        if self._host.careful:
            return None
        try:
            return link, link.call(arrays, rows)
        except GoneError:
            self._host.note_death(link)
        except SilentError as error:
            self._host.note_silence(link, error, self._host.timeout_s)
        return None

    def _outputs(
        self, link: Connection, number: int, arrays: Sequence[Named], rows: int
    ) -> dict[str, Array]:
        try:
            return self._noted(link.answer(number, self._host.timeout_s))
        except GoneError:
            self._host.note_death(link)
        except SilentError as error:
            self._host.note_silence(link, error, self._host.timeout_s)
        return self._alone(arrays, rows)

    def _alone(self, arrays: Sequence[Named], rows: int) -> dict[str, Array]:
        """Calls the model while nobody else does, so that it is known what it dies of."""
        how = self._host.deadly.find(arrays, rows)
        if how is None:
            with self._host.turn():
                answer = self._answered(arrays, rows)
            if isinstance(answer, Answer):
                return self._noted(answer)
            how = answer
            self._host.deadly.note(arrays, rows, how)
        died = _died(how)
        raise died from died.__cause__

    def _answered(self, arrays: Sequence[Named], rows: int) -> Answer | str:
        """Returns what a call came to, or how the process ended of it."""
        while True:
            link = self._connected()
            within_s = _patience_s(self._host.timeout_s, self._call, rows)
            number = None
            try:
                number = link.call(arrays, rows)
                return link.answer(number, within_s)
            except GoneError:
                how = self._host.note_death(link)
                if number is not None:  # else it died before the call
                    return how
            except SilentError as error:
                return self._host.note_silence(link, error, within_s)

    def _noted(self, answer: Answer) -> dict[str, Array]:
        self._host.note_answer()
        with self._counting:
            self._seconds += answer.seconds
        for halvings in answer.halved:
            self._halved(halvings)
        if answer.error is not None:
            raise answer.error
        return answer.outputs

    def _connected(self) -> Connection:
        """Returns this thread's connection, to the process that there is now."""
        link: Connection | None = getattr(self._own, "link", None)
        if link is None or not self._host.is_current(link):
            link = self._own.link = self._host.asked(self._prepare)
        return link

    def _prepare(self, link: Connection) -> Connection:
        link.ask("load", self._recipe)
        link.ask_calls(self._call)
        return link


class _Once:
    """Calls a function once, and returns or raises the same each time."""

    def __init__(self, function: Callable[[], dict[str, Array]]) -> None:
        self._function: Callable[[], dict[str, Array]] | None = function
        self._lock = threading.Lock()
        self._found: dict[str, Array] = {}
        self._error: BaseException | None = None

    def __call__(self) -> dict[str, Array]:
        with self._lock:
            if self._function is not None:
                function, self._function = self._function, None
                try:
                    self._found = function()
                except BaseException as error:
                    self._error = error
            if self._error is not None:
                raise self._error
            return self._found


def _died(how: str) -> StepError:
    """Returns the error of rows that a process died of; its cause gives their reason its name."""
    error = StepError(f"the model's process {how}")
    error.__cause__ = foreign_class("ModelProcessDied")(how)
    return error


def _patience_s(timeout_s: float, call: Call | None, rows: int) -> float:
    """Returns the seconds that an answer to a call of so many rows may take.

    Fewer rows than a batch get a part of its time, so that isolating a row on which the model
    hangs takes not much longer than noticing that it does. What compiles first gets all of it.
    """
    if call is None or call.compile:
        return timeout_s
    return min(timeout_s, max(_LEAST_S, timeout_s * rows / call.batch_rows))


def _held(link: Connection, recipe: Recipe) -> tuple[Connection, Any]:
    return link, link.ask("load", recipe)


def _encoded(model: Model) -> Model:
    """Returns a model without its features, which take pydantic to read: inputs come encoded."""
    return replace(model, features=None)


def _sendable(call: Call) -> Call:
    return replace(call, halved=_no_halving)


def _no_halving(halvings: int) -> None:
    """What a caller wants of a process."""


def _nothing() -> None:
    """A thread of the caller needs nothing."""
