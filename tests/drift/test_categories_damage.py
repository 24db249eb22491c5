"""Tests that stored categories are restored only where they are whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.drift.accumulator import Part
from batchscore.drift.categorical import EXACT
from batchscore.drift.categories import FOLDS, Categories
from tests.drift.test_categories import hash_of, taken, texts

Parts = dict[str, Part]


def _swap(part: Part) -> Part:
    return replace(part, key_r=part.key_r[::-1].copy())


def _zero(part: Part) -> Part:
    counts_r = part.count_r.copy()
    counts_r[0] = 0
    return replace(part, count_r=counts_r)


def _huge(part: Part) -> Part:
    return replace(part, count_r=np.full_like(part.count_r, 2**62))


def _short(part: Part) -> Part:
    return replace(part, key_r=part.key_r[:-1])


def _shifted(part: Part) -> Part:
    return replace(part, shift_r=np.ones(part.key_r.size, np.uint8))


def _worded(part: Part) -> Part:
    return replace(part, value_r=(b"x",))


@pytest.mark.parametrize("name", ["values", "folds", "sample", "labels"])
@pytest.mark.parametrize("damage", [_swap, _zero, _huge, _short, _shifted, _worded])
def test_a_damaged_part_is_refused(name: str, damage: Callable[[Part], Part]) -> None:
    """Keys that do not ascend, counts below 1 or beyond all tables, and misfits are refused."""
    original = taken("string", texts(range(300 if name == "values" else 5000)))
    if name == "labels":
        original = taken("string", texts([1, 2, 2]))
    parts = original.parts()
    parts[name] = damage(parts[name])
    with pytest.raises(ValueError, match=name):
        Categories.restore("string", original.scalars(), parts)


def _without(name: str) -> Callable[[Parts], Parts]:
    return lambda parts: {key: part for key, part in parts.items() if key != name}


def _next_to(parts: Parts) -> Parts:
    return {**parts, "values": parts["sample"]}


def _unknown(parts: Parts) -> Parts:
    return {**parts, "buckets": parts["sample"]}


def _smaller_sample(parts: Parts) -> Parts:
    sample = parts["sample"]
    return {**parts, "sample": Part(sample.key_r[:-1], sample.count_r[:-1])}


def _no_such_fold(parts: Parts) -> Parts:
    return {**parts, "folds": replace(parts["folds"], key_r=parts["folds"].key_r + np.uint64(2048))}


def _fuller_sample(parts: Parts) -> Parts:
    counts_r = parts["sample"].count_r.copy()
    counts_r[0] += 100
    return {**parts, "sample": replace(parts["sample"], count_r=counts_r)}


def _emptier_folds(parts: Parts) -> Parts:
    sample = parts["sample"]
    folds_k, counts_k = np.unique(sample.key_r % np.uint64(FOLDS), return_counts=True)
    return {**parts, "folds": Part(folds_k, counts_k)}


@pytest.mark.parametrize(
    "damage",
    [
        _without("folds"),
        _without("sample"),
        _next_to,
        _unknown,
        _smaller_sample,
        _no_such_fold,
        _fuller_sample,
        _emptier_folds,
    ],
)
def test_folds_that_do_not_fit_their_sample_are_refused(damage: Callable[[Parts], Parts]) -> None:
    """Folds need a whole sample that they hold, and more values beyond it."""
    original = taken("string", texts(range(5000)))
    with pytest.raises(ValueError, match=r"fold|sample|parts"):
        Categories.restore("string", original.scalars(), damage(original.parts()))


def test_too_many_values_are_refused() -> None:
    """More values than are counted exactly cannot have been stored."""
    keys_v = np.arange(EXACT + 1, dtype=np.uint64)
    parts = {"values": Part(keys_v, np.ones(EXACT + 1, np.int64))}
    with pytest.raises(ValueError, match="up to 4096"):
        Categories.restore("string", {"low": "61", "high": "62"}, parts)


@pytest.mark.parametrize(
    "scalars",
    [
        {},
        {"low": "61"},
        {"low": "62", "high": "61"},
        {"low": "6", "high": "61"},
        {"low": 61, "high": 62},
        {"low": "61", "high": "62" * 65},
        {"low": "61", "high": "62", "more": 1},
    ],
)
def test_damaged_ends_are_refused(scalars: dict[str, Any]) -> None:
    """Ends that are missing, no hexadecimal digits, too long or out of order are refused."""
    original = taken("string", pa.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"."):
        Categories.restore("string", scalars, original.parts())
    with pytest.raises(ValueError, match="no values"):
        Categories.restore("string", original.scalars(), {})


def test_ends_of_integers_must_be_numbers() -> None:
    """The smallest and largest integer are decimal numbers, in their order."""
    original = taken("int64", pa.array([9, 10]))
    assert original.scalars() == {"low": b"9".hex(), "high": b"10".hex()}
    Categories.restore("int64", original.scalars(), original.parts())
    with pytest.raises(ValueError, match="invalid literal"):
        Categories.restore("int64", {"low": "61", "high": "61"}, original.parts())


@pytest.mark.parametrize(
    "labels",
    [
        Part(np.array([1], np.uint64), np.array([1]), value_r=(b"x",)),
        Part(np.array([hash_of(b"a")], np.uint64), np.array([9]), value_r=(b"a",)),
        Part(np.array([hash_of(b"a")], np.uint64), np.array([1]), value_r=(b"a" * 65,)),
        Part(np.arange(257, dtype=np.uint64), np.ones(257, np.int64), value_r=(b"a",) * 257),
    ],
    ids=["not there", "too many", "too long", "too many labels"],
)
def test_labels_that_do_not_fit_are_refused(labels: Part) -> None:
    """Labels belong to values that are there, are short, few, and count no more than there is."""
    original = taken("string", pa.array(["a", "b"]))
    with pytest.raises(ValueError, match="label"):
        Categories.restore("string", original.scalars(), {**original.parts(), "labels": labels})
