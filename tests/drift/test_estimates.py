"""Test columns of many values: what is estimated says so, and identifiers are not compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.drift.categorical import align_categories, pool_rare, seen_share
from batchscore.drift.compare import compare_profiles
from batchscore.drift.divergences import psi, total_variation
from batchscore.drift.findings import Measure, Rules, TableDrift, Thresholds
from batchscore.drift.table import TableProfile

NOTE = "an identifier: values are not compared"


def profiled(values: Any) -> TableProfile:
    """Returns the profile of a column `x`."""
    made = TableProfile.empty()
    made.update(pa.record_batch({"x": values}))
    return made


def compared(before: Any, now: Any, rules: Rules | None = None) -> TableDrift:
    """Returns the comparison of two columns."""
    return compare_profiles(profiled(before), profiled(now), rules or Rules())


def measure(drift: TableDrift, name: str) -> Measure:
    """Returns a measure of the values."""
    return next(
        m for a in drift.aspects if a.aspect == "value" for m in a.measures if m.name == name
    )


def note(drift: TableDrift) -> str:
    """Returns the note of the values."""
    return next(each.note for each in drift.aspects if each.aspect == "value")


def codes(random: np.random.Generator, rows: int, distinct: int) -> Any:
    """Returns texts of so many values, each about as frequent."""
    return np.array([f"code {i}" for i in random.integers(0, distinct, rows)])


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([f"user {i}" for i in range(9_000)], [f"user {i}" for i in range(9_000, 15_000)]),
        ([f"user {i}" for i in range(500)], [f"user {i}" for i in range(600, 1_100)]),
        (np.arange(9_000), np.arange(9_000, 20_000)),
        (np.arange(9_000)[::-1].astype("u8"), np.arange(1, 9_000, dtype="u8")),
    ],
)
def test_identifiers_are_recognised(before: Any, now: Any) -> None:
    """A column of which each row has its own value is said to be one, and does not alarm."""
    drift = compared(before, now)
    assert NOTE in note(drift)
    assert {m.name for a in drift.aspects if a.aspect == "value" for m in a.measures} == {
        "null_rate"
    }


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=9_000),
        np.random.default_rng(1).integers(0, 9_000, 9_000),
        [f"user {i // 2}" for i in range(9_000)],
        [f"user {i}" for i in range(6_000)] + ["x"] * 3_000,
        [f"user {i}" for i in range(50)],
    ],
)
def test_other_columns_are_compared(values: Any) -> None:
    """Numbers, values that repeat, one frequent value among many, and few rows are compared."""
    assert NOTE not in note(compared(values, values))


def test_thresholds_of_the_column_compare_identifiers() -> None:
    """Who wants an identifier judged says so for the column."""
    rules = Rules(column_thresholds={"x": {"w1": Thresholds(0.1, 0.25)}})
    assert compared(np.arange(9_000), np.arange(9_000) + 9_000, rules).verdict == "fail"


def test_an_estimate_is_named_with_its_bounds() -> None:
    """The share of new values of a sample is an estimate, and the truth lies between its bounds."""
    random = np.random.default_rng(3)
    before = codes(random, 60_000, 20_000)
    now = codes(random, 60_000, 20_000)
    now[:6_000] = [f"new {i % 2_000}" for i in range(6_000)]
    found = measure(compared(before, now), "unseen")
    assert found.estimate
    assert found.low is not None
    assert found.high is not None
    seen = {*before.tolist()}
    counts = dict(zip(*np.unique(before, return_counts=True), strict=True))
    truth = np.mean([each not in seen for each in now.tolist()])
    expected = sum(count == 1 for count in counts.values()) / len(before)
    assert found.low <= truth - expected <= found.high
    assert "an estimate from" in found.detail


def test_distances_of_folds_have_bounds_that_hold_the_truth() -> None:
    """Folds hide changes between values of one fold, so what is shown is the least."""
    random = np.random.default_rng(4)
    weights = random.gamma(0.5, size=8_000)
    before = random.choice(8_000, 80_000, p=weights / weights.sum())
    weights *= np.exp(random.normal(0, 0.8, 8_000))
    now = random.choice(8_000, 80_000, p=weights / weights.sum())
    drift = compared(before.astype(str), now.astype(str))
    found, shown = measure(drift, "psi"), measure(drift, "total_variation")
    shares = [np.bincount(each, minlength=8_000) for each in (before, now)]
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.high
    assert found.detail.startswith("between ")
    assert "values share 4,096 folds" in found.detail
    truth = psi(*pool_rare(*shares))
    assert truth is not None
    assert found.low <= truth <= 1.15 * found.high  # the upper bound is an approximation
    assert shown.value is not None
    assert shown.value < total_variation(*shares)


@pytest.mark.parametrize(
    ("rows", "verdict"), [(30_000, "insufficient_resolution"), (600_000, "ok")]
)
def test_an_estimate_that_could_not_have_seen_a_failure_is_not_ok(rows: int, verdict: str) -> None:
    """Too few rows of too many values say that they are too coarse, and enough are ok."""
    random = np.random.default_rng(5)
    drift = compared(*(codes(random, rows, 20_000) for _ in range(2)))
    assert drift.verdict == verdict


def test_few_values_see_everything() -> None:
    """Where each value has its count nothing is an estimate."""
    random = np.random.default_rng(6)
    before, now = (profiled(codes(random, 9_000, 300)) for _ in range(2))
    first, second = (side.columns["x"].aspects["value"] for side in (before, now))
    assert seen_share(align_categories(first, second)) == 1.0
    found = compare_profiles(before, now, Rules())
    assert not any(m.estimate or m.low is not None for m in found.aspects[0].measures)
