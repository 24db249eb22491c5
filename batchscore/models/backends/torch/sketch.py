"""Builds networks whose weights are never initialized, and follows what would depend on them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from batchscore.models.backends.torch.weights import storages

_DRAWS_IN_PLACE = frozenset(
    {
        *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_"),
        *("log_normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_"),
        *("xavier_uniform_", "xavier_normal_", "orthogonal_", "sparse_"),
    }
)
_FILLS = _DRAWS_IN_PLACE | {"fill_", "zero_", "constant_", "ones_", "zeros_"}
_PLAIN_DRAWS = ("rand", "randn")
# What gives something else than a tensor, and yet no number of one nor a way to its memory.
_DESCRIBES = frozenset(
    {
        *("__get__", "__set__", "__len__", "__hash__", "__setitem__", "__delitem__", "__dir__"),
        *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "type"),
        *("element_size", "get_device", "is_contiguous", "is_floating_point", "is_complex"),
        *("is_signed", "is_inference", "is_same_size", "is_shared", "is_pinned", "is_conj"),
        *("is_neg", "is_tensor", "is_set_to", "result_type", "register_hook", "retain_grad"),
        *("_has_compatible_shallow_copy_type", "register_post_accumulate_grad_hook"),
    }
)
_DEPENDS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Sketch(TorchFunctionMode):
    """Leaves out what sets a network's weights, which costs time and memory.

    `unset` refers to the memory of all tensors that hold no numbers, or others than they would if
    nothing were left out: those of weights, those that chance decides, and what was made of either.
    It sees the functions that Python calls, and each operation that these, TorchScript or autograd
    make in this thread. It does not see dlpack or other threads; what these compute is found by
    `check_repeatable`, in small networks.

    Args:
        draws: Random numbers are drawn as usual, though in another order.
    """

    def __init__(self, draws: bool = False) -> None:
        super().__init__()
        self._draws = draws
        self._operations = _Operations(self)
        self._weights: dict[int, Any] = {}
        self._shown: dict[int, Any] = {}
        self._unset: dict[int, Any] = {}
        self.was_read = False
        """Whether Python was given a number of a tensor that is not set, or its memory."""

    def __enter__(self) -> Any:
        """Sees from now on what this thread does with tensors."""
        self._operations.__enter__()  # type: ignore[no-untyped-call]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        """Sees no more."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._operations.__exit__(*error)  # type: ignore[no-untyped-call]

    @property
    def unset(self) -> list[Any]:
        """References to the memory of tensors that are not set, which do not keep it."""
        return list(self._unset.values())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls one function of torch, or leaves it out."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [*_tensors(args), *_tensors(kwargs.values())]
        _note(self._weights, (each for each in given if isinstance(each, torch.nn.Parameter)))
        self.was_read |= any(isinstance(e, torch.Generator) for e in (*args, *kwargs.values()))
        if name in _FILLS and given and self._is_left_out(name, given[0]):
            _note(self._unset, given[:1])
            self.was_read |= _is_noted(self._shown, given[0])
            return given[0]
        if name in _PLAIN_DRAWS and not self._draws:
            func, kwargs = torch.empty, {k: v for k, v in kwargs.items() if k != "generator"}
        if name == "clone" and _is_noted(self._unset, given[0]):
            func = torch.empty_like
        made = func(*args, **kwargs)
        if name in _PLAIN_DRAWS:
            _note(self._unset, _tensors([made]))
        self._follow(name, given, made)
        return made

    def _is_left_out(self, fill: str, tensor: torch.Tensor) -> bool:
        by_chance = fill in _DRAWS_IN_PLACE and not self._draws
        return by_chance or _is_noted(self._weights, tensor)

    def _follow(self, name: str, given: list[torch.Tensor], made: Any) -> None:
        found = [*_tensors([made])]
        shows = not found and name not in _DESCRIBES and made is not None
        if any(_is_noted(self._unset, each) for each in given):
            _note(self._unset, found)
            self.was_read |= shows or not _are_followed(found)
        elif shows:
            _note(self._shown, given)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Makes one operation; without one that only changes what is not set."""
        given = [*_tensors(args), *_tensors(kwargs.values())]
        by_chance = torch.Tag.nondeterministic_seeded in func.tags
        if not by_chance and not any(_is_noted(self._unset, each) for each in given):
            return func(*args, **kwargs)
        changed = [*_changed(func, args, kwargs)]
        if len(given) == 1 and _is_noted(self._unset, given[0]) and _only_counts(func.tags):
            return given[0]
        made = func(*args, **kwargs)
        found = [*_tensors([made])]
        _note(self._unset, [*found, *changed])
        numbers = made is not None and not found and func._opname not in _DESCRIBES
        depends = numbers or not _are_followed(found) or any(tag in func.tags for tag in _DEPENDS)
        self.was_read |= depends and any(_is_noted(self._unset, each) for each in given)
        return made


class _Operations(TorchDispatchMode):
    """Shows a sketch the operations below torch's functions."""

    def __init__(self, sketch: Sketch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sketch = sketch

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tells torch to import its compiler, to keep it out of here: nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Makes one operation."""
        return self._sketch.operate(func, args, kwargs or {})


def _changed(func: Any, args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors that an operation changes in their place."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from _tensors([value])


def _only_counts(tags: Any) -> bool:
    """Tells whether an operation changes a tensor's numbers in their place, and nothing else."""
    return torch.Tag.inplace in tags and torch.Tag.pointwise in tags


def _are_followed(tensors: Iterable[torch.Tensor]) -> bool:
    """Tells whether tensors have memory of the kind that is noted."""
    return all(each.layout is torch.strided for each in tensors)


class Zeros(TorchFunctionMode):
    """Sets to zero what is allocated unset, so that it is the same each time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls one function of torch."""
        made = func(*args, **(kwargs or {}))
        is_unset = getattr(func, "__name__", "").removeprefix("new_").startswith("empty")
        return _zeros(made) if is_unset and made.numel() and not made.requires_grad else made


def _zeros(made: torch.Tensor) -> torch.Tensor:
    """Returns zeros in a tensor's place; NumPy's, unlike torch's, take no memory until used."""
    if not made.is_contiguous() or made.layout is not torch.strided or made.device.type != "cpu":
        return made.zero_()
    room = np.zeros(made.numel() * made.element_size(), np.uint8)
    return torch.from_numpy(room).view(made.dtype).view(made.shape)


def are_held(references: Iterable[Any]) -> bool:
    """Tells whether anything still holds memory that `storages` refers to."""
    left = [each for each in references if not each.expired()]
    if left:
        gc.collect()  # frees what only its own circle of references holds
    return not all(each.expired() for each in left)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, torch.Tensor):
                yield each


def _note(known: dict[int, Any], tensors: Iterable[torch.Tensor]) -> None:
    for reference in storages(tensors):
        known[reference.cdata] = reference


def _is_noted(known: dict[int, Any], tensor: torch.Tensor) -> bool:
    return any(reference.cdata in known for reference in storages([tensor]))
