"""What hangs on a network without being a parameter or a buffer that its weights file holds."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from batchscore.models.backends.torch.weights import persistent, storages

_MOST = 100_000
_TORCHS_OWN = frozenset(vars(torch.nn.Module()))
_PLAIN = (str, bytes, bool, int, float, complex, type(None))
_CONTAINERS = (list, tuple, set, frozenset, deque)
_VALUES = (bool, int, float, complex, np.number, str, bytes)
_HELD = (torch.Tensor, np.ndarray, torch.nn.Module, dict, *_CONTAINERS, *_VALUES)
_FOREIGN = ("torch", "numpy", "builtins", "threading", "_thread", "logging", "weakref", "re")

Found = Iterator[tuple[str, object]]


def hidden_module(module: torch.nn.Module) -> str | None:
    """Returns where a module with weights hangs that torch does not know of, and its class.

    None where there is none. Its weights are in no state_dict.
    """
    known = {id(each) for each in module.modules()}
    weights = {ref.cdata for ref in storages(persistent(module).values())}
    for path, value in _walk(module):
        if not isinstance(value, torch.nn.Module) or id(value) in known:
            continue
        if not all(_is_of(each, weights) for each in persistent(value).values()):
            return f"{path} ({type(value).__name__})"
    return None


def outside(module: torch.nn.Module) -> dict[str, Any]:
    """Returns tensors and arrays that a network keeps outside its weights, by their place."""
    weights = {ref.cdata for ref in storages(persistent(module).values())}
    found = {**dict(module.named_buffers()), **dict(_walk(module))}
    return {
        path: value
        for path, value in found.items()
        if isinstance(value, np.ndarray)
        or (isinstance(value, torch.Tensor) and not _is_of(value, weights))
    }


def numbers(module: torch.nn.Module) -> dict[str, Any]:
    """Returns plain numbers and texts that a network keeps, by where; those of a list as one."""
    found = ((path, _numbers_of(value)) for path, value in _walk(module))
    return {path: value for path, value in found if value is not None}


def _numbers_of(value: object) -> Any:
    if isinstance(value, _VALUES):
        return value
    if not isinstance(value, (dict, *_CONTAINERS)):
        return None
    items = value.values() if isinstance(value, dict) else value
    return [each for each in items if isinstance(each, _VALUES)] or None


def are_near(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    """Tells whether two networks gave the same numbers but for rounding."""
    return len(ours) == len(theirs) and all(map(_is_near, ours, theirs))


def _is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    ours, theirs = (
        each.detach().as_subclass(torch.Tensor).to_dense().to(torch.complex128)
        for each in (one, other)
    )
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7, equal_nan=True)


def _is_of(tensor: torch.Tensor, memory: set[int]) -> bool:
    return any(reference.cdata in memory for reference in storages([tensor]))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns where two networks of one architecture keep other numbers, as these were found.

    Numbers that cannot be compared, such as those of sparse tensors, count too.
    """
    both = ours.keys() & theirs.keys()
    return sorted(
        (ours.keys() ^ theirs.keys()) | {k for k in both if not _same(ours[k], theirs[k])}
    )


def tensors(given: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors of what a network gave, wherever they are in it."""
    if isinstance(given, torch.Tensor):
        yield given
    values = given.values() if isinstance(given, Mapping) else given
    for each in values if isinstance(given, (Mapping, list, tuple)) else ():
        yield from tensors(each)


def _same(one: Any, other: Any) -> bool:
    try:
        return _are_equal(one, other)
    except Exception:  # a class of tensors may make it raise anything
        return False


def _are_equal(one: Any, other: Any) -> bool:
    # Each edition of a network's code has a class of its own, and two of these do not compare.
    ours, theirs = (
        x.detach().as_subclass(torch.Tensor) if isinstance(x, torch.Tensor) else x
        for x in (one, other)
    )
    if isinstance(ours, np.ndarray) or isinstance(theirs, np.ndarray):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        alike = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        return alike and (ours.tobytes() == theirs.tobytes() or bool(np.array_equal(ours, theirs)))
    if not isinstance(ours, torch.Tensor):
        return bool(ours == theirs or (ours != ours and theirs != theirs))
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape or ours.device != theirs.device:
        return False
    # Elements that are no number equal nothing, themselves too.
    return bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all())


def _walk(module: torch.nn.Module) -> Found:
    """Yields what a network's parts, their classes and their files hold, with its path."""
    seen = {id(each) for each in module.modules()}
    todo = deque[tuple[str, object]]()
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        own = (item for item in vars(part).items() if item[0] not in _TORCHS_OWN)
        todo.extend((f"{prefix}{key}", value) for key, value in own)
        todo.extend(_class_attributes(type(part), seen))
    while todo and len(seen) < _MOST:
        path, value = todo.popleft()
        if isinstance(value, _PLAIN):
            yield path, value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        todo.extend(_inside(path, value))


def _class_attributes(kind: type, seen: set[int]) -> Found:
    for each in kind.__mro__:
        if id(each) in seen or _is_foreign(each):
            continue
        seen.add(id(each))
        own = (item for item in vars(each).items() if item[0] != "__module__")
        for name, value in own:
            if not callable(value) or isinstance(value, torch.nn.Module):
                yield f"{each.__name__}.{name}", value
            elif isinstance(value, types.FunctionType) and name != "__init__":
                yield from _globals(value)  # what only a constructor names takes no part in scores


def _globals(function: types.FunctionType) -> Found:
    """Yields what a function's code names of its module's own variables."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _HELD):
            yield name, value


def _inside(path: str, value: object) -> Found:
    if isinstance(value, dict):
        items = ((key, each) for key, each in value.items() if not isinstance(each, _PLAIN))
        yield from ((f"{path}[{key!r}]", each) for key, each in items)
    elif isinstance(value, _CONTAINERS):
        items = ((at, each) for at, each in enumerate(value) if not isinstance(each, _PLAIN))
        yield from ((f"{path}[{at}]", each) for at, each in items)
    elif isinstance(value, partial):
        inner = {"function": value.func, "arguments": value.args, "keywords": value.keywords}
        yield from ((f"{path}.{name}", each) for name, each in inner.items())
    elif isinstance(value, types.MethodType):
        yield path, value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _closure(path, value)
    elif not isinstance(value, (torch.Tensor, torch.nn.Module, type, types.ModuleType)):
        yield from _attributes(path, value)


def _closure(path: str, function: types.FunctionType) -> Found:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.{name}", cell.cell_contents
        except ValueError:
            continue  # a name that got no value yet
    yield f"{path}.defaults", function.__defaults__
    if not _is_foreign(function):
        yield from _globals(function)


def _attributes(path: str, value: object) -> Found:
    if _is_foreign(type(value)):
        return
    for name, each in getattr(value, "__dict__", {}).items():
        yield f"{path}.{name}", each


def _is_foreign(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] in _FOREIGN
