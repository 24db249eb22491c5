"""Tests of what is read of an XGBoost file without XGBoost."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError
from batchscore.models.backends.xgboost.model_file import read_model_file
from batchscore.models.backends.xgboost.ubj import read_ubj
from tests.boosters import CODES, COLOURS, COLUMNS, damaged

VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def write_ubj(value: Any) -> bytes:
    """Spells a value as the format's own specification does, with 64-bit integers alone."""
    if value is None or isinstance(value, bool):
        return {None: b"Z", True: b"T", False: b"F"}[value]
    if isinstance(value, int):
        return b"L" + struct.pack(">q", value)
    if isinstance(value, str):
        return b"S" + _named(value)
    if isinstance(value, list):
        return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(write_ubj, value))
    pairs = (_named(name) + write_ubj(each) for name, each in value.items())
    return b"{" + b"".join(pairs) + b"}"


def _named(text: str) -> bytes:
    return b"L" + struct.pack(">q", len(text.encode())) + text.encode()


@given(VALUES)
def test_values_survive_their_ubj(value: Any) -> None:
    """What is written as the specification says is read as the same value."""
    assert read_ubj(write_ubj(value)) == value


@given(st.binary(max_size=200), st.sampled_from([b"", b"{L", b"[$L#L", b"[[[["]))
def test_bytes_of_anybody_are_a_value_or_a_message(content: bytes, start: bytes) -> None:
    """No bytes lead to another error, a hang, or memory beyond the file's size."""
    with suppress(ModelError):
        read_ubj(start + content)


def test_an_array_of_gigabytes_takes_no_memory() -> None:
    """A length beyond the file is an error before anything is allocated."""
    with pytest.raises(ModelError, match="it ends too early"):
        read_ubj(b"[$L#L" + struct.pack(">q", 1 << 60))


@pytest.mark.parametrize("ending", ["ubj", "json"])
def test_a_file_says_what_the_model_reads(ending: str, xgboost_models: Path) -> None:
    """Names, order, category tables, objective, rounds and version are those of training."""
    found = read_model_file((xgboost_models / f"binary.{ending}").read_bytes())
    assert [each.name for each in found.columns] == COLUMNS
    tables = {each.name: each.categories for each in found.columns if each.is_category}
    assert tables == {"colour": tuple(COLOURS), "code": tuple(CODES)}
    best, rounds = np.load(xgboost_models / "scores.npz")["rounds"]
    assert best < rounds
    assert (found.best_round, found.rounds) == (best - 1, rounds)
    assert (found.objective, found.classes, found.features) == ("binary:logistic", 0, 5)
    assert len(found.version) == 3
    assert read_model_file((xgboost_models / f"many.{ending}").read_bytes()).classes == 3


def _spoilt(document: Any, key: str, value: int) -> bytes:
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    tree[key][0] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("left_children", 10**6, "a child is no node"),
        ("left_children", 0, "a child is no node"),
        ("right_children", 3, "has another parent|has two parents"),
        ("split_indices", 5, "a split is on a feature beyond 5"),
        ("split_indices", -1, "a split is on a feature beyond 5"),
        ("parents", 1, "the root has a parent"),
    ],
)
def test_trees_that_lead_out_of_memory_are_refused(
    key: str, value: int, message: str, xgboost_models: Path
) -> None:
    """The message names the tree, before the library sees the file."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    with pytest.raises(ModelError, match=f"tree 0: .*({message})"):
        read_model_file(_spoilt(document, key, value))


def test_leaves_are_finite_and_counted_for_each_node(xgboost_models: Path) -> None:
    """What explains scores has a number for each node, and no score is NaN by its file."""
    for key, value, message in (
        ("split_conditions", [float("nan")], "a leaf's value is not finite"),
        ("sum_hessian", [], "entries for"),
    ):
        document = json.loads((xgboost_models / "binary.json").read_bytes())
        tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
        tree[key] = tree[key][:-1] + value
        with pytest.raises(ModelError, match=f"tree 0: .*{message}"):
            read_model_file(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tree_info", [9], "a tree adds to an output beyond 1"),
        ("tree_info", [], "a tree adds to an output beyond 1"),
        ("iteration_indptr", [0, 10**6], "its rounds do not hold its trees"),
        ("iteration_indptr", [0, -5], "its rounds do not hold its trees"),
    ],
)
def test_trees_that_lead_out_of_the_outputs_are_refused(
    key: str, value: list[int], message: str, xgboost_models: Path
) -> None:
    """The library would add their leaves to memory that is not the output's."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    model = document["learner"]["gradient_booster"]["model"]
    model[key] = value + model[key][len(value) :] if key == "tree_info" and value else value
    with pytest.raises(ModelError, match=message):
        read_model_file(json.dumps(document).encode())


