"""Inputs and outputs of a model, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.facts import FileTensor

_TYPES = (
    *("float16", "float32", "float64"),
    *("int8", "uint8", "int16", "int32", "int64", "bool"),
)


@dataclass(frozen=True)
class Structure:
    """What a model is called with, and what it returns.

    Args:
        inputs: In the model's order.
        keys: Keys of the mapping that it takes; None: a list, or a single array.
        is_single: Whether it takes one array, and no list or mapping.
        outputs: Names, in the model's order.
        returned: Keys of the mapping that it returns; None: a list, or a single array.
        layers: Layers of the model, without those of models in it.
    """

    inputs: tuple[FileTensor, ...]
    keys: tuple[str, ...] | None
    is_single: bool
    outputs: tuple[str, ...]
    returned: tuple[str, ...] | None
    layers: int


def structure_of(configuration: Mapping[str, Any]) -> Structure:
    """Returns inputs and outputs of a checked configuration.

    Raises:
        ModelError: It does not say what they are, or they are none that a table can fill.
    """
    try:
        own = configuration["config"]
        if configuration["class_name"] == "Sequential":
            return _sequential(own)
        return _functional(own)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(
            f"its configuration does not say what the model's inputs and outputs are "
            f"({type(error).__name__}: {one_line(error, 60)}); call the model once, and save "
            "it again"
        ) from error


def _sequential(own: Any) -> Structure:
    layers = own if isinstance(own, list) else own["layers"]
    first, last = layers[0]["config"], layers[-1]["config"]
    shape = first.get("batch_shape") or first.get("batch_input_shape")
    if shape is None:
        shape = own["build_input_shape"]
    name = first["name"] if layers[0]["class_name"] == "InputLayer" else f"{first['name']}_input"
    is_table = layers[0]["class_name"] == "Embedding"
    kind = _type_of(first.get("dtype") if layers[0]["class_name"] == "InputLayer" else None)
    given = FileTensor(name, "int32" if is_table else kind, _shape(shape, name))
    _check_type(given)
    return Structure((given,), None, True, (str(last["name"]),), None, len(layers))


def _functional(own: Mapping[str, Any]) -> Structure:
    layers = {each.get("name") or each["config"]["name"]: each["config"] for each in own["layers"]}
    places, keys = _listed(own["input_layers"])
    inputs = [_input(layers[place], place) for place in places]
    if keys is not None:
        inputs = [FileTensor(k, t.dtype, t.shape) for k, t in zip(keys, inputs, strict=True)]
    for each in inputs:
        _check_type(each)
    made, returned = _listed(own["output_layers"])
    is_single = _is_place(own["input_layers"])
    outputs = returned or _unique(made)
    return Structure(tuple(inputs), keys, is_single, outputs, returned, len(layers))


def _listed(given: Any) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Returns names of layers, and the keys under which they are given."""
    if isinstance(given, dict):
        return tuple(str(place[0]) for place in given.values()), tuple(given)
    if _is_place(given):
        return (str(given[0]),), None
    if not all(_is_place(each) for each in given):
        raise ValueError("inputs or outputs within others")
    return tuple(str(place[0]) for place in given), None


def _is_place(given: Any) -> bool:
    """Tells whether this names an output of a layer: its name, and two numbers."""
    return isinstance(given, list) and len(given) == 3 and isinstance(given[0], str)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names of outputs, where a layer may have several."""
    made = list[str]()
    for name in names:
        count = sum(each == name or each.startswith(f"{name}_") for each in made)
        made.append(f"{name}_{count}" if name in made else name)
    return tuple(made)


def _input(own: Mapping[str, Any], name: str) -> FileTensor:
    shape = own.get("batch_shape") or own["batch_input_shape"]
    return FileTensor(name, _type_of(own.get("dtype")), _shape(shape, name))


def _type_of(given: Any) -> str:
    if isinstance(given, Mapping):
        given = given["config"]["name"]
    return str(given or "float32")


def _shape(given: Any, name: str) -> tuple[int | None, ...]:
    _, *shape = given
    if not all(each is None or (type(each) is int and each > 0) for each in shape):
        raise ValueError(f"input {name} has shape {given}")
    return tuple(shape)


def _check_type(given: FileTensor) -> None:
    if given.dtype == "string":
        raise ModelError(
            f"input {given.name!r} takes texts, which only layers with TensorFlow read; encode "
            "them in the table, or with bs.fit_features"
        )
    if given.dtype not in _TYPES:
        raise ModelError(
            f"input {given.name!r} is of {given.dtype!r}; expected {', '.join(_TYPES)}"
        )
