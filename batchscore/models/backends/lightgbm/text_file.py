"""What a LightGBM model file says of itself, and whether its trees are in order; without LightGBM.

The library reads a cut file beyond its memory, so nothing reaches it before each tree was checked.

Suffixes: `_n` inner nodes of a tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.facts import FileColumn

_END = b"end of trees"
_PARAMETER = re.compile(rb"(\[\w+: [^\n]*\])?\s*")
_CATEGORICAL = re.compile(rb"^\[categorical_feature: ([^\]]*)\]", re.MULTILINE)
_NUMBERS = re.compile(r"[-+.0-9eE ]*")
# What explains scores or describes a tree has as many numbers.
_OF_NODES = ("split_gain", "internal_value", "internal_weight", "internal_count")
_OF_LEAVES = ("leaf_weight", "leaf_count")
_TABLES = b"pandas_categorical:"
_IS_CATEGORICAL = 1
_HEADER_BYTES = 64 << 20


@dataclass(frozen=True)
class TextFile:
    """What a file says.

    Args:
        version: Of the file's form, one number: the major version of the LightGBM that wrote it.
        columns: Of training, in order; none if it was trained on an array.
        features: How many there are.
        categorical: Places of the columns that hold categories with a table.
        objective: Such as `binary`; empty for one that is a person's own.
        classes: Number of classes; 1 for what is no classifier of several.
        trees: How many there are.
        rounds: Boosting rounds.
    """

    version: tuple[int, ...]
    columns: tuple[FileColumn, ...]
    features: int
    categorical: tuple[int, ...]
    objective: str
    classes: int
    trees: int
    rounds: int


def read_text_file(content: bytes) -> TextFile:
    """Returns what the bytes of a model file say.

    Raises:
        ModelError: It is no LightGBM model, or damaged.
    """
    if content[:5] not in (b"tree\n", b"tree\r"):
        raise ModelError(
            f"no LightGBM model: it begins with {content[:8]!r}; expected what Booster.save_model "
            "writes (a pickle has to be loaded and saved so)"
        )
    try:
        return _described(content)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"no LightGBM model, or damaged ({type(error).__name__}: {str(error)[:80]}); restore "
            "the file, or save the model again"
        ) from error


def _described(content: bytes) -> TextFile:
    first = content.index(b"\nTree=0\n", 0, _HEADER_BYTES) + 1
    head = _pairs(content[:first])
    features = int(head["max_feature_idx"]) + 1
    sizes = [int(size) for size in head["tree_sizes"].split()]
    per_round, classes = int(head["num_tree_per_iteration"]), int(head["num_class"])
    objective, *options = head.get("objective", "").split(" ")
    said = [each for each in options if each.startswith("num_class:")]
    if per_round != classes or said not in ([], [f"num_class:{classes}"]):
        raise ValueError(f"{classes} classes, and another number of trees in a round")
    if min(sizes) <= 0 or per_round < 1 or len(sizes) % per_round or features < 1:
        raise ValueError(f"{len(sizes)} trees of {per_round} a round and {features} features")
    ends = np.cumsum([first, *sizes]).tolist()
    if content[ends[-1] : ends[-1] + len(_END)] != _END:
        raise ValueError("its trees do not end where they are declared to")
    for place, (start, end) in enumerate(pairwise(ends)):
        _check_tree(place, content[start:end], features)
    rest = content[ends[-1] :]
    _check_parameters(rest)
    places, tables = _categories(rest, features)
    names = head["feature_names"].split(" ")
    if len(names) != features or len({*names}) < features:
        raise ValueError(f"{len(names)} names of {features} features")
    return TextFile(
        version=(int(head["version"].removeprefix("v")),),
        columns=_columns(names, places, tables),
        features=features,
        categorical=places,
        objective=objective,
        classes=classes,
        trees=len(sizes),
        rounds=len(sizes) // per_round,
    )


def _check_parameters(rest: bytes) -> None:
    """Requires what the library takes apart at colons, without a look, to have them."""
    _, is_there, text = rest.partition(b"\nparameters:")
    said, has_end, _ = text.partition(b"\nend of parameters")
    wrong = [each for each in said.split(b"\n") if not _PARAMETER.fullmatch(each)]
    if is_there and (wrong or not has_end):
        shown = wrong[0][:40].decode(errors="replace") if wrong else "without an end"
        raise ValueError(f"a line of its parameters is {shown!r}")


def _pairs(text: bytes) -> dict[str, str]:
    """Returns the values of lines such as `num_leaves=7`, each of another name."""
    found: dict[str, str] = {}
    for line in text.decode().split("\n"):
        name, _, value = line.rstrip("\r").partition("=")
        if name and name in found:
            raise ValueError(f"{name[:40]} is there twice")
        found[name] = value
    return found


def _columns(
    names: Sequence[str], places: Sequence[int], tables: Sequence[Any]
) -> tuple[FileColumn, ...]:
    if [*names] == [f"Column_{place}" for place in range(len(names))]:
        return ()
    known = dict(zip(places, tables, strict=True))
    return tuple(
        FileColumn(name, known.get(place), place in known) for place, name in enumerate(names)
    )


def _categories(rest: bytes, features: int) -> tuple[tuple[int, ...], list[Any]]:
    """Returns the places of columns that were of pandas' categories, and their tables.

    Other categorical columns held whole numbers, which are categories as they are.
    """
    last = rest.rindex(_TABLES) + len(_TABLES)
    tables = json.loads(rest[last:]) or []
    if not tables:
        return (), []
    found = _CATEGORICAL.search(rest)
    places = tuple(int(each) for each in (found[1] if found else b"").split(b",") if each)
    if len(places) != len(tables) or not all(0 <= place < features for place in places):
        raise ValueError(f"{len(tables)} category tables, and other columns hold categories")
    return places, [_table(each) for each in tables]


def _table(values: Sequence[Any]) -> Any:
    kinds = {type(each) for each in values}
    if kinds == {str}:
        return tuple(values)
    # Booleans and whole floats are the integers that a table holds for them.
    if kinds <= {bool, int, float} and all(each == each // 1 for each in values):
        return tuple(int(each) for each in values)
    shown = ", ".join(repr(each) for each in values[:3])
    raise ModelError(
        f"a column's categories are {shown}{', …' if len(values) > 3 else ''}; expected texts, "
        "whole numbers or booleans: train on such categories, as frame[column].astype(str)"
        ".astype('category') makes them"
    )


def _check_tree(place: int, content: bytes, features: int) -> None:
    """Raises ValueError for a tree that the library would follow out of its memory."""
    try:
        tree = _pairs(content)
        if tree["Tree"] != str(place):
            raise ValueError("it is another tree")
        if tree.get("is_linear", "0") != "0":
            raise ModelError(
                "LightGBM model of trees with linear leaves (linear_tree), which is not scored; "
                "train it without"
            )
        _check_nodes(tree, features)
    except ValueError as error:
        raise ValueError(f"tree {place}: {error}") from error


def _check_nodes(tree: Mapping[str, str], features: int) -> None:
    leaves = int(tree["num_leaves"])
    value_n = _numbers(tree, "leaf_value", float)
    if leaves < 1 or len(value_n) != leaves:
        raise ValueError("it has not as many values as leaves")
    if not np.isfinite(value_n).all():
        raise ValueError("a leaf's value is not finite")
    if leaves == 1:
        return
    _check_sizes(tree, leaves)
    keys = ("split_feature", "left_child", "right_child", "decision_type")
    column_n, left_n, right_n, kind_n = (_numbers(tree, key, int) for key in keys)
    threshold_n = _numbers(tree, "threshold", float)
    if {len(each) for each in (column_n, left_n, right_n, kind_n, threshold_n)} != {leaves - 1}:
        raise ValueError(f"it has not {leaves - 1} splits")
    if not np.isfinite(threshold_n).all():
        raise ValueError("a split's threshold is not finite")
    if ((column_n < 0) | (column_n >= features)).any():
        raise ValueError(f"a split is on a feature beyond {features}")
    # Each node but the first, and each leaf, is the child of one node: no path is endless.
    children = np.sort(np.concatenate([left_n, right_n]))
    if not np.array_equal(children, [*range(-leaves, 0), *range(1, leaves - 1)]):
        raise ValueError("a child is no node, or has two parents")
    _check_sets(tree, threshold_n[(kind_n & _IS_CATEGORICAL) != 0])


def _check_sizes(tree: Mapping[str, str], leaves: int) -> None:
    for keys, size in ((_OF_NODES, leaves - 1), (_OF_LEAVES, leaves)):
        for key in keys:
            if tree.get(key) and len(_numbers(tree, key, float)) != size:
                raise ValueError(f"{key} has not {size} numbers")


def _check_sets(tree: Mapping[str, str], used: Array) -> None:
    """Requires each split by categories to have a set of them, within the tree's arrays."""
    count = int(tree.get("num_cat", "0"))
    if not count and not len(used):
        return
    ends, words = _numbers(tree, "cat_boundaries", int), _numbers(tree, "cat_threshold", int)
    if len(ends) != count + 1 or ends[0] != 0 or (np.diff(ends) < 0).any():
        raise ValueError("its sets of categories have no bounds")
    if ends[-1] != len(words) or not ((used >= 0) & (used < count)).all():
        raise ValueError("a split is by a set of categories that is not there")


def _numbers(tree: Mapping[str, str], key: str, kind: type) -> Array:
    # Python takes more for a number than the library does, such as 1_0; and no file holds NaN.
    if not _NUMBERS.fullmatch(tree[key]):
        raise ValueError(f"{key} holds no numbers")
    return np.array([kind(each) for each in tree[key].split(" ") if each], kind)
