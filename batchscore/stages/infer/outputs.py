"""What a network returned, named, checked against what was declared, and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from batchscore.arrays import Array
from batchscore.errors import StepError
from batchscore.stages.block import DEFAULT_OUTPUT


@dataclass(frozen=True)
class OutputSpec:
    """A model output as declared: its name, NumPy type, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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


def row_tensor(
    name: str, tensor: torch.Tensor, declared: Sequence[OutputSpec], rows: int
) -> torch.Tensor:
    """Returns an output as (rows, …) of its declared shape; half precision becomes float32.

    Raises:
        StepError: it is of another shape.
    """
    spec = find_output(name, declared)
    found = tuple(tensor.shape)
    if found == (rows, *(spec.shape if spec else ()), 1):
        tensor = tensor.squeeze(-1)
    expected = (rows, *spec.shape) if spec else (rows, *tensor.shape[1:])
    if tuple(tensor.shape) != expected:
        raise StepError(
            f"the model returned shape {list(found)} for output {name!r}; expected "
            f"{list(expected)}: one row for each of {rows} given, and then the declared shape"
        )
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.detach()


def find_output(name: str, declared: Sequence[OutputSpec]) -> OutputSpec | None:
    """Returns what was declared under a name, if anything."""
    return next((output for output in declared if output.name == name), None)


def as_declared(array: Array, spec: OutputSpec | None) -> Array:
    """Casts an output to its declared type; StepError where that would change what it says."""
    if spec is None or array.dtype == spec.dtype:
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
