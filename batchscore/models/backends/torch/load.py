"""A verified model to a network in memory, on the device that was asked for."""

from __future__ import annotations

import inspect
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from batchscore.errors import DeviceError, ModelError
from batchscore.messages.wording import reason
from batchscore.models.afresh import NETWORK_AFRESH
from batchscore.models.backends.torch.building import Blueprint, Filled
from batchscore.models.backends.torch.outside import differences, numbers, outside
from batchscore.models.backends.torch.weights import (
    State,
    describe_casts,
    persistent,
    read_weights,
    with_versions,
)
from batchscore.models.loadable import Model, localize, read_sources


class Twins:
    """A module for each thread that asks, over the same weights.

    What a network keeps on itself from one layer to the next is its thread's own then.
    """

    def __init__(self, module: torch.nn.Module, build: Callable[[bool], torch.nn.Module]) -> None:
        self._module, self._build = module, build
        self._own = threading.local()
        self._lock = threading.Lock()
        self._spare = [module]
        self._proven: bool | None = None

    def own(self) -> torch.nn.Module:
        """Returns the calling thread's module; the first thread's is the one that was loaded."""
        if not hasattr(self._own, "module"):
            with self._lock:
                self._own.module = self._take()
        module: torch.nn.Module = self._own.module
        return module

    def possible(self) -> bool:
        """Tells whether a second module equals the first, and shares no part with it."""
        with self._lock:
            return self._possible()

    def altered(self, alter: Callable[[torch.nn.Module], torch.nn.Module]) -> Twins:
        """Returns further twins, each of which is altered once it is built; a second is possible.

        Raises:
            ModelError: A second module is not possible.
        """
        if not self.possible():
            raise ModelError("the network cannot be built twice")
        twins = Twins(self._module, lambda share: alter(self._build(share)))
        twins._spare, twins._proven = [], True
        return twins

    def _take(self) -> torch.nn.Module:
        if self._spare:
            return self._spare.pop()
        return self._build(True) if self._possible() else self._module

    def _possible(self) -> bool:
        if self._proven is None:
            self._proven = self._prove()
        return self._proven

    def _prove(self) -> bool:
        try:
            if not _may_change_weights(self._module) or self._loads_alike():
                twin = self._build(True)
                shared = {*self._module.modules()} & {*twin.modules()}
                if not shared and _are_alike(self._module, twin):
                    self._spare.insert(0, twin)
                    return True
        except Exception as error:
            logging.warning("the network cannot be built twice (%s)", reason(error))
            return False
        logging.warning("the network differs when it is built twice")
        return False

    def _loads_alike(self) -> bool:
        """Tells whether the first module's weights make the same one of another.

        What merges adapters into its weights in eval() must not do so in shared ones, and what it
        keeps of its state, as by `set_extra_state`, must be what it gives as its state.
        """
        twin = self._build(False)
        same = not differences(numbers(self._module), numbers(twin))
        return same and _are_alike(self._module, twin)


