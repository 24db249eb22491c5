"""Builds networks whose weights are never initialized, and follows what would depend on them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from batchscore.models.weights import storages

_DRAWS_IN_PLACE = frozenset(
    {
        *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_"),
        *("log_normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_"),
        *("xavier_uniform_", "xavier_normal_", "orthogonal_", "sparse_"),
    }
)
_FILLS = _DRAWS_IN_PLACE | {"fill_", "zero_", "constant_", "ones_", "zeros_"}
_PLAIN_DRAWS = ("rand", "randn")
_DRAWS = _DRAWS_IN_PLACE | {
    *_PLAIN_DRAWS,
    *("randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "bernoulli", "multinomial", "poisson", "dropout", "feature_dropout"),
}
_READS = frozenset(
    {
        *("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__"),
        *("equal", "allclose", "is_nonzero", "__contains__", "__format__", "__repr__"),
    }
)


class Sketch(TorchFunctionMode):
    """Leaves out what sets a network's weights, which costs time and memory.

    `unset` refers to the memory of all tensors that hold no numbers, or others than they would if
    nothing were left out: those of weights, those that chance decides, and what was made of either.

    Args:
        draws: chance decides as ever, though in another order.
    """

    def __init__(self, draws: bool = False) -> None:
        super().__init__()
        self._draws = draws
        self._weights: dict[int, Any] = {}
        self._unset: dict[int, Any] = {}
        self.was_read = False
        """Whether Python was given a number of a tensor that is not set."""

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
        if name in _FILLS and given and _is_noted(self._weights, given[0]):
            _note(self._unset, given[:1])
            return given[0]
        if name in _PLAIN_DRAWS and not self._draws and kwargs.get("generator") is None:
            func, kwargs = torch.empty, {k: v for k, v in kwargs.items() if k != "generator"}
        if name == "clone" and _is_noted(self._unset, given[0]):
            func = torch.empty_like
        made = func(*args, **kwargs)
        if name in _DRAWS or any(_is_noted(self._unset, each) for each in given):
            _note(self._unset, _tensors([made]))
            self.was_read |= name in _READS
        return made


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
        gc.collect()  # what only holds itself is held by nobody
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
