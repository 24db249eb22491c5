"""Test how aspects are compared, and what is said where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.columnar.hashing import hash_bytes
from batchscore.drift.categories import FOLDS
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import AspectDrift, Measure, Rules, TableDrift, Thresholds
from batchscore.drift.frequent import Frequent
from batchscore.drift.table import TableProfile


def compared(reference: Any, current: Any, rules: Rules | None = None) -> TableDrift:
    """Return how two columns `x` differ."""
    sides = TableProfile.empty(), TableProfile.empty()
    for side, array in zip(sides, (reference, current), strict=True):
        array = array if isinstance(array, pa.Array) else pa.array(array)
        side.update(pa.RecordBatch.from_arrays([array], ["x"]))
    return compare_profiles(*sides, rules or Rules())


def aspect(drift: TableDrift, name: str) -> AspectDrift:
    """Return one aspect of the findings."""
    return next(each for each in drift.aspects if each.aspect == name)


def measure(drift: TableDrift, name: str, of: str = "value") -> Measure:
    """Return one measure of the findings."""
    return next(each for each in aspect(drift, of).measures if each.name == name)


def with_infinities(shift: float, seed: int, ends: list[float]) -> np.ndarray[Any, Any]:
    """Return 20,000 normal numbers of which 1 % are `ends`, if any."""
    values = np.random.default_rng(seed).normal(shift, 1, 20_000)
    if ends:
        values[:200] = np.resize(ends, 200)
    return values


@pytest.mark.parametrize("ends", [[np.inf], [-np.inf], [np.inf, -np.inf]], ids=str)
@pytest.mark.parametrize(("shift", "outcome"), [(0.0, "ok"), (0.2, "warn"), (0.3, "fail")])
def test_infinite_values_do_not_hide_a_shift(shift: float, outcome: str, ends: list[float]) -> None:
    """With 1 % of infinite values on both sides W1 is what it is without."""
    plain, mixed = (
        measure(compared(with_infinities(0, 1, each), with_infinities(shift, 2, each)), "w1")
        for each in ([], ends)
    )
    assert (plain.outcome, mixed.outcome) == (outcome, outcome)
    assert mixed.value == pytest.approx(plain.value, abs=0.02)
    assert mixed.floor == pytest.approx(plain.floor, rel=0.1)


@pytest.mark.parametrize(
    ("reference", "current", "outcome"),
    [
        ([0.0] * 998 + [1.0, 2.0], [0.0] * 900 + [1.0] * 100, "undecided"),
        ([np.inf] * 500, [1.0, 2.0] * 250, "undecided"),
        ([np.inf] * 499 + [1.0], [np.inf] * 499 + [1.0], "undecided"),
        ([5.0] * 500, [5.0] * 400, "shown"),
        ([0.0] * 999 + [1.0], [0.0] * 900 + [1.0] * 100, "shown"),
        ([np.inf] * 500, [np.inf] * 400, "shown"),
    ],
)
def test_a_distance_without_a_spread_is_undecided(
    reference: list[float], current: list[float], outcome: str
) -> None:
    """Where values vary, but not the reference's clipped ones, W1 does not vanish."""
    found = measure(compared(reference, current), "w1")
    assert (found.value, found.outcome) == (None, outcome)
    assert ("no spread" in found.detail) == (len({*reference, *current}) > 1)


def lists(seed: int, items: int = 5) -> pa.Array:
    """Return 200 lists, each of 50 times the same item."""
    each = np.random.default_rng(seed).integers(0, items, 200)
    return pa.array([[f"item {item}"] * 50 for item in each])


@pytest.mark.parametrize("seed", range(10))
def test_items_that_depend_on_each_other_do_not_alarm(seed: int) -> None:
    """200 lists of 50 equal items are as much as 200 items, and no drift, as another draw shows."""
    drift = compared(lists(seed), lists(seed + 100))
    assert (drift.verdict, aspect(drift, "items").verdict) == ("ok", "ok")
    assert {each.outcome for each in aspect(drift, "items").measures} == {"shown"}
    assert "depend on each other" in aspect(drift, "items").note
    assert drift.comparisons == 4  # null rate, and of the length PSI, KS and tail