@dataclass(frozen=True)
class Network:
    """A loaded network, ready to be called with one tensor by model input.

    Args:
        module: Module that was loaded.
        inputs: The model inputs' names.
        device: Where it is.
        twins: Modules for threads that call it side by side; None: one thread at a time may.
        casts: Which weights were cast to the architecture's types, in a line; empty: none.
        again: Builds the module again, without what it kept of calls before.
    """

    module: torch.nn.Module
    inputs: tuple[str, ...]
    device: str
    twins: Twins | None = field(default=None, compare=False)
    casts: str = ""
    again: Callable[[], torch.nn.Module] | None = field(default=None, compare=False)

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Calls the network: a single input by position, several by their names."""
        module = self.twins.own() if self.twins is not None else self.module
        if len(self.inputs) == 1:
            return module(tensors[self.inputs[0]])
        return module(**{name: tensors[name] for name in self.inputs})

    def afresh(self) -> Network:
        """Returns the network without what it kept of calls before, over the same weights.

        Raises:
            ModelError: It cannot be built again.
        """
        if self.again is None:
            raise ModelError("a network that was compiled cannot be built again")
        return replace(self, module=self.again(), twins=None)

    def altered(self, alter: Callable[[torch.nn.Module], torch.nn.Module]) -> Network:
        """Returns the network with altered modules over the same weights; this one stays as it is.

        Raises:
            ModelError: It cannot be built again.
        """
        if self.twins is not None:
            return replace(self, twins=self.twins.altered(alter), again=None)
        return replace(self, module=alter(self.afresh().module), again=None)

    def threads(self, asked: int) -> int:
        """Returns how many threads may call it side by side: as many as asked for, or one."""
        if asked == 1 or self.device != "cpu":
            return asked
        if self.twins is not None and self.twins.possible():
            return asked
        logging.warning("the network is called on one thread instead of %d", asked)
        return 1

    def compiled(self, dynamic: bool) -> Network:
        """Returns the network as it is compiled with its first call: of each shape, or for all."""
        module = cast(torch.nn.Module, torch.compile(self.module, dynamic=dynamic))
        return replace(self, module=module, twins=None, again=None)


def resolve_device(requested: str) -> str:
    """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where there is one.

    Raises:
        DeviceError: A GPU was asked for that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "auto":
        return "cuda" if count else "cpu"
    index = int(requested.partition(":")[2] or 0)
    if requested.startswith("cuda") and index >= count:
        raise DeviceError(
            f"runtime.device {requested!r}: this machine has {count} usable GPUs; "
            "run it where there is one, or set runtime.device to auto or cpu"
        )
    return requested


def visible_gpus(device: str) -> tuple[str, ...]:
    """Names the GPUs that workers may share out, as CUDA_VISIBLE_DEVICES does: one of `cuda:N`."""
    if device != "cuda":
        return (device,) if device.startswith("cuda") else ()
    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = listed.split(",") if listed else map(str, range(count))
    return tuple(name.strip() for name in names)[:count]


def torch_version() -> str:
    """Returns torch's version with what it was built for."""
    return str(torch.__version__)


def describe_device(device: str) -> str:
    """Returns a device with what its bits depend on: the GPU's name, or the CPU's instructions."""
    if device.startswith("cuda"):
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {torch.backends.cpu.get_cpu_capability()}"


def load_network(model: Model, device: str, prove: bool = False) -> Network:
    """Loads a model's weights into its architecture, mapped from disk instead of copied.

    Args:
        prove: Also builds the network twice more, if it holds other numbers than its weights, and
            compares these.

    Raises:
        ModelError: The weights cannot be read, want to run code, or do not fit the architecture;
            or the architecture is nothing that may be called, or holds other numbers each time.
        FunctionError: The architecture cannot be imported.
    """
    folder = localize(model)
    blueprint = Blueprint(model, folder, read_sources(model, folder))
    read = partial(read_weights, folder / model.weights, model)
    filled, keep = fill(blueprint, read, model)
    if prove:
        blueprint.check_repeatable(filled.module, read, partial(probe, model=model))
    module = _moved(filled.module, device, model.architecture)
    names = tuple(each.name for each in model.inputs)
    _check_signature(module, names, model.architecture)
    twins = Twins(module, partial(_twin, blueprint, module, keep)) if device == "cpu" else None
    casts = describe_casts(filled.casts, filled.tensors)
    again = partial(_again, model, folder, module, twins)
    return Network(module, names, device, twins, casts, again)


def _again(
    model: Model, folder: Path, module: torch.nn.Module, twins: Twins | None
) -> torch.nn.Module:
    """Builds a module of code that is imported again, over the first one's parameters if it can."""
    blueprint = Blueprint(model, folder, read_sources(model, folder), NETWORK_AFRESH)
    own: State = {}
    if twins is not None and twins.possible():
        weights = {name for name, _ in module.named_parameters()}
        own = {name: each for name, each in module.state_dict().items() if name in weights}

    def read() -> State:
        state = read_weights(folder / model.weights, model)
        return {name: own.get(name, each) for name, each in state.items()}

    filled, _ = fill(blueprint, read, model)
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    return _moved(filled.module, str(device), model.architecture)


