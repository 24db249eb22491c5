"""A model's configuration: each object that it names is checked, before Keras sees any of it.

What a model needs in training alone is taken out: how weights begin, regularizers, constraints,
optimizers. So weights begin as zeros, which take neither time nor memory, however many are asked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from batchscore.errors import ModelError
from batchscore.messages.wording import one_line
from batchscore.models.backends.keras.allowed import (
    ACTIVATIONS,
    CONSTRAINTS,
    INITIALIZERS,
    LAYERS,
    MODEL_MODULES,
    MODELS,
    NEEDS_TENSORFLOW,
    OPERATIONS,
    POLICIES,
    REGULARIZERS,
    RUNS_CODE,
)

_DEEPEST = 100
_ZEROS = {"class_name": "Zeros", "config": {}}
_PLAIN = (None, "builtins")
_CHOSEN: Mapping[str, tuple[str, frozenset[str], tuple[str | None, ...]]] = {
    "activation": ("activation", ACTIVATIONS, (*_PLAIN, "keras.activations")),
    "initializer": ("initializer", INITIALIZERS, (*_PLAIN, "keras.initializers")),
    "regularizer": ("regularizer", REGULARIZERS, (*_PLAIN, "keras.regularizers")),
    "constraint": ("constraint", CONSTRAINTS, (*_PLAIN, "keras.constraints")),
}
"""By the end of a key: what its value is, which are known, and of which modules."""
_REMEDY = (
    "build the model from layers of Keras alone, with what they need in their own settings, and "
    "save it again"
)


def checked_configuration(given: Any, written: int = 3) -> dict[str, Any]:
    """Returns a model's configuration as Keras is to see it.

    Args:
        given: What the file holds.
        written: Major version of the Keras that wrote it.

    Raises:
        ModelError: It names something that is not known to be without code, or a layer that does
            not score each row by itself.
    """
    try:
        return _model(given if written < 3 else _called_to_score(given))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"its configuration is none that Keras writes ({one_line(error, 80)}); restore the "
            "file, or save the model again with model.save"
        ) from error


def _called_to_score(value: Any, depth: int = 0) -> Any:
    """Returns a configuration in which no layer is called as in training.

    `predict` of Keras 3 calls none so, whatever the file says; Keras 2 did. Keras 3 notes it of
    each layer whose call has `training=True` by default, such as RandomFlip.
    """
    if depth > 4 * _DEEPEST:
        return value  # which is refused
    if isinstance(value, list):
        return [_called_to_score(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: False if key == "training" and each is True else _called_to_score(each, depth + 1)
        for key, each in value.items()
    }


def _model(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or given.get("class_name") not in MODELS:
        found = given.get("class_name") if isinstance(given, dict) else type(given).__name__
        raise ModelError(
            f"its configuration is of {one_line(repr(found), 80)}, and expected was a Sequential "
            f"or Functional model: a class of your own is code, which no file holds; {_REMEDY}"
        )
    made = _checked(given, "", 0)
    assert isinstance(made, dict)
    return made


def _checked(value: Any, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ModelError(
            f"its configuration has more than {_DEEPEST} levels; no layer of Keras needs as many"
        )
    if isinstance(value, list):
        return [_checked(each, where, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return _object(value, where, depth)
    return {key: _entry(key, each, where, depth) for key, each in value.items()}


def _entry(key: str, value: Any, where: str, depth: int) -> Any:
    """Returns what a key holds, by its name."""
    if key == "training" and value not in (None, False):
        raise ModelError(
            f"layer {where} is called with training={value!r} also when Keras 2 scores, so that "
            "scores depend on chance, or on other rows; leave training out, and save it again"
        )
    if key == "stateful" and value:
        raise ModelError(
            f"layer {where} is stateful: a row's score would depend on the rows before it; build "
            "it with stateful=False, and save the model again"
        )
    _, _, last = key.rpartition("_")
    if last in _CHOSEN and isinstance(value, str | dict):
        kept = _chosen(last, value, where, depth)
        return {"activation": kept, "initializer": _ZEROS}.get(last)
    if key == "vocabulary" and isinstance(value, str):
        raise ModelError(f"layer {where} reads the file {one_line(value, 80)!r}; {_REMEDY}")
    return _checked(value, where, depth + 1)


def _chosen(last: str, value: str | dict[str, Any], where: str, depth: int) -> Any:
    """Returns an activation or such, if it is a known one."""
    what, known, modules = _CHOSEN[last]
    name: Any
    module: Any
    if isinstance(value, str):
        name, module = value, None
    else:
        name, module = value.get("class_name"), value.get("module")
        if what == "activation" and name in LAYERS:
            return _checked(value, where, depth + 1)
        if name == "function":
            name = value.get("config")
    if name in known and module in modules and _has_own_name(value):
        return value
    raise ModelError(
        f"layer {where} has the {what} {_named(name, module)}, which is none of Keras's own, so "
        f"that it would be code; {_REMEDY}"
    )


def _object(value: dict[str, Any], where: str, depth: int) -> Any:
    kind = value["class_name"]
    made = _SPECIAL.get(kind) if isinstance(kind, str) else None
    if made is not None:
        return made(value, where, depth)
    _check_known(value, where)
    own = value.get("config")
    name = own.get("name") if isinstance(own, dict) else None
    inner = f"{one_line(repr(name or where), 60)} ({kind})"
    left_out = ("compile_config", "config") if isinstance(own, dict) else ("compile_config",)
    rest = {k: _entry(k, each, inner, depth + 1) for k, each in value.items() if k not in left_out}
    return rest | ({"config": _settings(own, inner, depth + 1)} if isinstance(own, dict) else {})


def _settings(own: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
    """Returns settings without those of Keras 2 that Keras 3 does not know; they are defaults."""
    if own.get("time_major"):
        raise ModelError(f"layer {where} takes time before rows (time_major); {_REMEDY}")
    kept = {key: each for key, each in own.items() if key not in ("time_major", "batch_size")}
    return {key: _entry(key, _of_any_rows(key, each), where, depth) for key, each in kept.items()}


def _of_any_rows(key: str, value: Any) -> Any:
    """Returns an input's shape for any number of rows.

    A model whose layers are built by `fit` keeps the number of its first call, and Keras scores
    other numbers all the same.
    """
    is_shape = key in ("batch_shape", "batch_input_shape") and isinstance(value, list)
    return [None, *value[1:]] if is_shape else value


def _check_known(value: dict[str, Any], where: str) -> None:
    """Raises ModelError where an object is none that may be named."""
    kind, module = value["class_name"], value.get("module")
    known = isinstance(kind, str) and (module is None or isinstance(module, str))
    known = known and (
        (kind in LAYERS and module in (None, "keras.layers"))
        or (kind in MODELS and module in MODEL_MODULES)
        or kind in OPERATIONS.get(module or "", ())
    )
    if known and _has_own_name(value):
        return
    what = _named(kind, module if known else module or value.get("registered_name"))
    if kind in NEEDS_TENSORFLOW:
        why = "which needs TensorFlow; look its values up in the table, or with bs.fit_features"
    elif kind in RUNS_CODE:
        why = f"which runs code of the file; {_REMEDY}"
    elif module is None and any(kind in each for each in OPERATIONS.values()):
        why = "arithmetic that .h5 files do not hold whole; save it with model.save('model.keras')"
    elif kind in LAYERS | MODELS:
        why = f"which is not the one of Keras's own; {_REMEDY}"
    else:
        why = f"which is none of the layers that may be loaded; {_REMEDY}"
    raise ModelError(f"its configuration names {what}{f' in {where}' if where else ''}, {why}")


def _has_own_name(value: str | dict[str, Any]) -> bool:
    """Tells whether no other class was registered in place of Keras's own."""
    if isinstance(value, str):
        return True
    return value.get("registered_name") in (None, value.get("class_name"))


