"""A weights file to tensors, and tensors into a network as torch's `load_state_dict` puts them."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line, reason, type_of
from batchscore.models.backends.torch.archive import check_archive, find_damage, objects_in
from batchscore.models.file_kinds import (
    AGAIN,
    LFS,
    PAGE,
    SAFETENSORS,
    TORCH,
    describe_file,
    is_zipped,
)
from batchscore.models.loadable import Model

State = dict[str, torch.Tensor]
Casts = Counter[tuple[torch.dtype, torch.dtype]]
"""How many tensors were cast, by the type in the file and that of the network."""

_SHOWN_BYTES = 24
_KINDS = {SAFETENSORS: "safetensors", TORCH: "pt"}
_FETCH = {
    LFS: "fetch it with: git lfs pull",
    PAGE: "download the file itself; its address may ask for a login, or lead to a page about it",
}
_REMEDY = (
    "save the network's state_dict, best as safetensors: "
    "safetensors.torch.save_model(network, 'weights.safetensors')"
)


def read_weights(path: Path, model: Model) -> State:
    """Returns a weights file's tensors by name, mapped from disk instead of copied.

    Raises:
        ModelError: The file is of another kind, damaged, holds more than tensors, or unpacks to
            more than its own bytes.
    """
    damage = find_damage(path)
    if damage is not None:
        raise ModelError(f"weights {address(model)}: {damage}; {AGAIN}")
    what = describe_file(path)
    if what is not None and _KINDS.get(what) != model.format:
        raise ModelError(
            f"weights {address(model)}: are {what}; expected a state_dict of format "
            f"{model.format}: {_other_format(what)}"
        )
    if what is None and model.format == "pt":
        raise _unreadable(path, model, "it is neither a zip archive nor a pickle")
    state = _read_safetensors(path, model) if model.format == "safetensors" else _read(path, model)
    _require_tensors(state, model)
    return state


def address(model: Model) -> str:
    """Returns where a model's weights are, for messages."""
    return f"{model.folder}/{model.weights}"


def _other_format(what: str) -> str:
    if what in _FETCH:
        return _FETCH[what]
    if what in _KINDS:
        return f"set format: {_KINDS[what]}"
    if what.startswith("compressed"):
        return "unpack it"
    if "TorchScript" in what:
        return f"load it with torch.jit.load if you trust it, and {_REMEDY}"
    return _REMEDY


def _read_safetensors(path: Path, model: Model) -> State:
    try:
        return dict(safetensors.torch.load_file(path))
    except Exception as error:  # a damaged file may make it raise anything
        raise _unreadable(path, model, reason(error)) from error


def _read(path: Path, model: Model) -> Any:
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipped(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights {address(model)}: are damaged or hold more than tensors{_objects(path)}; "
            f"they were not read, since that could run code: {_REMEDY}"
        ) from error
    except Exception as error:  # a damaged file may make torch raise anything
        # torch advises to read such files without `weights_only`, which would run their code.
        why = reason(error)
        why = type(error).__name__ if "weights_only" in why else why
        raise _unreadable(path, model, why) from error


def _objects(path: Path) -> str:
    """Names what a `.pt` holds other than tensors: a class where a whole module was saved."""
    found = objects_in(path)
    return f" (objects of {one_line(', '.join(found[:3]), 200)})" if found else ""


def _unreadable(path: Path, model: Model, why: str) -> ModelError:
    with path.open("rb") as file:
        start = file.read(_SHOWN_BYTES)
    return ModelError(
        f"weights {address(model)}: not readable as {model.format} ({why}); the file begins with "
        f"{start!r}: {AGAIN}"
    )


def _require_tensors(state: Any, model: Model) -> None:
    if not isinstance(state, dict):
        raise ModelError(
            f"weights {address(model)}: hold {type_of(state)}; expected a state_dict, "
            f"names to tensors: {_REMEDY}"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"weights {address(model)}: {one_line(repr(name))} is of type "
                f"{type(value).__name__}; expected a state_dict, names to tensors, and not a "
                f"checkpoint that holds one: {_REMEDY}"
            )
        plain = value.layout is torch.strided and not (value.is_quantized or value.is_nested)
        if value.device.type != "cpu" or not plain:
            raise ModelError(
                f"weights {address(model)}: {one_line(repr(name))} has no plain numbers "
                f"({value.device.type}, {value.layout}, {_name(value.dtype)}); expected dense "
                f"tensors: {_REMEDY}"
            )


def put(module: torch.nn.Module, state: State, model: Model, keep: torch.dtype | None) -> Casts:
    """Puts weights in place of a network's own, cast to its types; returns what was cast.

    Weights that the network shares under several names may be there under one of them.

    Args:
        keep: A type of numbers that stays as it is.

    Raises:
        ModelError: A tensor is missing, too much, or of another shape.
    """
    own = persistent(module)
    types = {name: tensor.dtype for name, tensor in own.items()}
    casts = Casts()
    ready = _cast(_with_shared(own, state), own, keep, casts)
    load(module, with_versions(ready, state), model, assign=True)
    for name, tensor in persistent(module).items():  # a network may rename what it loads
        if tensor.dtype != types.get(name, tensor.dtype) and tensor.dtype != keep:
            casts[tensor.dtype, types[name]] += 1
            tensor.data = tensor.data.to(types[name])
    return casts