def test_sets_of_categories_stay_within_their_array(xgboost_models: Path) -> None:
    """Start and size are each in range, and lead out of it together."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    place, tree = next((n, each) for n, each in enumerate(trees) if each["categories"])
    tree["categories_segments"][-1] = len(tree["categories"])
    with pytest.raises(ModelError, match=f"tree {place}: its sets of categories are out of range"):
        read_model_file(json.dumps(document).encode())


@pytest.mark.parametrize("values", [[2, 1], [-5, 1], [1, 1], [0, 2**30]], ids=str)
def test_sets_of_categories_are_in_order(values: list[int], xgboost_models: Path) -> None:
    """The library sizes a set by its last category, and crashes where an earlier one is larger."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    tree = next(each for each in trees if each["categories"])
    tree["categories"] = values
    tree["categories_nodes"], tree["categories_segments"] = tree["categories_nodes"][:1], [0]
    tree["categories_sizes"] = [2]
    with pytest.raises(ModelError, match="a set of categories is not in order"):
        read_model_file(json.dumps(document).encode())


def test_letters_beyond_ascii_leave_a_category_table_unknown(xgboost_models: Path) -> None:
    """XGBoost counts letters for bytes, so such a table may be cut at wrong places."""
    document = json.loads((xgboost_models / "binary.json").read_bytes())
    (table,) = (
        each
        for each in document["learner"]["gradient_booster"]["model"]["cats"]["enc"]
        if each.get("offsets")
    )
    # What XGBoost 3.2 writes for blue, grün and red of a pandas frame.
    table["offsets"] = [0, 4, 8, 11]
    table["values"] = [98, 108, 117, 101, 103, 114, -61, -68, 110, 114, 101]
    found = read_model_file(json.dumps(document).encode())
    assert {each.name: each.categories for each in found.columns}["colour"] is None


def test_json_of_many_values_is_refused_before_it_is_parsed() -> None:
    """Each of three bytes would take seventy as a value of Python."""
    content = b'{"a": [' + b"{}," * (5 << 20) + b"{}]}"
    with pytest.raises(ModelError, match=r"more values than are read; save the model as .ubj"):
        read_model_file(content)


def test_a_key_is_not_there_twice() -> None:
    """The library may take another one than what was checked."""
    with pytest.raises(ModelError, match="an object has a key twice"):
        read_model_file(b'{"learner": {}, "learner": {}}')


def test_other_files_are_refused_by_what_they_begin_with(xgboost_models: Path) -> None:
    """A pickle, a text, and JSON of something else each end in one message."""
    for content in (b"\x80\x04\x95", b"", b"tree\nversion=v4", b'{"a": 1}', b"[1]", b"{" * 10**5):
        with pytest.raises(ModelError, match=r"no XGBoost model"):
            read_model_file(content)


@pytest.mark.parametrize("ending", ["ubj", "json"])
def test_damaged_files_are_read_or_refused(ending: str, xgboost_models: Path) -> None:
    """Each file that is cut, or has other bytes, ends in a value or in a ModelError."""
    content = (xgboost_models / f"binary.{ending}").read_bytes()
    refused = 0
    for each in damaged(content, 40):
        try:
            read_model_file(each)
        except ModelError:
            refused += 1
    assert refused >= 10