def test_items_are_judged_by_thresholds_of_the_column() -> None:
    """What a column's own thresholds ask for is judged; those of all columns do not count."""
    strict = {"category": Thresholds(0.05, 0.1)}
    sides = lists(1), lists(2, items=2)
    assert compared(*sides, Rules(thresholds=strict)).verdict == "ok"
    drift = compared(*sides, Rules(column_thresholds={"x": strict}))
    assert measure(drift, "category", "items").outcome == "fail"
    assert "depend" not in aspect(drift, "items").note
    assert measure(drift, "psi", "items").outcome == "shown"
    nulls = Rules(column_thresholds={"x": {"null_rate": Thresholds(0.1, 0.2)}})
    assert "depend" in aspect(compared(*sides, nulls), "items").note


def test_a_fold_is_named_by_its_most_frequent_value() -> None:
    """Beyond 4,096 distinct values the change that fails names a value, not a fold's number."""
    distinct = [f"user {i}" for i in range(6000)]
    folds = hash_bytes(pa.array(["x", *distinct], pa.large_binary())) % FOLDS
    others = [distinct[i] for i in np.flatnonzero(folds[1:] == folds[0])]
    assert others
    distinct += others * 100
    for sides in (
        (distinct, [*distinct, *["x"] * 3000]),
        ([*distinct, *["x"] * 3000], distinct),
    ):
        found = measure(compared(*sides), "category")
        assert found.outcome == "fail"
        assert found.detail.startswith("'x' and others of its fold: ")


def test_a_fold_without_a_label_has_its_number() -> None:
    """Where no value of a fold is known by its text, the fold's number stands for it."""
    distinct = [f"user {i}" for i in range(6000)]
    sides = TableProfile.empty(), TableProfile.empty()
    for side, more in zip(sides, ([], ["x"] * 3000), strict=True):
        side.update(pa.record_batch({"x": [*distinct, *more]}))
        side.columns["x"].aspects["value"]._frequent = Frequent()
    found = measure(compare_profiles(*sides, Rules()), "category")
    assert found.detail.startswith("values of fold ")


@pytest.mark.parametrize(
    ("array", "main"),
    [
        (pa.array([{"a": 1}] * 50), "nulls"),
        (pa.array([[("a", 1)]] * 50, pa.map_(pa.string(), pa.int64())), "nulls"),
        (pa.array([[[1]]] * 50), "length"),
        (pa.array([[{"a": 1}]] * 50), "length"),
    ],
    ids=lambda each: str(each.type) if isinstance(each, pa.Array) else each,
)
def test_values_that_are_not_looked_at_are_noted(array: pa.Array, main: str) -> None:
    """A column of which only nulls or lengths are known says so."""
    (found,) = compared(array, array).aspects
    assert (found.aspect, found.note) == (main, "values are not looked at")
    for other in (pa.array([[1]] * 50), pa.nulls(50)):
        assert "looked at" not in "".join(each.note for each in compared(other, other).aspects)


def test_a_column_without_a_type_is_compared_by_its_nulls() -> None:
    """Only nulls, as pandas writes them, have no type that a cast could fix."""
    none, some = pa.nulls(500), pa.array([*["a"] * 5, *[None] * 495])
    for sides in ((none, some), (some, none)):
        (found,) = compared(*sides).aspects
        assert (found.aspect, found.verdict) == ("value", "ok")
        assert [each.name for each in found.measures] == ["null_rate"]
        was, is_ = (str(each.type) for each in sides)
        assert found.note == (
            f"the type was {was} and is {is_}; "
            "a column of type null has no values, so only the null rate is compared"
        )
    full = pa.array(["a"] * 500)
    assert compared(none, full).verdict == compared(full, none).verdict == "fail"


def test_times_of_one_unit_are_compared_with_and_without_a_zone() -> None:
    """A zone that came or went changes no value that is stored."""
    own = Rules(column_thresholds={"x": {"ks": Thresholds(0.1, 0.2)}})
    naive, zoned = (pa.array(range(500), pa.timestamp("us", zone)) for zone in (None, "UTC"))
    drift = compared(naive, zoned, own)
    assert (drift.verdict, measure(drift, "ks").value) == ("ok", 0)
    assert aspect(drift, "value").note == (
        "the type was timestamp[us] and is timestamp[us, tz=UTC]"
    )