def copy(module: torch.nn.Module, state: State, model: Model) -> Casts:
    """Copies weights into a network's own tensors, so that whatever else holds these has them."""
    own = persistent(module)
    shared = _with_shared(own, state)
    load(module, with_versions(shared, state), model, assign=False)
    pairs = ((shared[name].dtype, tensor.dtype) for name, tensor in own.items() if name in shared)
    return Casts(pair for pair in pairs if pair[0] != pair[1])


def with_versions(tensors: State, state: State) -> State:
    """Returns tensors with what a state says of its modules' versions.

    Code of a network that loads weights of earlier versions converts those that say nothing.
    """
    made = OrderedDict(tensors)
    vars(made)["_metadata"] = getattr(state, "_metadata", None)
    return made


def describe_casts(casts: Casts, tensors: int) -> str:
    """Returns in one line how many tensors were cast, and from which type to which."""
    if not casts:
        return ""
    kinds = [
        f"{count:,} from {_name(before)} to {_name(after)}"
        for (before, after), count in sorted(casts.items(), key=str)
    ]
    return f"{casts.total():,} of {tensors:,} tensors cast to the architecture's types: " + (
        ", ".join(kinds)
    )


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def persistent(module: torch.nn.Module) -> State:
    """Returns the tensors of a network that its weights file holds."""
    found: Mapping[str, Any] = module.state_dict(keep_vars=True)
    return {name: each for name, each in found.items() if isinstance(each, torch.Tensor)}


def _with_shared(own: State, state: State) -> State:
    """Returns the weights under each name that shares its tensor with one that is there.

    Where these differ, torch copies one after the other into the same tensor: the last one stays.
    """
    places = {name: _place(tensor) for name, tensor in own.items()}
    last = {place: name for name, place in places.items() if name in state}
    fit = {n for n in own if n not in state or _fits(own[n], state[n])}
    found = {n: state[last[place]] for n, place in places.items() if n in fit and place in last}
    return {**state, **found}


def agree(own: State, state: State) -> bool:
    """Tells whether weights that a network shares are the same under each name that a file has."""
    first: dict[Any, torch.Tensor] = {}
    places = [(_place(tensor), state[name]) for name, tensor in own.items() if name in state]
    pairs = [(first.setdefault(place, each), each) for place, each in places]
    return all(one is other or torch.equal(one, other) for one, other in pairs)


def _fits(tensor: torch.Tensor, weights: torch.Tensor) -> bool:
    return not torch.nn.parameter.is_lazy(tensor) and tensor.shape == weights.shape


def _place(tensor: torch.Tensor) -> Any:
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout is not torch.strided:
        return id(tensor)
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride()


def _cast(state: State, own: State, keep: torch.dtype | None, casts: Casts) -> State:
    """Returns tensors of the network's types; those that are stay mapped, shared ones shared.

    One of another shape than the network's is left to the loading, which refuses it: it may be far
    larger than the file.
    """
    made: dict[Any, torch.Tensor] = {}
    ready = {}
    for name, tensor in state.items():
        fits = name in own and _fits(own[name], tensor)
        if not fits or tensor.dtype in ((kind := own[name].dtype), keep):
            ready[name] = tensor
            continue
        casts[tensor.dtype, kind] += 1
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), kind)
        ready[name] = made[key] if key in made else made.setdefault(key, tensor.to(kind))
    return ready


def load(module: torch.nn.Module, state: State, model: Model, assign: bool) -> None:
    """Loads weights into a network by its own code.

    Args:
        assign: Puts them in the place of its own tensors, instead of copying them into these.

    Raises:
        ModelError: A tensor is missing, too much, or of another shape.
    """
    try:
        module.load_state_dict(state, strict=True, assign=assign)
    except Exception as error:  # a network loads its weights by code of its own
        raise ModelError(
            f"weights {address(model)}: do not fit {model.architecture} ({reason(error)}); "
            f"{_how_to_fit(persistent(module), state)}"
        ) from error


def _how_to_fit(own: State, state: State) -> str:
    prefix = next((name.partition(".")[0] for name in state), "") + "."
    if own and {f"{prefix}{name}" for name in own} == state.keys():
        return (
            f"each name begins with {prefix!r}, as if a network was saved within another, such as "
            f"DataParallel or torch.compile: save network.{prefix}state_dict()"
        )
    return "give the architecture and the arguments that they were trained with"


def storages(tensors: Iterable[torch.Tensor]) -> list[Any]:
    """Returns references to tensors' memory that do not keep it."""
    found = []
    for tensor in tensors:
        if torch.nn.parameter.is_lazy(tensor) or tensor.layout is not torch.strided:
            continue
        found.append(torch.multiprocessing.reductions.StorageWeakRef(tensor.untyped_storage()))
    return found
