"""Test the hours of the day: counted from buckets, judged of other days, and turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.drift.clock import HOURS, best_turn, hour_counts, hour_units
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import AspectDrift, Rules
from batchscore.drift.table import TableProfile

DAY = 86_400
START = 1_700_006_400  # a midnight in UTC


def seconds(seed: int, days: int, rows: int, later: float = 0.0) -> Any:
    """Returns times by day and seldom by night, in seconds since 1970, so many hours later."""
    random = np.random.default_rng(seed)
    hours = random.normal(13, 3, rows).clip(0, 23.99) + later
    return START + random.integers(0, days, rows) * DAY + (hours * 3600).astype("i8")


def compared(before: Any, now: Any, unit: str = "us") -> AspectDrift:
    """Returns how a column of timestamps changed."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    sides = []
    for values in (before, now):
        side = TableProfile.empty()
        side.update(pa.record_batch([pa.array(values * per_second, pa.timestamp(unit))], ["x"]))
        sides.append(side)
    return compare_profiles(sides[0], sides[1], Rules()).aspects[0]


@pytest.mark.parametrize("width", [0, 600, 3600])
def test_hours_are_those_of_the_times(width: int) -> None:
    """Counted from buckets they are numpy's, but for what lies across the end of an hour."""
    times = np.sort(seconds(1, 3, 50_000))
    starts = times // width * width if width else times
    lows_b, counts_b = np.unique(starts, return_counts=True)
    highs_b = lows_b + max(0, width - 1)
    found = hour_counts(lows_b.astype("f8"), highs_b.astype("f8"), counts_b, hour=3600)
    expected = np.bincount(times // 3600 % 24, minlength=HOURS)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=3)


def test_wide_buckets_tell_no_hours() -> None:
    """Nothing is said of times of years, or of no times."""
    one = np.array([0.0])
    assert hour_counts(one, one + 7200, np.array([5]), hour=3600) is None
    assert hour_counts(one, one, np.array([0]), hour=3600) is None
    assert hour_units("date32[day]") is None
    assert hour_units("timestamp[ms, tz=Europe/Berlin]") == 3_600_000


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(("later", "words"), [(5, "+5"), (-7, "-7")])
def test_a_clock_that_is_off_warns(unit: str, later: int, words: str) -> None:
    """A later night whose clock is off by hours warns, and the shift is named."""
    found = compared(seconds(1, 30, 30_000), seconds(2, 1, 5_000, later) + 40 * DAY, unit)
    (hour,) = [each for each in found.measures if each.name == "hour"]
    assert (found.verdict, hour.outcome) == ("warn", "warn")
    assert "UTC: " in hour.detail
    assert found.cause == f"shifted by {words} h (time zone?)"


def test_another_day_is_no_drift() -> None:
    """A night of another date with the same rhythm is ok, and the note says what is judged."""
    found = compared(seconds(1, 30, 30_000), seconds(2, 1, 5_000) + 40 * DAY)
    assert found.verdict == "ok"
    assert (
        found.note == "times move by design, so only the null rate and the hour of day are judged"
    )


def test_a_turn_of_nothing_explains_nothing() -> None:
    """Equal hours need no turn, and neither does a change that no turn makes."""
    hours = np.bincount(seconds(1, 1, 9_000) // 3600 % 24, minlength=HOURS)
    assert best_turn(hours, hours) == (0, 0.0)
    flat = np.full(HOURS, 400)
    assert best_turn(hours, flat)[1] < 0.5
