"""A verified model to a network in memory, on the device that was asked for."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch

from batchscore.errors import DeviceError, ModelError
from batchscore.models.code import load_object
from batchscore.models.folder import Model, localize
from batchscore.wording import reason


@dataclass(frozen=True)
class Network:
    """A loaded network, ready to be called with one tensor by model input."""

    module: torch.nn.Module
    inputs: tuple[str, ...]
    device: str

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Calls the network: a single input by position, several by their names."""
        if len(self.inputs) == 1:
            return self.module(tensors[self.inputs[0]])
        return self.module(**{name: tensors[name] for name in self.inputs})

    def compiled(self, dynamic: bool) -> Network:
        """Returns the network as it is compiled with its first call: of each shape, or for all."""
        module = cast(torch.nn.Module, torch.compile(self.module, dynamic=dynamic))
        return replace(self, module=module)


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
    module = _fill(build, model, state)
    module.eval().requires_grad_(False)
    names = tuple(each.name for each in model.inputs)
    _check_signature(module, names, model.architecture)
    return Network(module.to(device), names, device)


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
        if not _has_meta_tensors(module):
            return module
    module = _build(build, model, "cpu")
    _assign(module, state, model)
    return module


def _has_meta_tensors(module: torch.nn.Module) -> bool:
    """Tells whether buffers, or tensors in plain attributes, were only computed on paper."""
    plain = [value for part in module.modules() for value in vars(part).values()]
    tensors = [*module.parameters(), *module.buffers(), *plain]
    return any(isinstance(each, torch.Tensor) and each.is_meta for each in tensors)


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
