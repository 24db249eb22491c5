"""Tests of what is read of a LightGBM file without LightGBM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import ModelError
from batchscore.models.backends.lightgbm.text_file import read_text_file
from tests.boosters import CODES, COLOURS, COLUMNS, damaged


def test_a_file_says_what_the_model_reads(lightgbm_models: Path) -> None:
    """Names, order, category tables, objective and rounds are those of training."""
    found = read_text_file((lightgbm_models / "binary.txt").read_bytes())
    assert [each.name for each in found.columns] == COLUMNS
    tables = {each.name: each.categories for each in found.columns if each.is_category}
    assert tables == {"colour": tuple(COLOURS), "code": tuple(CODES)}
    assert (found.objective, found.classes, found.rounds) == ("binary", 1, 30)
    many = read_text_file((lightgbm_models / "many.txt").read_bytes())
    assert (many.classes, many.rounds) == (3, 30)


def _spoilt(content: str, key: str, value: str) -> bytes:
    """Returns a file whose first tree has another first number, in as many bytes."""
    place = content.index("Tree=0")
    found = re.compile(rf"^{key}=(\S+)", re.MULTILINE).search(content, place)
    assert found is not None
    text = value.ljust(len(found[1])) if len(value) < len(found[1]) else value
    sizes = content.replace(found[0], f"{key}={text}", 1)
    grown = len(text) - len(found[1])
    first = re.search(r"^tree_sizes=(\d+)", content, re.MULTILINE)
    assert first is not None
    return sizes.replace(first[0], f"tree_sizes={int(first[1]) + grown}", 1).encode()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split_feature", "5", "a split is on a feature beyond 5"),
        ("split_feature", "-1", "a split is on a feature beyond 5"),
        ("left_child", "999", "a child is no node"),
        ("left_child", "0", "a child is no node"),
        ("right_child", "-99", "a child is no node"),
        ("num_leaves", "99", "not as many values as leaves"),
        ("left_child", "1_0", "left_child holds no numbers"),
        ("leaf_value", "nan", "leaf_value holds no numbers"),
        ("leaf_value", "-1e999", "a leaf's value is not finite"),
        ("threshold", "inf", "threshold holds no numbers"),
        ("threshold", "1e999", "a split's threshold is not finite"),
        ("threshold", "1e", "could not convert string to float"),
        ("internal_count", "3 3", "internal_count has not"),
        ("leaf_count", "3 3", "leaf_count has not"),
        ("right_child", "1\nright_child=1", "right_child is there twice"),
    ],
)
def test_trees_that_lead_out_of_memory_are_refused(
    key: str, value: str, message: str, lightgbm_models: Path
) -> None:
    """The message names the tree, before the library sees the file."""
    content = (lightgbm_models / "binary.txt").read_text()
    with pytest.raises(ModelError, match=f"tree 0: .*{message}"):
        read_text_file(_spoilt(content, key, value))


@pytest.mark.parametrize(
    ("table", "expected"),
    [("[false, true]", (0, 1)), ("[3.0, 7.0]", (3, 7)), ('["x", "y"]', ("x", "y"))],
)
def test_booleans_and_whole_floats_are_integers(
    table: str, expected: tuple[Any, ...], lightgbm_models: Path
) -> None:
    """So a column of booleans is a category as pandas has it."""
    content = (lightgbm_models / "binary.txt").read_text()
    found = read_text_file(content.replace("[3, 7, 11]", table).encode())
    assert next(each for each in found.columns if each.name == "code").categories == expected


@pytest.mark.parametrize("table", ["[0.5, 1.0]", '["x", 1]', "[null, 1]", "[NaN, 1.0]"])
def test_other_categories_are_refused_with_a_remedy(table: str, lightgbm_models: Path) -> None:
    """Fractions and mixtures are named, and what to train on."""
    content = (lightgbm_models / "binary.txt").read_text()
    with pytest.raises(ModelError, match=r"a column's categories are .*train on such categories"):
        read_text_file(content.replace("[3, 7, 11]", table).encode())


def test_linear_leaves_are_refused_by_name(lightgbm_models: Path) -> None:
    """Such a file is in order, so the message says what to train."""
    content = (lightgbm_models / "binary.txt").read_text()
    with pytest.raises(ModelError, match=r"linear leaves \(linear_tree\).*train it without"):
        read_text_file(_spoilt(content, "is_linear", "1"))


@pytest.mark.parametrize(
    ("old", "new"),
    [("num_class=3", "num_class=1"), ("num_class:3", "num_class:9")],
)
def test_classes_are_as_many_as_trees_of_a_round(old: str, new: str, lightgbm_models: Path) -> None:
    """The library would write outputs beyond those that it was given."""
    content = (lightgbm_models / "many.txt").read_text()
    with pytest.raises(ModelError, match="classes, and another number of trees in a round"):
        read_text_file(content.replace(old, new, 1).encode())


def test_a_file_that_is_cut_anywhere_is_refused(lightgbm_models: Path) -> None:
    """The library itself reads beyond its memory there."""
    content = (lightgbm_models / "counts.txt").read_bytes()
    end = content.index(b"pandas_categorical")
    for size in range(0, end, 997):
        with pytest.raises(ModelError, match="no LightGBM model"):
            read_text_file(content[:size])


@pytest.mark.parametrize("spoilt", [b"[alph: 0.9", b"[alpha 0.9]", b"[alph0.9]", b"alpha: 0.9"])
def test_parameters_that_the_library_reads_past_are_refused(
    spoilt: bytes, lightgbm_models: Path
) -> None:
    """It takes each line apart at a colon that it does not look for."""
    content = (lightgbm_models / "counts.txt").read_bytes()
    assert content.count(b"[alpha: 0.9]") == 1
    with pytest.raises(ModelError, match="a line of its parameters is"):
        read_text_file(content.replace(b"[alpha: 0.9]", spoilt))


def test_damaged_files_are_read_or_refused(lightgbm_models: Path) -> None:
    """Each file that is cut, or has other bytes, ends in a value or in a ModelError."""
    refused = 0
    for each in damaged((lightgbm_models / "counts.txt").read_bytes(), 40):
        try:
            read_text_file(each)
        except ModelError:
            refused += 1
    assert refused >= 10
