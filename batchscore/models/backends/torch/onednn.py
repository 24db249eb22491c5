"""A network's linear layers computed by oneDNN, instead of what torch's own call chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from batchscore.messages.wording import reason

Step = Callable[[torch.Tensor], torch.Tensor]

_TILE_ROWS = 1024
# What oneDNN computes in one pass with the layer before it. Others are slower so than alone.
_FUSED: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid"}
_NOT_FUSED = "none"


@cache
def missing_onednn() -> str:
    """Returns why this torch cannot compute linear layers with oneDNN; empty if it can."""
    if not torch.backends.mkldnn.is_available():
        return f"torch {torch.__version__} was built without oneDNN"
    layer = nn.Linear(2, 2)
    try:
        with torch.inference_mode():
            _Linear(layer, PackedWeights(), None)(torch.zeros(2, 2))
    except Exception as error:  # these calls of torch are not public and may change
        return f"torch {torch.__version__} offers no linear layers of oneDNN ({reason(error)})"
    return ""


class PackedWeights:
    """Weights in the order that oneDNN wants, once for all modules that share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A weight is kept with its copy, so that no other comes to lie at its address.
        self._known: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns a weight (out, in) in oneDNN's order."""
        key = (weight.data_ptr(), *weight.shape, *weight.stride())
        with self._lock:
            if key not in self._known:
                packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TILE_ROWS)
                self._known[key] = weight, packed
            return self._known[key][1]


def has_linear_layers(module: nn.Module) -> bool:
    """Tells whether a network has a layer that oneDNN can compute."""
    return any(_is_plain_linear(each) for each in module.modules())


def with_onednn(module: nn.Module, packed: PackedWeights) -> nn.Module:
    """Makes a network's plain linear layers compute with oneDNN, and returns the network.

    The modules stay those that the network's code has built, with their names and weights. Only
    what a call of them does is replaced. Layers with hooks, or with code of their own, keep it.
    """
    for each in module.modules():
        if isinstance(each, nn.Sequential) and _calls_in_order(each):
            _replace_call(each, _sequence(each, packed))
    for each in module.modules():
        if _is_plain_linear(each):
            _replace_call(each, _Linear(each, packed, None))
    return module


def _replace_call(module: nn.Module, call: Step | None) -> None:
    if call is not None:
        vars(module)["forward"] = call


def _is_plain(module: nn.Module) -> bool:
    """Tells whether a module's call does what its class says, and nothing else."""
    hooks = (module._forward_pre_hooks, module._forward_hooks)
    return "forward" not in vars(module) and not any(hooks)


def _calls_in_order(module: nn.Sequential) -> bool:
    """Tells whether a sequence, also one of a class of its own, calls its modules as torch does."""
    return type(module).forward is nn.Sequential.forward and _is_plain(module)


def _is_plain_linear(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or not _is_plain(module):
        return False
    # For a single output, torch's product of a matrix and a vector is the quicker one.
    weight = module._parameters.get("weight")
    return weight is not None and weight.dtype == torch.float32 and module.out_features > 1


def _sequence(module: nn.Sequential, packed: PackedWeights) -> Step | None:
    """Returns what calls a sequence's modules, some of them in one pass; None if none are."""
    modules, steps = list(module), list[Step]()
    while modules:
        first = modules.pop(0)
        following = modules[0] if modules else None
        if following is not None and _is_fused(first, following):
            steps.append(_Linear(first, packed, modules.pop(0)))
        else:
            steps.append(first)
    return _Sequence(steps) if len(steps) < len(module) else None


def _is_fused(layer: nn.Module, following: nn.Module) -> bool:
    return _is_plain_linear(layer) and type(following) in _FUSED and _is_plain(following)


@dataclass(frozen=True)
class _Sequence:
    """Calls one after the other."""

    steps: Sequence[Step]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return x


class _Linear:
    """The call of a linear layer and of what follows it, if something does."""

    def __init__(
        self, layer: nn.Module, packed: PackedWeights, following: nn.Module | None
    ) -> None:
        assert isinstance(layer, nn.Linear)
        self._layer, self._following = layer, following
        self._weight = packed.of(layer.weight)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._then = _NOT_FUSED if following is None else _FUSED[type(following)]
        self._compute = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or x.ndim < 2 or not x.numel():
            plain = nn.Linear.forward(self._layer, x)
            return plain if self._following is None else self._following(plain)
        made: torch.Tensor = self._compute(x, self._weight, self._bias, self._then, [], "")
        return made
