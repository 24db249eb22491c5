"""Calls a loaded model for the rows of a block, as its promises ask, and checks what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Protocol

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged, take_steps
from batchscore.columnar.texts import Texts
from batchscore.errors import BatchscoreError, StepError
from batchscore.messages.wording import reason
from batchscore.models.backends.facts import (
    DEFAULT_OUTPUT,
    Inputs,
    Outputs,
    OutputSpec,
    Promises,
)

Function = Callable[[Inputs], Mapping[str, Array]]


class Calls(Protocol):
    """A model that is ready for blocks of any size."""

    @property
    def late(self) -> bool:
        """Whether `predict` returns before the outputs are computed, as for a GPU."""

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Starts to compute the outputs of `rows` rows, and returns what waits for them.

        Raises:
            StepError: The model failed, or returned something that was not declared; now, or when
                the outputs are waited for.
        """

    def take_extra_seconds(self) -> float:
        """Returns the seconds of threads other than the caller's, and sets their count to zero."""


class PlainCalls:
    """Calls a model at once on the caller's thread.

    Args:
        model: Takes and returns arrays (rows, …) by name.
        promises: What holds for its calls.
        outputs: What is declared; empty: one output named `score`.
    """

    late = False

    def __init__(
        self, model: Function, promises: Promises, outputs: Sequence[OutputSpec] = ()
    ) -> None:
        self._model, self._tile = model, promises.tile
        self._outputs, self._shares = outputs, promises.leaves_inputs
        self._turn: AbstractContextManager[Any] = nullcontext() if promises.reentrant else Lock()

    def predict(self, inputs: Inputs, rows: int) -> Outputs:
        """Computes the outputs of all rows."""
        tile = self._tile or rows
        starts = range(0, rows, tile)
        made = [self._call(inputs, start, min(start + tile, rows), tile) for start in starts]
        _require_equal_kinds(made)
        joined = {name: np.concatenate([each[name] for each in made]) for name in made[0]}
        return lambda: joined

    def take_extra_seconds(self) -> float:
        """Returns 0: there are no other threads."""
        return 0.0

    def _call(self, inputs: Inputs, start: int, stop: int, tile: int) -> dict[str, Array]:
        given = self._given(inputs, start, stop, tile)
        try:
            with self._turn:
                found = self._model(given)
        except (BatchscoreError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raise StepError(f"the model raised {type(error).__name__}: {reason(error)}") from error
        checked = check_outputs(found, self._outputs, tile)
        return {name: array[: stop - start].copy() for name, array in checked.items()}

    def _given(self, inputs: Inputs, start: int, stop: int, tile: int) -> Inputs:
        """Returns the inputs of a call, as copies if the model may write into what it receives."""
        if self._shares and self._tile is None:
            return inputs
        # The last call repeats its last row, since a model may take no empty row, or no zeros.
        places_n = np.minimum(np.arange(start, start + tile), stop - 1)
        return {name: _rows(values, places_n) for name, values in inputs.items()}


def _rows(values: Array | Ragged | Texts, places_n: Array) -> Array | Ragged | Texts:
    """Returns copies of rows."""
    if not isinstance(values, Ragged):
        return values[places_n]
    starts_n = values.offsets[:-1][places_n]
    lengths_n = values.offsets[1:][places_n] - starts_n
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_n)])
    return Ragged(take_steps(values.steps_n, starts_n, lengths_n), offsets)


def check_outputs(found: Any, declared: Sequence[OutputSpec], rows: int) -> dict[str, Array]:
    """Returns a call's outputs in the declared order, types and shapes.

    Raises:
        StepError: They are no arrays by name, a name, a shape or a type is not what was declared,
            or rows are missing.
    """
    if not isinstance(found, Mapping):
        raise StepError(
            f"the model returned {type(found).__name__}; expected a mapping from each output's "
            "name to its array"
        )
    specs = declared or (OutputSpec(DEFAULT_OUTPUT, "", ()),)
    missing = [spec.name for spec in specs if spec.name not in found]
    if missing:
        raise StepError(f"the model returned outputs {list(found)}; expected {missing} as well")
    return {spec.name: _checked(_array(found[spec.name], spec), spec, rows) for spec in specs}


def _array(output: Any, spec: OutputSpec) -> Array:
    try:
        return np.asarray(output)
    except Exception as error:  # a framework's own object raises what it likes
        raise StepError(
            f"the model returned {type(output).__name__} for output {spec.name!r}, which is not "
            f"an array ({reason(error)}); expected a NumPy array"
        ) from error


def _checked(array: Array, spec: OutputSpec, rows: int) -> Array:
    own = spec.shape if spec.dtype else array.shape[1:]
    if array.shape == (rows, *own, 1):
        array = array[..., 0]
    if array.shape != (rows, *own):
        raise StepError(
            f"the model returned shape {list(array.shape)} for output {spec.name!r}; expected "
            f"{[rows, *own]}: one row for each of {rows}, in the same order"
        )
    if array.dtype.kind not in "biuf":
        raise StepError(
            f"the model returned {array.dtype} for output {spec.name!r}; expected booleans, "
            "integers or floats"
        )
    return cast_output(array, spec) if spec.dtype else array


def may_hold(dtype: str, own: np.dtype[Any] | str) -> bool:
    """Tells whether a type may hold another one's values; of whole numbers each value is tried."""
    rank = {"b": 0, "i": 1, "u": 1, "f": 2}
    return rank[np.dtype(dtype).kind] >= rank[np.dtype(own).kind]


def cast_output(array: Array, spec: OutputSpec | None) -> Array:
    """Casts an output to its declared type; StepError where that would change what it says."""
    if spec is None or array.dtype == spec.dtype:
        return array
    narrower = not may_hold(spec.dtype, array.dtype)
    cast = array if narrower else array.astype(spec.dtype)
    if narrower or (array.dtype.kind in "iu" and not (cast == array).all()):
        raise StepError(
            f"the model returned {array.dtype} for output {spec.name!r}, declared as {spec.dtype}, "
            "which cannot hold it; declare the type that the network returns, or cast there"
        )
    return cast


def _require_equal_kinds(made: Sequence[Mapping[str, Array]]) -> None:
    kinds = [{name: (a.dtype, a.shape[1:]) for name, a in each.items()} for each in made]
    if any(each != kinds[0] for each in kinds):
        raise StepError(
            "the model returned other types or shapes for some rows of a batch than for others; "
            "return the same for all"
        )
