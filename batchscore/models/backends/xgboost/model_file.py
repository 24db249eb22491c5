"""What an XGBoost model file says of itself, and whether its trees are in order; without XGBoost.

Suffixes: `_n` nodes of a tree.
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
            return json.loads(content)
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
    _check_trees(model, features)
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
    """Returns the categories in the order of their codes; None if the file has none."""
    values = table.get("values")
    if values is None or not len(values):
        return None
    if "offsets" not in table:
        return tuple(int(each) for each in values)
    text = bytes(int(each) & 255 for each in values)
    ends = [int(each) for each in table["offsets"]]
    if ends[0] != 0 or ends[-1] != len(text) or ends != sorted(ends):
        raise ValueError(f"the offsets of a category table ({_ENC}) do not fit its texts")
    return tuple(text[a:b].decode() for a, b in pairwise(ends))


def _check_trees(model: Any, features: int) -> None:
    """Raises ValueError for trees that the library would follow out of its memory."""
    trees = model["trees"]
    if len(trees) != int(model["gbtree_model_param"]["num_trees"]):
        raise ValueError(f"{len(trees)} trees, and another number declared")
    for place, tree in enumerate(trees):
        try:
            _check_tree(tree, features)
        except ValueError as error:
            raise ValueError(f"tree {place}: {error}") from error


def _check_tree(tree: Any, features: int) -> None:
    left_n, right_n, parent_n, column_n = (
        np.asarray(tree[key], np.int64)
        for key in ("left_children", "right_children", "parents", "split_indices")
    )
    nodes = int(tree["tree_param"]["num_nodes"])
    sizes = {len(left_n), len(right_n), len(parent_n), len(column_n), len(tree["default_left"])}
    if sizes != {nodes} or not nodes:
        raise ValueError(f"{sorted(sizes)} entries for {nodes} nodes")
    for key in ("categories_nodes", "categories_segments", "categories_sizes"):
        _check_segments(tree, key, nodes)
    inner_n = left_n != -1
    if (inner_n != (right_n != -1)).any():
        raise ValueError("a node has one child")
    if ((column_n[inner_n] < 0) | (column_n[inner_n] >= features)).any():
        raise ValueError(f"a split is on a feature beyond {features}")
    _check_links(left_n[inner_n], right_n[inner_n], np.flatnonzero(inner_n), parent_n)


def _check_segments(tree: Any, key: str, nodes: int) -> None:
    """Requires what says where a node's categories lie to stay within its arrays."""
    found = np.asarray(tree.get(key, ()), np.int64)
    most = nodes - 1 if key == "categories_nodes" else len(tree.get("categories", ()))
    if ((found < 0) | (found > most)).any() or len(found) > nodes:
        raise ValueError(f"{key} are out of range")


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
