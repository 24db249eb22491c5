"""What a backend implements: how models of a format are inspected, loaded and called.

A backend needs `load`, and a predictor needs `promises` and to be called. All else has a default
for a model that computes on the CPU in float32. No framework is imported here, nor by a backend
before one of `prepare`, `load`, `resolve` or `describe` is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import DeviceError, ModelError
from batchscore.models.backends.calling import Calls, PlainCalls
from batchscore.models.backends.facts import (
    DEFAULT_KERNELS,
    Call,
    Facts,
    Inputs,
    KernelTrial,
    Promises,
    RowTrial,
    Sample,
)

if TYPE_CHECKING:
    from batchscore.models.loadable import Model


class Predictor(ABC):
    """A loaded model: named NumPy arrays to named NumPy arrays."""

    @property
    @abstractmethod
    def promises(self) -> Promises:
        """What holds for every call."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the outputs (rows, …) of inputs (rows, …), a row each, in the same order."""

    @property
    def takes_missing(self) -> bool:
        """Whether rows with a NaN among their inputs reach the model, or are rejected."""
        return self.promises.missing == "nan"

    def call_few(self, inputs: Inputs, rows: int) -> Mapping[str, Array]:
        """Calls the model for a few rows, and for no more of them than it must."""
        return self(inputs)

    @property
    def notes(self) -> Mapping[str, str]:
        """Facts about loading that a person should know, such as casts of weights."""
        return {}

    def called(self, call: Call) -> Calls:
        """Returns the model as a run calls it; by default at once, on the caller's thread.

        Raises:
            ModelError: `call.kernels` cannot be used with the model on this machine.
        """
        return PlainCalls(self, self.promises, call.outputs)

    def compiled(self) -> Predictor:
        """Returns the model compiled, if the backend compiles models."""
        return self

    def explaining(self) -> Predictor:
        """Returns a model that explains the scores of this one.

        Its output `contributions` (rows, entries) has a number for each number of the inputs, in
        their order, and the base as the last one; `raw` (rows,) is what they add up to. Of several
        classes it is about the one with the largest raw score.

        Raises:
            ModelError: The model has scores that are not explained.
        """
        raise ModelError("explain: the model does not tell what its columns contributed")

    def again(self) -> Predictor | None:
        """Returns the model without what it kept of calls; None: loading it again does that.

        Raises:
            ModelError: It cannot be built again.
        """
        return None

    def enter(self) -> Callable[[], object] | None:
        """Returns what a thread does before its first call; None: one thread may call at a time."""
        return _nothing if self.promises.reentrant else None

    def best_rows(self, call: Call, inputs: Inputs, rows: int) -> int:
        """Returns the best rows of a call, by a search, where `known_rows` has no answer."""
        return call.rows

    def try_kernels(self, call: Call, inputs: Inputs, rows: int) -> KernelTrial:
        """Times the model's calls with each of its kernels, for about a second at most.

        Args:
            call: How the run calls the model.
            inputs: Rows that have a score.
            rows: How many there are.

        Raises:
            StepError: The model failed.
        """
        return KernelTrial()


def _nothing() -> None:
    """A reentrant model needs nothing for a thread of its own."""