def _named(name: Any, module: Any) -> str:
    return one_line(f"{module}.{name}" if module else str(name), 100)


def _tensor(value: dict[str, Any], where: str, depth: int) -> Any:
    """Returns a tensor of the graph, or a constant: plain values."""
    return {"class_name": value["class_name"], "config": _plain(value.get("config"), where, depth)}


def _plain(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        raise ModelError(f"its configuration has {value['class_name']!r} in a tensor of {where}")
    if isinstance(value, dict):
        return {key: _plain(each, where, depth + 1) for key, each in value.items()}
    return _checked(value, where, depth + 1)


def _constant(value: dict[str, Any], where: str, depth: int) -> Any:
    kind = (value.get("config") or {}).get("dtype")
    if kind not in ("bool", *POLICIES, "int8", "uint8", "int16", "int32", "int64"):
        raise ModelError(f"its configuration has a constant of {one_line(repr(kind), 40)}")
    return _tensor(value, where, depth)


def _slice(value: dict[str, Any], where: str, depth: int) -> Any:
    return {**value, "config": _checked(value.get("config"), where, depth + 1)}


def _policy(value: dict[str, Any], where: str, depth: int) -> Any:
    name = (value.get("config") or {}).get("name")
    if name not in POLICIES or value.get("module") not in ("keras", "keras.dtype_policies", None):
        raise ModelError(
            f"layer {where} computes with {one_line(repr(name), 40)}; expected one of "
            f"{', '.join(sorted(POLICIES))}"
        )
    # Layers that share a policy say so by numbers that differ each time.
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}}


_SPECIAL: Mapping[str, Callable[[dict[str, Any], str, int], Any]] = {
    "__keras_tensor__": _tensor,
    "__tensor__": _constant,
    "__numpy__": _constant,
    "__slice__": _slice,
    "__ellipsis__": lambda value, where, depth: value,
    "DTypePolicy": _policy,
}
