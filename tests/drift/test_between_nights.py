"""Test what nights differ by among themselves: only what exceeds that alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.drift.between_nights import LEAST, alarming, between_nights
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules, TableDrift
from batchscore.drift.table import TableProfile

ROWS = 2_000
Random = np.random.Generator


def night(**columns: Any) -> TableProfile:
    """Returns the profile of a night."""
    made = TableProfile.empty()
    made.update(pa.RecordBatch.from_pydict(columns))
    return made


def nights(draw: Callable[[Random], Any], count: int, seed: int = 0) -> list[TableProfile]:
    """Returns nights whose column `x` is drawn each time."""
    random = np.random.default_rng(seed)
    return [night(x=draw(random)) for _ in range(count)]


def independent(random: Random) -> Any:
    """Draws independent rows."""
    return random.normal(size=ROWS)


def customers(random: Random) -> Any:
    """Draws forty customers with fifty rows each, so that a night's mean differs by 0.16 sigma."""
    return np.repeat(random.normal(size=ROWS // 50), 50) + 0.1 * random.normal(size=ROWS)


def judged(
    reference: TableProfile, current: TableProfile, earlier: Sequence[TableProfile]
) -> TableDrift:
    """Returns a comparison that knows what earlier nights differ by, as a run makes it."""
    found = compare_profiles(reference, current, Rules())
    bounds = between_nights(earlier, alarming(found), reference.rows / current.rows)
    return compare_profiles(reference, current, replace(Rules(), nights=bounds))


def alarmed(drift: TableDrift) -> bool:
    """Returns whether a comparison warns or fails."""
    return drift.verdict in ("warn", "fail")


def test_nights_of_customers_alarm_by_rows_and_not_by_nights() -> None:
    """Rows of one customer are alike, so that rows alone find drift where there is none."""
    found = nights(customers, 30)
    alone = [compare_profiles(a, b, Rules()) for a, b in pairwise(found[14:])]
    known = [judged(found[i - 1], found[i], found[:i]) for i in range(15, 30)]
    assert sum(map(alarmed, alone)) >= 4
    assert sum(map(alarmed, known)) <= 1


@pytest.mark.parametrize("draw", [independent, customers])
def test_a_real_shift_is_found(draw: Callable[[Random], Any]) -> None:
    """A night that moves by more than all nights do fails, whatever its rows depend on."""
    earlier = nights(draw, 20)
    reference = TableProfile.empty()
    for each in earlier[:7]:
        reference.merge(each)
    moved = draw(np.random.default_rng(99)) + 1.2
    assert judged(reference, night(x=moved), earlier).verdict == "fail"


def test_slow_drift_does_not_hide_itself() -> None:
    """Nights that all moved by a little differ by little, however far they have come."""
    random = np.random.default_rng(1)
    earlier = [night(x=random.normal(0.03 * day, 1, ROWS)) for day in range(28)]
    found = judged(earlier[0], night(x=random.normal(0.03 * 28, 1, ROWS)), earlier)
    assert found.verdict == "fail"


def test_one_strange_night_does_not_make_the_others_usual() -> None:
    """Among twenty nights a single one that failed raises no bound."""
    earlier = nights(independent, 20)
    keys = {("x", "value", name) for name in ("psi", "ks", "w1", "tail")}
    before = between_nights(earlier, keys, 1)
    after = between_nights([*earlier[:10], night(x=np.full(ROWS, 9.0)), *earlier[10:]], keys, 1)
    assert before.keys() == after.keys() == keys
    assert all(after[key] <= 1.5 * before[key] for key in keys)


def test_few_nights_say_nothing() -> None:
    """Below eight nights rows decide alone; columns that nights lack have no bound."""
    earlier = nights(independent, LEAST)
    keys = {("x", "value", "w1"), ("y", "value", "w1")}
    assert between_nights(earlier[1:], keys, 1) == {}
    assert between_nights(earlier, keys, 1).keys() == {("x", "value", "w1")}


def test_a_reference_of_many_nights_is_nearer() -> None:
    """From many nights together a night differs by less than from one, PSI by its square."""
    earlier = nights(customers, 20)
    keys = {("x", "value", "w1"), ("x", "value", "psi")}
    one, many = (between_nights(earlier, keys, count) for count in (1, 1e9))
    assert many["x", "value", "w1"] == pytest.approx(one["x", "value", "w1"] / np.sqrt(2))
    assert many["x", "value", "psi"] == pytest.approx(one["x", "value", "psi"] / 2)


def test_what_is_usual_is_shown_as_noise() -> None:
    """The floor of a measure is what nights differ by, and the effect is not beyond it."""
    values = np.random.default_rng(1).normal(size=ROWS)
    sides = night(x=values), night(x=values + 0.3)
    rules = replace(Rules(), nights={("x", "value", "w1"): 0.35})
    (found,) = [m for m in compare_profiles(*sides, rules).aspects[0].measures if m.name == "w1"]
    assert (found.floor, found.beyond_noise) == (0.35, False)
    assert found.outcome in ("ok", "undecided")


def test_many_columns_look_back_on_fewer_nights() -> None:
    """Where hundreds of columns alarm the last nights have to do, so that a run ends."""
    random = np.random.default_rng(1)
    names = [f"c{number}" for number in range(150)]
    old = [night(**{name: random.normal(9 * day, 1, 50) for name in names}) for day in range(10)]
    new = [night(**{name: random.normal(0, 1, 50) for name in names}) for _ in range(18)]
    keys = {(name, "value", "w1") for name in names}
    bounds = between_nights([*old, *new], keys, 1)
    assert bounds.keys() == keys
    assert max(bounds.values()) < 3
