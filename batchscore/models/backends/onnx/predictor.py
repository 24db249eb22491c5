"""An ONNX model as it is called: NumPy arrays in and out, in calls of one size.

Kernels choose their way by the number of rows, so that a row may have other bits in a call of
another size. All calls of a model have the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.columnar.texts import Texts
from batchscore.errors import StepError
from batchscore.messages.wording import one_line
from batchscore.models.backends.calling import check_outputs
from batchscore.models.backends.facts import (
    TILE_ROWS,
    Call,
    FileTensor,
    Inputs,
    Outputs,
    OutputSpec,
    Promises,
)
from batchscore.models.backends.onnx.sessions import onnxruntime_version
from batchscore.models.backends.pace import WORTH_S, Pace
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.side_by_side import run_side_by_side


@dataclass(frozen=True)
class OnnxPredictor(Predictor):
    """A loaded model.

    Args:
        session: May be called by several threads.
        inputs: What it takes, as its file says.
        outputs: What is declared of its outputs.
        batch: Rows of a call, where the file fixes them.
        device: Where it computes.
    """

    session: Any
    inputs: tuple[FileTensor, ...]
    outputs: tuple[OutputSpec, ...]
    batch: int | None
    device: str

    @property
    def promises(self) -> Promises:
        """Calls of one size, each on one thread; NaN is a number as any other."""
        tile = self.batch or TILE_ROWS
        return Promises(tile, True, "nan", self.device, 1, onnxruntime_version())

    @property
    def notes(self) -> Mapping[str, str]:
        """Says which provider computes, and that the file fixes the size of a call."""
        found = {"provider": ", ".join(self.session.get_providers())}
        if self.batch is not None:
            rows = "1 row" if self.batch == 1 else f"{self.batch:,} rows"
            found["batch"] = (
                f"each call has {rows}, which the file fixes; an export with a dynamic first "
                "dimension may be quicker"
            )
        return found

    def __call__(self, inputs: Inputs) -> Mapping[str, Array]:
        """Returns the outputs of any number of rows, computed in tiles."""
        rows = len(next(iter(inputs.values())))  # type: ignore[arg-type]
        return self.called(Call(self.outputs, self.device)).predict(inputs, rows)()

    def call_few(self, inputs: Inputs, rows: int) -> Mapping[str, Array]:
        """Returns the outputs of a few rows, in one call that is not filled up."""
        return self.called(Call(self.outputs, self.device, rows=rows)).predict(inputs, rows)()

    def called(self, call: Call) -> OnnxCalls:
        """Returns how a run calls the model."""
        threads = call.threads if self.device == "cpu" else 1
        return OnnxCalls(self, call.outputs or self.outputs, self.batch or call.rows, threads)


@dataclass(frozen=True)
class OnnxCalls:
    """Calls of one size, next to each other on threads of the CPU.

    Args:
        model: The model.
        outputs: What is wanted of it.
        tile: Rows of a call.
        threads: Calls that run at the same time, at most.
        pace: Pace of the calls.
    """

    model: OnnxPredictor
    outputs: tuple[OutputSpec, ...]
    tile: int
    threads: int
    pace: Pace = field(default_factory=lambda: Pace(WORTH_S))
    late: bool = field(default=False, init=False)

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Computes the outputs of all rows; the last call repeats its last row."""
        given = {each.name: shaped(inputs[each.name], each, rows) for each in self.model.inputs}
        starts = range(0, rows, self.tile)
        began = time.perf_counter()
        first = self._call(given, 0)
        threads = self.pace.threads(time.perf_counter() - began, self.threads)
        made = {name: np.empty((rows, *a.shape[1:]), a.dtype) for name, a in first.items()}
        self._place(first, made, 0)
        run = partial(self._run, given, made)
        run_side_by_side(run, starts[1:], threads, self.threads, self.pace)
        return lambda: made

    def take_extra_seconds(self) -> float:
        """Returns the seconds of threads next to the caller's, and sets their count to zero."""
        return self.pace.take_others_s()

    def _run(self, given: Mapping[str, Array], made: Mapping[str, Array], start: int) -> None:
        self._place(self._call(given, start), made, start)

    def _call(self, given: Mapping[str, Array], start: int) -> dict[str, Array]:
        tiles = {name: _tile(values, start, self.tile) for name, values in given.items()}
        names = [each.name for each in self.outputs]
        try:
            found = self.model.session.run(names, tiles)
        except Exception as error:  # its errors have no class in common
            said = str(error).rpartition("] : ")[2]
            raise StepError(f"onnxruntime failed: {one_line(said, 300)}") from error
        return check_outputs(dict(zip(names, found, strict=True)), self.outputs, self.tile)

    def _place(self, found: Mapping[str, Array], made: Mapping[str, Array], start: int) -> None:
        for name, array in found.items():
            own = made[name][start : start + self.tile]
            if array.dtype != own.dtype or array.shape[1:] != own.shape[1:]:
                raise StepError(
                    f"the model returned output {name!r} of shape {list(array.shape[1:])} for some "
                    f"rows of a batch, and of {list(own.shape[1:])} for others; declare its shape "
                    "in model.outputs"
                )
            own[...] = array[: len(own)]


def shaped(values: Any, taken: FileTensor, rows: int) -> Array:
    """Returns an input's rows in the shape and type that the graph takes.

    Raises:
        StepError: A text is not valid UTF-8.
    """
    own = (-1 if size is None else size for size in taken.shape or ())
    if not isinstance(values, Texts):
        return np.ascontiguousarray(values, taken.dtype).reshape(rows, *own)
    try:
        return values.spelled().reshape(rows, *own)
    except UnicodeDecodeError as error:
        raise StepError(f"input {taken.name!r} has a text that is not valid UTF-8") from error


def _tile(values: Array, start: int, rows: int) -> Array:
    """Returns rows from a place on; those beyond the last repeat it."""
    found = values[start : start + rows]
    missing = rows - len(found)
    return np.concatenate([found, np.repeat(found[-1:], missing, axis=0)]) if missing else found
