"""Model inputs to model outputs, in tiles of one fixed row count so that bits never change."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from batchscore.arrays import Array, to_arrow, to_numpy
from batchscore.errors import BatchscoreError, StepError
from batchscore.stages.block import DEFAULT_OUTPUT, TILE_ROWS, Block, reject_non_finite
from batchscore.wording import reason

# Left alone, MKL chooses its kernels by a matrix's address and shape, so that a row's bits change
# with its place in a tile. It reads this once, before its first call in the process.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Arrow's buffers are read-only, and torch says so once; what they hold is the stage's own copy.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass(frozen=True)
class OutputSpec:
    """A model output as declared: its name, NumPy type, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Forward:
    """How a loaded network is called.

    Args:
        call: takes tensors (t, …) by model input, returns what the network returns.
        outputs: what was declared; empty: one unnamed tensor is taken as `score`.
        device: where the tensors must be.
        threads: tiles that run side by side; each uses one thread within.
    """

    call: Callable[[dict[str, torch.Tensor]], Any]
    outputs: tuple[OutputSpec, ...]
    device: str
    threads: int


def infer(block: Block, forward: Forward) -> Block:
    """Replaces a block's model inputs by the model's outputs; rows with a NaN or infinity leave.

    Each tile has 1,024 rows, the last padded with zeros: a row's bits depend on nothing but its
    inputs, whatever the block's size and the number of threads.

    Raises:
        StepError: the network raised, or returned something of another shape, type or name.
    """
    if block.values is None or not len(block):
        return block
    arrays = {
        name: to_numpy(column)
        for name, column in zip(block.values.schema.names, block.values.columns, strict=True)
    }
    outputs = run_tiles(arrays, len(block), forward)
    columns = [to_arrow(array) for array in outputs.values()]
    done = replace(block, values=pa.record_batch(columns, names=list(outputs)))
    return reject_non_finite(done, "infer", "the model returned NaN or infinity")


def run_tiles(inputs: dict[str, Array], rows: int, forward: Forward) -> dict[str, Array]:
    """Runs all tiles of `rows` rows and returns each output as an array (rows, …)."""
    starts = range(0, rows, TILE_ROWS)
    first = _run_tile(inputs, 0, rows, forward)
    made = {name: np.empty((rows, *a.shape[1:]), a.dtype) for name, a in first.items()}
    for name, array in first.items():
        made[name][: len(array)] = array

    def run(start: int) -> None:
        for name, array in _run_tile(inputs, start, rows, forward).items():
            made[name][start : start + len(array)] = array

    if forward.threads > 1 and len(starts) > 2:
        list(_pool(forward.threads).map(run, starts[1:]))
    else:
        for start in starts[1:]:
            run(start)
    return made


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _pools_lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="tile")
        return _pools[threads]


def _run_tile(
    inputs: dict[str, Array], start: int, rows: int, forward: Forward
) -> dict[str, Array]:
    kept = min(TILE_ROWS, rows - start)
    _use_one_thread()
    tensors = {name: _tile(array, start, kept).to(forward.device) for name, array in inputs.items()}
    try:
        with torch.inference_mode():
            result = forward.call(tensors)
    except (BatchscoreError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise StepError(f"the model raised {type(error).__name__}: {reason(error)}") from error
    named = name_outputs(result, forward.outputs)
    return {name: _row_values(name, t, forward.outputs)[:kept] for name, t in named.items()}


def _use_one_thread() -> None:
    """Keeps operations to one thread, a setting that torch holds apart for each calling thread."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def _tile(array: Array, start: int, kept: int) -> torch.Tensor:
    if kept == TILE_ROWS:
        return torch.from_numpy(array[start : start + kept])
    padded = np.zeros((TILE_ROWS, *array.shape[1:]), array.dtype)
    padded[:kept] = array[start : start + kept]
    return torch.from_numpy(padded)


def name_outputs(result: Any, declared: Sequence[OutputSpec]) -> dict[str, torch.Tensor]:
    """Names what a network returned: a tensor, a tuple in the declared order, or a dict.

    Raises:
        StepError: it is none of these, or the names or their number differ from the declared ones.
    """
    names = [output.name for output in declared] or [DEFAULT_OUTPUT]
    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, dict):
        missing = [name for name in names if name not in result]
        if declared and missing:
            raise StepError(f"the model returned outputs {sorted(result)}; {missing} are declared")
        chosen = {name: result[name] for name in (names if declared else result)}
    elif isinstance(result, (tuple, list)) and len(result) == len(names):
        chosen = dict(zip(names, result, strict=True))
    else:
        found = len(result) if isinstance(result, (tuple, list)) else type(result).__name__
        raise StepError(f"the model returned {found} outputs; declared are {names}")
    return {str(name): _as_tensor(name, value) for name, value in chosen.items()}


def _as_tensor(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise StepError(f"model output {name!r} is a {type(value).__name__}; expected a tensor")
    return value


def _row_values(name: str, tensor: torch.Tensor, declared: Sequence[OutputSpec]) -> Array:
    spec = next((output for output in declared if output.name == name), None)
    found = tuple(tensor.shape)
    if found == (TILE_ROWS, *(spec.shape if spec else ()), 1):
        tensor = tensor.squeeze(-1)
    expected = (TILE_ROWS, *spec.shape) if spec else (TILE_ROWS, *tensor.shape[1:])
    if tuple(tensor.shape) != expected:
        raise StepError(
            f"the model returned shape {list(found)} for output {name!r}; expected "
            f"{list(expected)}: one row for each of {TILE_ROWS} given, and then the declared shape"
        )
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array = tensor.detach().cpu().numpy()
    return _as_declared(array, spec) if spec else array


def _as_declared(array: Array, spec: OutputSpec) -> Array:
    """Casts an output to its declared type; StepError where that would change what it says."""
    if array.dtype == spec.dtype:
        return array
    kinds = "biuf"
    narrower = kinds.index(np.dtype(spec.dtype).kind) < kinds.index(array.dtype.kind)
    cast = array if narrower else array.astype(spec.dtype)
    if narrower or (array.dtype.kind in "iu" and not (cast == array).all()):
        raise StepError(
            f"the model returned {array.dtype} for output {spec.name!r}, declared as {spec.dtype}, "
            "which cannot hold it; declare the type that the network returns, or cast there"
        )
    return cast
