"""What an XGBoost model file says of itself, and whether its trees are in order; without XGBoost.

Suffixes: `_n` nodes of a tree, `_k` nodes that split by categories,
`_v` their categories, `_t` trees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.facts import FileColumn
from batchscore.models.backends.xgboost.ubj import read_ubj

_ROOT = 2**31 - 1
_MOST_JSON = (1 << 25, 1 << 22)
"""Commas; arrays and objects, of which a tree has some twenty."""
_MOST_CATEGORIES = 1 << 24
_OF_NODES = ("default_left", "split_conditions", "base_weights", "sum_hessian", "loss_changes")
_ENC = "learner.gradient_booster.model.cats.enc"


@dataclass(frozen=True)
class ModelFile:
    """What a file says.

    Args:
        version: Of the XGBoost that wrote it, as 3 numbers.
        columns: Of training, in order; none if the file does not name them.
        features: How many there are.
        categorical: Places of the columns that hold categories.
        objective: Such as `binary:logistic`.
        classes: Number of classes; 0 for what is no classifier of several.
        targets: Number of values that a row's label has.
        trees: How many there are.
        rounds: Boosting rounds.
        best_round: The best of them, from early stopping, or None.
    """

    version: tuple[int, ...]
    columns: tuple[FileColumn, ...]
    features: int
    categorical: tuple[int, ...]
    objective: str
    classes: int
    targets: int
    trees: int
    rounds: int
    best_round: int | None


def read_model_file(content: bytes) -> ModelFile:
    """Returns what the bytes of a `.json` or `.ubj` file say.

    Raises:
        ModelError: It is no XGBoost model, of a kind that is not scored, or damaged.
    """
    try:
        return _described(_parsed(content))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"no XGBoost model, or damaged ({type(error).__name__}: {str(error)[:80]}); expected "
            "what Booster.save_model writes as .ubj or .json"
        ) from error


def _parsed(content: bytes) -> Any:
    # Of JSON the second character is a quotation mark or white space, of UBJSON a length.
    if content[:1] == b"{" and content[1:2] != b"L":
        try:
            return json.loads(_bounded(content), object_pairs_hook=_distinct)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    if content[:2] == b"{L":
        return read_ubj(content)
    if content[:5] == b"tree\n":
        raise ModelError(
            "no XGBoost model, but one of LightGBM; name it .txt, or set model.format: lightgbm"
        )
    raise ModelError(
        f"no XGBoost model: it begins with {content[:8]!r}; expected what Booster.save_model "
        "writes as .ubj or .json (a pickle, or the binary format before XGBoost 3.1, has to be "
        "loaded and saved so)"
    )


def _bounded(content: bytes) -> bytes:
    """Requires JSON to take no more than a few GB as values of Python, before any is made."""
    counts = content.count(b","), content.count(b"[") + content.count(b"{")
    if any(count > most for count, most in zip(counts, _MOST_JSON, strict=True)):
        raise ModelError(
            f"XGBoost model of {len(content):,} bytes of JSON, which holds more values than are "
            "read; save the model as .ubj"
        )
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; the library may take the other one of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _described(found: Any) -> ModelFile:
    learner = found["learner"]
    parameters = learner["learner_model_param"]
    booster = learner["gradient_booster"]
    kind = booster.get("name")
    if kind not in ("gbtree", "dart"):
        raise ModelError(
            f"XGBoost model of booster {kind!r}; expected gbtree or dart: score a linear model as "
            "one of another format"
        )
    model = (booster["gbtree"] if kind == "dart" else booster)["model"]
    features = int(parameters["num_feature"])
    groups = max(int(parameters.get("num_class", 0)), int(parameters.get("num_target", 1)), 1)
    _check_trees(model, features, groups)
    if kind == "dart" and len(booster["weight_drop"]) != len(model["trees"]):
        raise ValueError("its trees have another number of weights")
    kinds = [str(each) for each in learner.get("feature_types", ())]
    best = learner.get("attributes", {}).get("best_iteration")
    per_round = int(model["gbtree_model_param"].get("num_parallel_tree") or 1)
    classes = int(parameters.get("num_class", 0))
    return ModelFile(
        version=tuple(int(part) for part in found["version"]),
        columns=_columns(learner, kinds, model.get("cats") or {}, features),
        features=features,
        categorical=tuple(place for place, each in enumerate(kinds) if each == "c"),
        objective=str(learner["objective"]["name"]),
        classes=classes,
        targets=int(parameters.get("num_target", 1)),
        trees=len(model["trees"]),
        rounds=_rounds(model, max(classes, 1) * max(per_round, 1)),
        best_round=None if best is None else int(best),
    )


def _rounds(model: Any, per_round: int) -> int:
    ends = model.get("iteration_indptr")
    return len(model["trees"]) // per_round if ends is None else len(ends) - 1


def _columns(
    learner: Any, kinds: Sequence[str], cats: Mapping[str, Any], features: int
) -> tuple[FileColumn, ...]:
    names = [str(each) for each in learner.get("feature_names", ())]
    for found in (names, kinds):
        if found and len(found) != features:
            raise ValueError(f"{len(found)} names or types of {features} features")
    if len({*names}) < len(names):
        raise ValueError("two features have one name")
    tables = cats.get("enc") or [{}] * len(names)
    if names and len(tables) != len(names):
        raise ValueError(f"{len(tables)} category tables of {len(names)} features")
    kinds = kinds or ["float"] * len(names)
    return tuple(
        FileColumn(name, _vocabulary(table) if kind == "c" else None, kind == "c")
        for name, kind, table in zip(names, kinds, tables, strict=True)
    )


def _vocabulary(table: Mapping[str, Any]) -> tuple[str, ...] | tuple[int, ...] | None:
    """Returns the categories in the order of their codes; None if the file does not tell them.

    XGBoost counts letters of pandas' texts where it means bytes. So a table with letters beyond
    ASCII may be cut at wrong places, which it does not show.
    """
    values = table.get("values")
    if values is None or not len(values):
        return None
    if "offsets" not in table:
        return tuple(int(each) for each in values)
    text = bytes(int(each) & 255 for each in values)
    if not text.isascii():
        return None
    ends = [int(each) for each in table["offsets"]]
    if ends[0] != 0 or ends[-1] != len(text) or ends != sorted(ends):
        raise ValueError(f"the offsets of a category table ({_ENC}) do not fit its texts")
    return tuple(text[a:b].decode() for a, b in pairwise(ends))


def _check_trees(model: Any, features: int, groups: int) -> None:
    """Raises ValueError for trees that the library would follow out of its memory."""
    trees = model["trees"]
    if len(trees) != int(model["gbtree_model_param"]["num_trees"]):
        raise ValueError(f"{len(trees)} trees, and another number declared")
    group_t = np.asarray(model["tree_info"], np.int64)
    if len(group_t) != len(trees) or ((group_t < 0) | (group_t >= groups)).any():
        raise ValueError(f"a tree adds to an output beyond {groups}")
    ends = np.asarray(model.get("iteration_indptr", (0, len(trees))), np.int64)
    if ends[0] != 0 or ends[-1] != len(trees) or (np.diff(ends) < 0).any():
        raise ValueError("its rounds do not hold its trees")
    for place, tree in enumerate(trees):
        try:
            _check_tree(tree, features)
        except ValueError as error:
            raise ValueError(f"tree {place}: {error}") from error


def _check_tree(tree: Any, features: int) -> None:
    if int(tree["tree_param"].get("size_leaf_vector") or 1) > 1:
        raise ModelError(
            "XGBoost model whose trees have several values in a leaf (multi_strategy "
            "multi_output_tree), which is not scored; train it with multi_strategy "
            "one_output_per_tree"
        )
    left_n, right_n, parent_n, column_n = (
        np.asarray(tree[key], np.int64)
        for key in ("left_children", "right_children", "parents", "split_indices")
    )
    nodes = int(tree["tree_param"]["num_nodes"])
    sizes = {len(left_n), len(right_n), len(parent_n), len(column_n)}
    sizes |= {len(tree[key]) for key in _OF_NODES}
    if sizes != {nodes} or not nodes:
        raise ValueError(f"{sorted(sizes)} entries for {nodes} nodes")
    _check_segments(tree, nodes)
    inner_n = left_n != -1
    if not np.isfinite(np.asarray(tree["split_conditions"], np.float64)[~inner_n]).all():
        raise ValueError("a leaf's value is not finite")
    if (inner_n != (right_n != -1)).any():
        raise ValueError("a node has one child")
    if ((column_n[inner_n] < 0) | (column_n[inner_n] >= features)).any():
        raise ValueError(f"a split is on a feature beyond {features}")
    _check_links(left_n[inner_n], right_n[inner_n], np.flatnonzero(inner_n), parent_n)


def _check_segments(tree: Any, nodes: int) -> None:
    """Requires what says where a node's categories lie to stay within its arrays."""
    node_k, start_k, size_k = (
        np.asarray(tree.get(f"categories_{key}", ()), np.int64)
        for key in ("nodes", "segments", "sizes")
    )
    if len({len(node_k), len(start_k), len(size_k)}) > 1 or len(node_k) > nodes:
        raise ValueError("its sets of categories are out of range")
    if ((node_k < 0) | (node_k >= nodes) | (np.diff(node_k, prepend=-1) <= 0)).any():
        raise ValueError("categories_nodes are out of range")
    value_v = np.asarray(tree.get("categories", ()), np.int64)
    end_k = np.cumsum(size_k)
    if (size_k < 0).any() or (start_k != end_k - size_k).any() or size_k.sum() != len(value_v):
        raise ValueError("its sets of categories are out of range")
    # The library sizes a set by its last category, and writes the others where they lead.
    step_v = np.diff(value_v, prepend=-1)
    step_v[start_k[size_k > 0]] = 1
    if (step_v <= 0).any() or ((value_v < 0) | (value_v >= _MOST_CATEGORIES)).any():
        raise ValueError("a set of categories is not in order")


def _check_links(left_n: Array, right_n: Array, own_n: Array, parent_n: Array) -> None:
    """Requires that each child names its parent, and has one: then no path is endless."""
    children = np.concatenate([left_n, right_n])
    if ((children <= 0) | (children >= len(parent_n))).any():
        raise ValueError("a child is no node")
    if len(np.unique(children)) < len(children):
        raise ValueError("a node has two parents")
    if (parent_n[children] != np.concatenate([own_n, own_n])).any():
        raise ValueError("a child has another parent")
    if parent_n[0] != _ROOT and parent_n[0] != -1:
        raise ValueError("the root has a parent")
