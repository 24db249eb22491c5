"""What a network returned, named, and compared with what was declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from batchscore.errors import StepError
from batchscore.messages.wording import counted, type_of
from batchscore.models.backends.facts import DEFAULT_OUTPUT, OutputSpec

_HALF = (torch.bfloat16, torch.float16)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_TYPES = {torch.bool, *_WHOLE, *_UNSIGNED, *_HALF, torch.float32, torch.float64}


def name_outputs(result: Any, declared: Sequence[OutputSpec]) -> dict[str, torch.Tensor]:
    """Names what a network returned: a tensor, a tuple in the declared order, or a dict.

    Raises:
        StepError: It is none of these, or the names or their number differ from the declared ones,
            or there is no output, or a name is no text.
    """
    names = [output.name for output in declared] or [DEFAULT_OUTPUT]
    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, dict):
        missing = [name for name in names if name not in result]
        if declared and missing:
            raise StepError(
                f"the model returned outputs {list(result)}; expected {missing} too, as declared"
            )
        chosen = {name: result[name] for name in (names if declared else result)}
    elif isinstance(result, (tuple, list)) and len(result) == len(names):
        chosen = dict(zip(names, result, strict=True))
    else:
        is_many = isinstance(result, (tuple, list))
        found = counted(len(result), "output") if is_many else type_of(result)
        raise StepError(f"the model returned {found}; expected {names}, as declared")
    if not chosen:
        raise StepError("the model returned a dict without outputs; expected one at least")
    return {_as_name(name): _as_tensor(name, value) for name, value in chosen.items()}


def _as_name(name: Any) -> str:
    if not isinstance(name, str):
        raise StepError(f"the model returned output {name!r}; expected a text as its name")
    return name


def _as_tensor(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise StepError(f"model output {name!r} is {type_of(value)}; expected a tensor")
    dense = value.layout == torch.strided and not value.is_nested and not value.is_meta
    if not dense or value.dtype not in _TYPES:
        kind = "meta" if value.is_meta else "nested" if value.is_nested else value.layout
        raise StepError(
            f"model output {name!r} is a tensor of {value.dtype}, {kind}; expected a dense one of "
            "booleans, integers or floats: convert it in the network"
        )
    return value.resolve_neg()


def row_tensor(
    name: str, tensor: torch.Tensor, declared: Sequence[OutputSpec], rows: int
) -> torch.Tensor:
    """Returns an output as (rows, …) of its declared shape; half precision becomes float32.

    Raises:
        StepError: It is of another shape, or its rows are of no values.
    """
    spec = find_output(name, declared)
    found = tuple(tensor.shape)
    if found == (rows, *(spec.shape if spec else ()), 1):
        tensor = tensor.squeeze(-1)
    expected = (rows, *spec.shape) if spec else (rows, *tensor.shape[1:])
    if found and found[0] != rows:
        raise StepError(
            f"the model returned {counted(found[0], 'row')} for output {name!r} but was given "
            f"{counted(rows, 'row')}: its shape is {list(found)}, expected {list(expected)}; "
            "return one row for each, in the same order"
        )
    if tuple(tensor.shape) != expected:
        raise StepError(
            f"the model returned shape {list(found)} for output {name!r}; expected "
            f"{list(expected)}: one row for each of {rows} given, and then the declared shape"
        )
    if 0 in found:
        raise StepError(
            f"the model returned shape {list(found)} for output {name!r}, which holds no value; "
            "return at least one for each row"
        )
    if tensor.dtype in _HALF:
        tensor = tensor.float()
    return tensor.detach() if tensor.requires_grad else tensor


def require_alike(first: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Checks that a call's outputs, arrays or tensors (rows, …), are as those of an earlier call.

    Raises:
        StepError: Their names, types, or the shape of a row differ.
    """
    expected, seen = _kinds(first), _kinds(found)
    if seen != expected:
        raise StepError(
            f"the model returned outputs {_words(seen)} for some rows of a batch, and "
            f"{_words(expected)} for others; return the same names, types and shapes for all"
        )


def _kinds(outputs: Mapping[str, Any]) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {name: (each.dtype, tuple(each.shape[1:])) for name, each in outputs.items()}


def _words(kinds: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} of {dtype} {list(row)}" for name, (dtype, row) in kinds.items())


def find_output(name: str, declared: Sequence[OutputSpec]) -> OutputSpec | None:
    """Returns what was declared under a name, if anything."""
    return next((output for output in declared if output.name == name), None)
