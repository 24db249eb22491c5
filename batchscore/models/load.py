"""A verified model to a network in memory, on the device that was asked for."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch

from batchscore.errors import DeviceError, ModelError
from batchscore.models.code import load_object
from batchscore.models.folder import Model, localize
from batchscore.wording import reason


class Twins:
    """A module for each thread that asks, over the same weights.

    What a network keeps on itself from one layer to the next is its thread's own then.
    """

    def __init__(self, module: torch.nn.Module, build: Callable[[], torch.nn.Module]) -> None:
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
        """Tells whether a second module comes out as the first, and shares no part with it."""
        with self._lock:
            return self._possible()

    def _take(self) -> torch.nn.Module:
        if self._spare:
            return self._spare.pop()
        return self._build() if self._possible() else self._module

    def _possible(self) -> bool:
        if self._proven is None:
            self._proven = self._prove()
        return self._proven

    def _prove(self) -> bool:
        try:
            twin = self._build()
            alike = _same_tensors(self._module, twin)
        except Exception as error:
            logging.warning("the network cannot be built twice (%s)", reason(error))
            return False
        if alike and not {*self._module.modules()} & {*twin.modules()}:
            self._spare.insert(0, twin)
            return True
        logging.warning("the network comes out otherwise when it is built twice")
        return False


@dataclass(frozen=True)
class Network:
    """A loaded network, ready to be called with one tensor by model input.

    Args:
        module: that was loaded.
        inputs: the model inputs' names.
        device: where it is.
        twins: modules for threads that call it side by side; None: one thread at a time may.
    """

    module: torch.nn.Module
    inputs: tuple[str, ...]
    device: str
    twins: Twins | None = field(default=None, compare=False)

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Calls the network: a single input by position, several by their names."""
        module = self.twins.own() if self.twins is not None else self.module
        if len(self.inputs) == 1:
            return module(tensors[self.inputs[0]])
        return module(**{name: tensors[name] for name in self.inputs})

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
        return replace(self, module=module, twins=None)


def resolve_device(requested: str) -> str:
    """Returns `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where there is one.

    Raises:
        DeviceError: a GPU was asked for that is not there.
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


def load_network(model: Model, device: str) -> Network:
    """Loads a model's weights into its architecture, mapped from disk instead of copied.

    Raises:
        ModelError: the weights cannot be read, want to run code, or do not fit the architecture.
        FunctionError: the architecture cannot be imported.
    """
    folder = localize(model)
    build = _architecture(model, folder)
    state = _read_weights(folder / model.weights, model)
    module = _fill(build, model, state).to(device)
    names = tuple(each.name for each in model.inputs)
    _check_signature(module, names, model.architecture)
    twins = Twins(module, partial(_twin, build, model, module)) if device == "cpu" else None
    return Network(module, names, device, twins)


def _twin(build: Any, model: Model, module: torch.nn.Module) -> torch.nn.Module:
    """Builds a module again that shares the first's parameters, and has buffers of its own."""
    parameters = {each.data_ptr() for each in module.parameters()}
    state = {
        name: tensor if tensor.data_ptr() in parameters else tensor.clone()
        for name, tensor in module.state_dict().items()
    }
    return _fill(build, model, state)


def _same_tensors(module: torch.nn.Module, twin: torch.nn.Module) -> bool:
    """Tells whether two modules hold the same numbers, those in plain attributes too."""
    pairs = zip(_tensors(module), _tensors(twin), strict=True)
    return all(
        one.data_ptr() == other.data_ptr() or torch.equal(one, other) for one, other in pairs
    )


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    plain = [value for part in module.modules() for value in vars(part).values()]
    tensors = [*module.parameters(), *module.buffers(), *plain]
    return [each for each in tensors if isinstance(each, torch.Tensor)]


def _architecture(model: Model, folder: Path) -> Any:
    if model.code is None:
        return load_object(model.architecture, str(folder), tuple(model.sha256))
    return load_object(model.architecture, model.code)


def _read_weights(path: Path, model: Model) -> dict[str, torch.Tensor]:
    try:
        if model.format == "safetensors":
            return dict(safetensors.torch.load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights {_address(model)}: are damaged or hold more than tensors; they were not "
            "read, since that could run code: save the state_dict alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged file may make torch raise anything
        raise ModelError(
            f"weights {_address(model)}: not readable as {model.format} ({reason(error)}); "
            "write them again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f"weights {_address(model)}: hold a {type(state).__name__}; expected a state_dict, "
            "names to tensors: save it with torch.save(module.state_dict(), …)"
        )
    return state


def _address(model: Model) -> str:
    return f"{model.folder}/{model.weights}"


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _fill(build: Any, model: Model, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Builds on paper, so that weights are never allocated twice, or for real where it must be."""
    with suppress(ModelError):
        module = _build(build, model, "meta")
        _assign(module, state, model)
        if not any(each.is_meta for each in _tensors(module)):
            return module.eval().requires_grad_(False)
    module = _build(build, model, "cpu")
    _assign(module, state, model)
    return module.eval().requires_grad_(False)


def _build(build: Any, model: Model, device: str) -> torch.nn.Module:
    try:
        with torch.device(device):
            module = build(**model.architecture_args)
    except Exception as error:
        raise ModelError(
            f"architecture {model.architecture}: could not be built with "
            f"{dict(model.architecture_args)} ({type(error).__name__}: {reason(error)}); "
            "correct architecture_args"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"architecture {model.architecture}: is of type {type(module).__name__}; "
            "expected a torch.nn.Module"
        )
    return module


def _assign(module: torch.nn.Module, state: dict[str, torch.Tensor], model: Model) -> None:
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"weights {_address(model)}: do not fit {model.architecture} ({reason(error)}); "
            "give the architecture and the arguments that they were trained with"
        ) from error


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
