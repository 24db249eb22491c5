"""Test what lies beyond the reference, and how many different values there are."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Measure, Rules, TableDrift
from batchscore.drift.measures.of_ranges import all_current, rarefied
from batchscore.drift.table import TableProfile
from tests.drift.planted import planted

ROWS = 20_000


def compared(before: Any, now: Any, **hints: Any) -> TableDrift:
    """Returns the comparison of two columns, called `x`."""
    sides = []
    for values in (before, now):
        side = TableProfile(hints=hints)
        side.update(pa.record_batch([pa.array(values)], names=["x"]))
        sides.append(side)
    first, second = sides
    return compare_profiles(first, second, Rules())


def measure(drift: TableDrift, name: str) -> Measure:
    """Returns a measure of the values."""
    return next(
        m for a in drift.aspects if a.aspect == "value" for m in a.measures if m.name == name
    )


def readings(seed: int, rows: int = ROWS) -> Any:
    """Returns readings of a sensor."""
    return np.random.default_rng(seed).normal(50, 3, rows)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (4, 4), (2, 5)])
def test_the_chance_is_that_of_all_orders(n: int, m: int) -> None:
    """Of all orders of n and m values so many have k current ones on top."""
    orders = [*itertools.combinations(range(n + m), m)]
    for k in range(m + 1):
        top = {*range(n + m - k, n + m)}
        share = sum(top <= {*order} for order in orders) / len(orders)
        assert all_current(k, n, m) == pytest.approx(share)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any), st.data())
def test_rarefied_is_the_mean_of_all_draws(counts: list[int], data: st.DataObject) -> None:
    """Drawing so many of the rows in all ways gives this many different values on average."""
    values = [value for value, count in enumerate(counts) for _ in range(count)][:10]
    counts_b = np.bincount(values, minlength=len(counts))
    rows = data.draw(st.integers(1, len(values)))
    draws = [*itertools.combinations(values, rows)]
    expected = sum(len({*draw}) for draw in draws) / len(draws)
    assert rarefied(counts_b, rows) == pytest.approx(expected)


def spoiled(share: float, value: float) -> Any:
    """Returns readings of which a share is one value."""
    values = readings(2)
    values[: round(share * ROWS)] = value
    return values


@pytest.mark.parametrize(
    ("share", "value", "verdict", "about"),
    [
        (0.005, -999.0, "warn", "below 3"),
        (0.02, -999.0, "fail", "below 3"),
        (0.002, math.inf, "warn", "above 6"),
        (0.002, -0.5, "warn", "below 3"),
        (0.0004, -999.0, "ok", "below 3"),
    ],
)
def test_what_lies_beyond_is_found(share: float, value: float, verdict: str, about: str) -> None:
    """A sentinel in one row of two hundred, infinities and negatives warn; 1 % fails."""
    found = measure(compared(readings(1), spoiled(share, value)), "beyond")
    assert found.outcome == verdict
    assert found.value == pytest.approx(share, abs=0.0002)
    assert about in found.detail


def test_a_score_out_of_its_range_lies_beyond() -> None:
    """A probability above 1 does, though it is counted apart."""
    scores = np.random.default_rng(1).random(ROWS)
    found = measure(compared(scores, np.r_[scores[40:], [1.5] * 40], x="probability"), "beyond")
    assert (found.outcome, found.value) == ("warn", 0.002)


def test_a_heavy_tail_is_no_alarm() -> None:
    """Nights of a Cauchy distribution reach beyond each other by orders of magnitude."""
    random = np.random.default_rng(3)
    outcomes = [
        measure(compared(random.standard_cauchy(2_000), random.standard_cauchy(2_000)), "beyond")
        for _ in range(60)
    ]
    assert {each.outcome for each in outcomes} == {"ok"}


def test_a_sensor_that_rounds_is_found() -> None:
    """Of thousands of values some sixty are left, and the cause is named."""
    drift = compared(readings(1), np.round(readings(2), 0))
    found = measure(drift, "distinct")
    assert found.outcome == "fail"
    assert drift.aspects[0].cause == "rounded to 1"


def test_rows_that_came_twice_are_found() -> None:
    """Each amount is there twice, so that so many rows have fewer different amounts."""
    amounts = np.round(np.random.default_rng(4).lognormal(8, 2, 3_000), 2)
    now = np.round(np.random.default_rng(5).lognormal(8, 2, 1_500), 2)
    found = measure(compared(amounts, np.r_[now, now]), "distinct")
    assert found.outcome in ("warn", "fail")
    assert measure(compared(amounts, np.r_[now, amounts[:1_500]]), "distinct").outcome == "ok"


def test_few_values_are_not_counted() -> None:
    """Of a hundred values half may be missing by chance, so nothing is said."""
    values = np.arange(ROWS) % 100
    names = {m.name for m in compared(values, values).aspects[0].measures}
    assert "distinct" not in names
    assert "beyond" in names


@pytest.mark.parametrize("kind", [bool, np.int64, str])
@pytest.mark.parametrize(("was", "now"), [(0.002, 0.008), (0.008, 0.002)])
def test_a_rare_flag_that_changed_warns(kind: Any, was: float, now: float) -> None:
    """From 0.2 % to 0.8 % of 200,000 rows and back, whatever the flag's type."""
    sides = [(np.arange(200_000) < share * 200_000).astype(kind) for share in (was, now)]
    found = measure(compared(*sides), "category")
    assert found.outcome == "warn"
    assert f"3 times as {'often' if now > was else 'seldom'}" in found.detail


def test_halves_of_a_table_do_not_alarm() -> None:
    """Of forty splits of tables with all kinds of columns none warns, whatever the sizes."""
    alarmed = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        rows = int(random.integers(400, 6_000))
        table = pa.table({case.name: pa.array(case.column(random, rows)) for case in planted()})
        order = random.permutation(rows)
        parts = np.split(order, [int(rows * random.uniform(0.1, 0.9))])
        sides = []
        for part in parts:
            sides.append(TableProfile.empty())
            for batch in table.take(pa.array(part)).to_batches():
                sides[-1].update(batch)
        drift = compare_profiles(sides[0], sides[1], Rules())
        alarmed += [seed] if drift.verdict in ("warn", "fail") else []
    assert alarmed == []