def _moved(module: torch.nn.Module, device: str, architecture: str) -> torch.nn.Module:
    try:
        return module.to(device)
    except NotImplementedError as error:  # such as a buffer on torch's device "meta"
        why = reason(error).partition(" Please use")[0]
        raise ModelError(
            f"architecture {architecture}: keeps a tensor that cannot be moved to {device} "
            f"({why}); build its buffers on the CPU, or save them with the weights"
        ) from error


def fill(
    blueprint: Blueprint, read: Callable[[], State], model: Model
) -> tuple[Filled, torch.dtype | None]:
    """Builds the network of its own types, as torch does, or of the type of weights and inputs.

    The latter where all floats of weights and inputs are of one type, and the network takes no
    such inputs once its weights are cast. That type is then returned as well.

    Args:
        read: Reads the weights file.
    """
    filled = blueprint.fill(read)
    if not filled.casts:
        return filled, None
    keep = _common_type(read(), model)
    if keep is None or _takes_inputs(filled.module, model):
        return filled, None
    return blueprint.fill(read, keep), keep


def _common_type(state: State, model: Model) -> torch.dtype | None:
    inputs = {each.dtype for each in model.inputs if each.dtype.startswith("float")}
    weights = {each.dtype for each in state.values() if each.is_floating_point()}
    declared = {cast(torch.dtype, getattr(torch, name)) for name in inputs}
    return weights.pop() if len(weights) == 1 and weights == declared else None


def _takes_inputs(module: torch.nn.Module, model: Model) -> bool:
    """Tells whether a network can be called with zeros of its inputs' declared types."""
    try:
        probe(module, model)
    except Exception:
        return False
    return True


def probe(module: torch.nn.Module, model: Model) -> Any:
    """Calls a network with inputs of their declared types: numbers around zero, places 0 and 1."""
    steps = {each.name: (4, 1) if each.varying else (4,) for each in model.inputs}
    inputs = {}
    for each in model.inputs:
        kind, shape = getattr(torch, each.dtype), (*steps[each.name], *each.shape)
        count = math.prod(shape)
        around = torch.linspace(-1, 1, count) if kind.is_floating_point else torch.arange(count) % 2
        inputs[each.name] = around.reshape(shape).to(kind)
    with torch.inference_mode():
        return Network(module, tuple(inputs), "cpu")(inputs)


def _twin(
    blueprint: Blueprint, module: torch.nn.Module, keep: torch.dtype | None, share: bool
) -> torch.nn.Module:
    """Builds a module again that shares the first's parameters or not, and has its own buffers."""
    parameters = {each.data_ptr() for each in module.parameters() if share}
    held = module.state_dict()
    own = {
        name: tensor if tensor.data_ptr() in parameters else tensor.clone()
        for name, tensor in held.items()
    }
    state = with_versions(own, held)
    return blueprint.fill(lambda: state, keep).module


_HOOKS = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
_WAYS = ("train", "eval", "_load_from_state_dict", "set_extra_state")


def _may_change_weights(module: torch.nn.Module) -> bool:
    """Tells whether code other than torch's runs where weights are loaded, or in eval()."""
    kinds = {type(part) for part in module.modules()}
    ways = (getattr(kind, way) for kind in kinds for way in _WAYS)
    own = any(not str(way.__module__).startswith("torch.") for way in ways)
    return own or any(getattr(part, hook, None) for part in module.modules() for hook in _HOOKS)


def _are_alike(module: torch.nn.Module, twin: torch.nn.Module) -> bool:
    """Tells whether two modules hold the same numbers, in their weights and elsewhere."""
    ours, theirs = (persistent(each).values() for each in (module, twin))
    weights = zip(ours, theirs, strict=True)
    same = all(a.data_ptr() == b.data_ptr() or torch.equal(a, b) for a, b in weights)
    return same and not differences(outside(module), outside(twin))


def _check_signature(module: torch.nn.Module, names: tuple[str, ...], architecture: str) -> None:
    signature = inspect.signature(module.forward)
    try:
        if len(names) == 1:
            signature.bind(None)
        else:
            signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ModelError(
            f"architecture {architecture}: forward{signature} cannot be called with the model "
            f"inputs {list(names)} ({error}); name the inputs as forward names its arguments"
        ) from error