# B027: what most backends have nothing to do for has no body.
class Backend(ABC):
    """Models of one or more formats.

    Attributes:
        packages: Packages whose version can change scores.
        unpinned: Formats that can hold no code: one file may go without its SHA-256.
        needs_architecture: Whether a card must name the code that builds the model.
        names_columns: Whether the files say which columns make the input, and name outputs.
        names_tensors: Whether the files name each input and output, with type and shape.
        files_run_code: Whether loading a file can run code of it, so that a job must allow it.
        takes_call: Whether a card may say what of the model is called.
        takes_texts: Whether the models can have inputs of type `TEXT`.
        other_devices: What the models can compute on next to the CPU, without a number.
        explains: Whether models have `explaining`.
        is_fragile: Whether a damaged file can end the process that loads it.
        trial_values: What fills the rows of floats that a model is called with when that is tried.
        precisions: What the models can compute with.
        compiles: Whether it compiles models.
        kernels: What `Call.kernels` may be on the CPU, in float32.
        row_group: Rows of a call on the CPU are a multiple of it, or 1; 0: calls have no such size.
        usual_call: How calls are sized by default, in words.
        preloads: Modules that a server of workers imports once for all of them.
        unneeded: Modules that the framework imports for other uses than scoring, and does without
            where they are not installed. A process of the model alone leaves them out.
    """

    packages: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    needs_architecture: bool = False
    names_columns: bool = False
    names_tensors: bool = False
    files_run_code: bool = False
    takes_call: bool = False
    takes_texts: bool = False
    other_devices: tuple[str, ...] = ()
    explains: bool = False
    is_fragile: bool = False
    trial_values: tuple[float, ...] = (0.0, float("nan"), 1e30, -1e30, 1.0)
    precisions: tuple[str, ...] = ("float32",)
    compiles: bool = False
    kernels: tuple[str, ...] = (DEFAULT_KERNELS,)
    row_group: int = 0
    usual_call: str = "whole batches"
    preloads: tuple[str, ...] = ()
    unneeded: tuple[str, ...] = ()

    @abstractmethod
    def load(self, model: Model, device: str, threads: int = 1, prove: bool = False) -> Predictor:
        """Loads a verified model.

        Args:
            model: What the card says, and where the files are; `localize` gives their folder. In a
                process of its own it has no `features`, since inputs come encoded.
            device: What `resolve` returned.
            threads: Threads that one call may use.
            prove: Tries more than loading needs, once before a run.

        Raises:
            ModelError: The files cannot be read, or do not fit the card.
        """

    def require(self) -> None:  # noqa: B027
        """Looks whether the framework is installed, and does not import it.

        Raises:
            ModelError: It is not; the message names the extra that installs it.
        """

    def inspect(self, model: Model) -> Facts:
        """Returns what the model's files say, without a framework and without running code."""
        return Facts()

    def examine(self, model: Model) -> Facts:
        """Returns the same with what a person may want to know and no run needs."""
        return self.inspect(model)

    def needed(self, model: Model) -> tuple[str, ...]:
        """Names the model's files that `load` reads."""
        return (model.weights,)

    def prepare(self) -> None:  # noqa: B027
        """Imports the framework, which may take seconds."""

    def resolve(self, asked: str) -> str:
        """Returns the device for what `runtime.device` asks for.

        Raises:
            DeviceError: It cannot be used.
        """
        if asked in ("auto", "cpu"):
            return "cpu"
        raise DeviceError(
            f"runtime.device {asked!r}: models of this format compute on the CPU alone; set "
            "runtime.device to auto or cpu"
        )

    def describe(self, device: str) -> str:
        """Returns a device with what scores depend on, such as the kind of processor."""
        return device

    def gpus(self, device: str) -> tuple[str, ...]:
        """Names the GPUs that workers may share out."""
        return ()

    def release(self, device: str) -> None:  # noqa: B027
        """Returns memory of a device that this process does not use."""

    def scores_as_earlier(self, model: Model) -> bool:
        """Tells whether versions up to commit 020ad64 computed the same scores."""
        return True

    def known_rows(self, model: Model, call: Call) -> tuple[int | None, str]:
        """Returns the rows of a call and why so many; None where only a search can tell."""
        return call.batch_rows, self.usual_call

    def remember_rows(self, model: Model, call: Call, rows: int) -> None:  # noqa: B027
        """Remembers what a search found, for later runs."""

    def known_kernels(self, model: Model, call: Call) -> KernelTrial | None:
        """Returns what an earlier `try_kernels` found on this machine, or None."""
        return None

    def remember_kernels(self, model: Model, call: Call, trial: KernelTrial) -> None:  # noqa: B027
        """Remembers what `try_kernels` found, for later runs."""

    def trial(self, sample: Sample) -> RowTrial:
        """Returns which rows of a sample to score again, and in what calls."""
        return RowTrial(np.arange(sample.rows, dtype=np.int64), (sample.call_rows,))
