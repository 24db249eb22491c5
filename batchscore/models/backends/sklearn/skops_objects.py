"""Builds the objects of a skops file, of types of a fixed list and no other.

skops itself would import all of scikit-learn, and torch, which takes seconds. It checks a file's
types in one pass and builds them in another. Here a type is looked up in the list when it is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from batchscore.errors import ModelError
from batchscore.models.backends.sklearn.allowed_types import (
    BUILT_AGAIN,
    CHECK_ARRAY,
    FUNCTIONS,
    GAP,
    LOSSES,
    MAPPINGS,
    OBJECTS,
    SCALARS,
    TOGETHER,
    TUPLES,
    TYPES,
)
from batchscore.models.backends.sklearn.node_checks import check_spline, check_tree_state
from batchscore.models.backends.sklearn.skops_archive import SkopsArchive

_DEEPEST = 200
_UNDER_WAY = object()
_TREE = "sklearn.tree._tree.Tree"
_METRICS = ("chebyshev", "euclidean", "manhattan", "minkowski")
_BOOSTER = (
    "save the booster alone: bs.save_model takes pipeline[-1] (of a search best_estimator_[-1]), "
    "and as its sample a DataFrame of what pipeline[:-1] makes of rows; in the job a preprocess "
    "function makes these columns. Inside another estimator, such as CalibratedClassifierCV, take "
    "scikit-learn's own boosting instead"
)
_REMEDIES = {
    "catboost": _BOOSTER,
    "lightgbm": _BOOSTER,
    "xgboost": f"{_BOOSTER}. Where they are sparse, train it with sparse_threshold=0 first, since "
    "XGBoost takes the zeros of a sparse matrix as missing",
    "sklearn": "leave this part out of the pipeline, or replace it by one that is listed in the "
    "documentation of model folders",
}


def build_objects(archive: SkopsArchive) -> Any:
    """Returns the estimator of a file.

    Raises:
        ModelError: It holds a type that is not in the list.
        Exception: It is damaged; scikit-learn and NumPy raise what they like.
    """
    return _Builder(archive).build(archive.schema)


def build_part(archive: SkopsArchive, state: Any) -> Any:
    """Returns the object of a part of a schema, such as an array."""
    return _Builder(archive).build(state)


def refuse_type(full: str) -> ModelError:
    """Returns the error for a type that is not in the list; `full` may come from a file."""
    if full in TOGETHER:
        return ModelError(
            f"it holds {TOGETHER[full]}, which makes a row's values with the other rows of a call, "
            "so that scores would depend on batches; take another transformer, such as PCA"
        )
    package = full.partition(".")[0]
    remedy = _REMEDIES.get(package, "use estimators of scikit-learn's own, without own functions")
    return ModelError(
        f"it holds {full[:120]}, which is not among the types that are loaded, since it could run "
        f"code or read other memory; {remedy}"
    )


class _Builder:
    """Makes objects of the states in a schema.

    Args:
        archive: Whose members hold the arrays.
    """

    def __init__(self, archive: SkopsArchive) -> None:
        self._archive, self._depth = archive, 0
        self._known: dict[int, Any] = {}
        self._makers: Mapping[str, Callable[[Mapping[str, Any], str], Any]] = {
            "JsonNode": lambda state, full: json.loads(state["content"]),
            "DictNode": self._mapping,
            "DefaultDictNode": self._default_mapping,
            "ListNode": self._list,
            "SetNode": lambda state, full: {*self._list(state, "builtins.list")},
            "TupleNode": self._tuple,
            "SliceNode": lambda state, full: slice(
                *(state["content"][key] for key in ("start", "stop", "step"))
            ),
            "BytesNode": lambda state, full: self._archive.content(state["file"]),
            "BytearrayNode": lambda state, full: bytearray(self._archive.content(state["file"])),
            "TypeNode": lambda state, full: _imported(full, TYPES),
            "PartialNode": self._partial,
            "FunctionNode": lambda state, full: _imported(full, FUNCTIONS),
            "NdArrayNode": self._array,
            "DTypeNode": lambda state, full: self.build(state["content"]).dtype,
            # Random numbers were drawn in training alone: any generator will do.
            "RandomStateNode": lambda state, full: np.random.RandomState(0),
            "RandomGeneratorNode": lambda state, full: np.random.default_rng(0),
            "TreeNode": self._tree,
            "LossNode": self._loss,
            "ObjectNode": self._object,
        }

    def build(self, state: Any) -> Any:
        """Returns the object of a state; the same one for the same identity."""
        identity = state.get("__id__")
        if identity in self._known:
            found = self._known[identity]
            if found is _UNDER_WAY:
                raise ValueError("an object holds itself")
            return found
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("its objects are nested too deeply")
        if identity is not None:
            self._known[identity] = _UNDER_WAY
        made = self._made(state)
        if identity is not None:
            self._known[identity] = made
        self._depth -= 1
        return made

    def _made(self, state: Mapping[str, Any]) -> Any:
        full = f"{state['__module__']}.{state['__class__']}"
        maker = self._makers.get(state["__loader__"])
        if maker is None:
            raise refuse_type(full)
        return maker(state, full)

    def _mapping(self, state: Mapping[str, Any], full: str) -> Any:
        made = _imported(full, MAPPINGS)()
        kinds = self.build(state["key_types"])
        for kind, (key, value) in zip(kinds, state["content"].items(), strict=True):
            made[kind(key)] = self.build(value)
        return made

    def _default_mapping(self, state: Mapping[str, Any], full: str) -> Any:
        return self.build(state["content"]["main"])

    def _list(self, state: Mapping[str, Any], full: str) -> list[Any]:
        if full not in ("builtins.list", "builtins.set"):
            raise refuse_type(full)
        return [self.build(each) for each in state["content"]]

    def _tuple(self, state: Mapping[str, Any], full: str) -> Any:
        kind = _imported(full, TUPLES)
        made = tuple(self.build(each) for each in state["content"])
        return made if kind is tuple else kind(*made)

    def _array(self, state: Mapping[str, Any], full: str) -> Any:
        if state["type"] == "numpy":
            found = self._archive.array(state["file"])
            if full == "numpy.ndarray":
                return found
            return _imported(full, SCALARS)(found[()])
        if state["type"] != "json" or full != "numpy.ndarray":
            raise ValueError("an array is of an unknown kind")
        shape = tuple(int(size) for size in self.build(state["shape"]))
        values = [_each for item in state["content"] for _each in self._items(item, len(shape) - 1)]
        made = np.empty(len(values), object)
        made[:] = values
        return made.reshape(shape)

    def _items(self, state: Mapping[str, Any], depth: int) -> list[Any]:
        """Returns the values of nested lists, of which an array of objects is written."""
        if depth <= 0:
            return [self.build(state)]
        if state["__loader__"] != "ListNode":
            raise ValueError("an array has another shape than its values")
        return [each for item in state["content"] for each in self._items(item, depth - 1)]

    def _partial(self, state: Mapping[str, Any], full: str) -> Any:
        """Returns scikit-learn's own look at an array, which its boosting takes for a step."""
        called = state["content"]["func"]
        name = f"{called['__module__']}.{called['__class__']}"
        if name != CHECK_ARRAY:
            raise refuse_type(f"functools.partial of {name}")
        given = self.build(state["content"]["args"]), self.build(state["content"]["kwds"])
        return partial(_imported(name, (CHECK_ARRAY,)), *given[0], **given[1])

    def _loss(self, state: Mapping[str, Any], full: str) -> Any:
        given = self.build(state["__reduce__"]["args"])
        return _imported(full, LOSSES)(*given)

    def _tree(self, state: Mapping[str, Any], full: str) -> Any:
        kind = _imported(full, (_TREE,))
        given, attributes = self.build(state["__reduce__"]["args"]), self.build(state["content"])
        check_tree_state(given, attributes)
        made = kind(*given)
        made.__setstate__(attributes)
        return made

    def _object(self, state: Mapping[str, Any], full: str) -> Any:
        if full in BUILT_AGAIN:
            return self._built_again(state["content"], full)
        kind = _imported(full, OBJECTS)
        made = kind.__new__(kind)
        found = self.build(state["content"]) if "content" in state else None
        if found is None:
            return made
        if not isinstance(found, dict) or any(_is_hidden(name) for name in found):
            raise ValueError(f"{full} has no plain attributes")
        if hasattr(made, "__setstate__"):
            made.__setstate__(found)
        else:
            vars(made).update(found)
        return made

    def _built_again(self, state: Mapping[str, Any], full: str) -> Any:
        kind = _imported(full, BUILT_AGAIN)
        if full == GAP:
            return kind()
        if full.endswith("BSpline"):
            keys = ("_t", "_c", "k", "extrapolate", "axis")
            parts = [self.build(state["content"][key]) for key in keys]
            check_spline(*parts[:3])
            return kind.construct_fast(*parts)
        values, leaf, metric = (state["content"][place] for place in (0, 4, -2))
        name = str(metric["__class__"]).removesuffix("64").removesuffix("Distance").lower()
        if metric["__module__"] != "sklearn.metrics._dist_metrics" or name not in _METRICS:
            raise refuse_type(f"{metric['__module__']}.{metric['__class__']}")
        power = {"p": self.build(metric["content"])[0]} if name == "minkowski" else {}
        return kind(self.build(values), leaf_size=int(self.build(leaf)), metric=name, **power)


def _is_hidden(name: Any) -> bool:
    return not isinstance(name, str) or name.startswith("__")


def _imported(full: str, known: Any) -> Any:
    """Returns a type or function of the list by its full name."""
    if full not in known:
        raise refuse_type(full)
    module, _, name = full.rpartition(".")
    return getattr(import_module(module), name)
