"""Test that what lies behind a change is named, and that nothing is named where nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.causes.cause import LikelyCause, best
from batchscore.drift.causes.of_column import find_cause
from batchscore.drift.column import ColumnProfile, new_column
from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile
from batchscore.finish.drift_gate import summarize
from tests.drift.planted import BEFORE, NOW, Planted, planted

SAMPLES = Path(__file__).parents[2] / "data/samples"
LEAST_NAMED = 36


def column(values: Any) -> ColumnProfile:
    """Returns the profile of a column."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    made = new_column(array.type)
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        made.update(chunk)
    return made


def table(values: Any) -> TableProfile:
    """Returns the profile of a table with one column, `x`."""
    made = TableProfile.empty()
    made.update(pa.record_batch([pa.array(values)], names=["x"]))
    return made


def is_named(case: Planted, seed: int) -> bool:
    """Returns whether the cause of a planted change is the one that is named."""
    random = np.random.default_rng(seed)
    before = column(case.column(random, BEFORE))
    found = find_cause(before, column(case.spoil(case.column(random, NOW))))
    return found is not None and any(word in found.words.lower() for word in case.words)


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_causes_are_named(seed: int) -> None:
    """Of forty changes between two nights of different rows at least 36 are named first."""
    cases = [*planted()]
    missed = [
        case.name for number, case in enumerate(cases) if not is_named(case, 100 * seed + number)
    ]
    assert len(cases) == 40
    assert len(cases) - len(missed) >= LEAST_NAMED, missed


def test_nothing_is_named_where_nothing_changed() -> None:
    """Two halves of one night have no cause, of 200 nights of all kinds of columns."""
    named = []
    for number in range(5):
        for place, case in enumerate(planted()):
            random = np.random.default_rng(1_000 + 40 * number + place)
            whole = case.column(random, 8_000)
            array = whole if isinstance(whole, pa.Array) else pa.array(whole)
            halves = np.split(random.permutation(len(array)), 2)
            found = find_cause(*(column(array.take(pa.array(half))) for half in halves))
            named += [(case.name, found)] if found else []
    assert named == []


def test_nothing_is_named_in_halves_of_real_tables() -> None:
    """The columns of the flights have no cause between halves of one month's rows."""
    flights = ds.dataset(SAMPLES / "flights", format="parquet").to_table()
    random = np.random.default_rng(3)
    named = []
    for _ in range(5):
        taken = flights.take(pa.array(random.choice(len(flights), 20_000, replace=False)))
        for name in taken.column_names:
            values = taken[name].combine_chunks()
            found = find_cause(column(values[:10_000]), column(values[10_000:]))
            named += [(name, found)] if found else []
    assert named == []


def test_a_finding_ends_with_its_cause() -> None:
    """The sentence, the JSON and the manifest's record of a finding name what may lie behind it."""
    amounts = np.random.default_rng(1).lognormal(3, 1, 9_000)
    sides = table(amounts[:5_000]), table(amounts[5_000:] * 1000)
    drift = compare_profiles(*sides, Rules())
    text = sentences(drift, *sides, "run r1")["x", "value"]
    cause = "about × 1,000 (another unit?)"
    assert text.endswith(f"; likely cause: {cause}")
    assert drift.to_json()["aspects"][0]["cause"] == cause
    assert summarize(drift)["aspects"][0]["cause"] == cause


def test_a_finding_without_a_cause_says_nothing_of_one() -> None:
    """A change that no known cause explains is reported as before."""
    random = np.random.default_rng(1)
    sides = table(random.normal(size=5_000)), table(random.gumbel(0.3, 2, 5_000))
    drift = compare_profiles(*sides, Rules())
    assert drift.verdict == "fail"
    assert "cause" not in sentences(drift, *sides, "run r1")["x", "value"]
    assert "cause" not in summarize(drift)["aspects"][0]


def test_what_does_not_alarm_has_no_cause() -> None:
    """A finding that is ok does not look for one."""
    values = np.linspace(0, 1, 5_000)
    drift = compare_profiles(table(values), table(values), Rules())
    assert {each.cause for each in drift.aspects} == {""}


def test_a_new_value_is_called_one() -> None:
    """A value that the reference does not have did not become three times as frequent."""
    sides = table(["a"] * 9_000), table(["a"] * 8_800 + ["b"] * 200)
    rules = Rules(thresholds={})
    drift = compare_profiles(*sides, rules)
    (found,) = [m for m in drift.aspects[0].measures if m.name == "category"]
    assert found.detail == "'b': 0 % → 2.22 %, a new value"
    assert drift.aspects[0].cause == "a new value: 'b'"


def test_a_column_that_is_gone_comes_first() -> None:
    """No distance is worse than a column that is not there, or that is of another type."""
    before, now = TableProfile.empty(), TableProfile.empty()
    values = np.arange(3_000.0)
    before.update(pa.record_batch([pa.array(values)] * 3, names=["a", "m", "z"]))
    types = [pa.array(values + 1e9), pa.array([str(each) for each in values])]
    now.update(pa.record_batch(types, names=["a", "m"]))
    found = compare_profiles(before, now, Rules()).aspects
    assert [each.column for each in found][:3] == ["m", "z", "a"]
    assert found[0].cause == "numbers as text"


def test_the_plainest_of_equal_causes_is_named() -> None:
    """What explains far more comes first; of causes that explain the same the plainest kind."""
    assert best([LikelyCause("a", 0.81), LikelyCause("b", 0.97, 9)]) == LikelyCause("b", 0.97, 9)
    assert best([LikelyCause("a", 0.93, 1), LikelyCause("b", 0.97, 9)]) == LikelyCause("a", 0.93, 1)
    assert best([LikelyCause("a", 0.5)]) is None
    assert best([]) is None


@pytest.mark.parametrize("values", [[None] * 9, [float("nan")] * 9, [], [float("inf")] * 9])
def test_columns_without_numbers_have_a_cause_or_none(values: list[Any]) -> None:
    """Nulls, NaN, infinities and no rows at all are no error on either side."""
    empty, full = column(pa.array(values, pa.float64())), column(np.arange(100.0))
    for sides in ((empty, full), (full, empty), (empty, empty)):
        found = find_cause(*sides)
        assert found is None or found.words


@pytest.mark.parametrize(
    "type_", ["timestamp[s, tz=UTC]", "date32[day]", "date64[ms]", "time32[s]"]
)
def test_times_of_any_unit_are_looked_at(type_: str) -> None:
    """A shift of three hours is one in seconds; dates know no hours."""
    seconds = np.random.default_rng(1).integers(0, 40_000, 5_000)
    whole = {"time32[s]": pa.time32("s"), "timestamp[s, tz=UTC]": pa.timestamp("s", "UTC")}
    if type_ in whole:
        before, now = (
            pa.array(seconds + by).cast(pa.int32() if "32" in type_ else pa.int64())
            for by in (0, 10_800)
        )
        found = find_cause(column(before.cast(whole[type_])), column(now.cast(whole[type_])))
        assert found is not None
        assert found.words == "shifted by +3 h (time zone?)"
        return
    days = pa.array(seconds // 1_000, pa.int32()).cast(pa.date32())
    cast = days if type_ == "date32[day]" else days.cast(pa.date64())
    assert find_cause(column(cast), column(cast)) is None


_VALUES = st.one_of(
    st.lists(st.floats() | st.none(), max_size=30).map(lambda each: pa.array(each, pa.float64())),
    st.lists(st.floats(width=32) | st.none(), max_size=30).map(
        lambda each: pa.array(each, pa.float32())
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30).map(
        lambda each: pa.array(each, pa.int64())
    ),
    st.lists(st.integers(0, 2**64 - 1), max_size=30).map(lambda each: pa.array(each, pa.uint64())),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30).map(
        lambda each: pa.array(each, pa.timestamp("ns"))
    ),
    st.lists(st.text(max_size=6) | st.none(), max_size=30).map(
        lambda each: pa.array(each, pa.string())
    ),
    st.lists(st.binary(max_size=6), max_size=30).map(lambda each: pa.array(each, pa.binary())),
    st.lists(st.booleans(), max_size=30).map(lambda each: pa.array(each, pa.bool_())),
)


@given(_VALUES, _VALUES, st.integers(1, 400), st.integers(1, 400))
def test_no_columns_are_too_odd(first: pa.Array, second: pa.Array, often: int, now: int) -> None:
    """Whatever two columns hold, and of whatever types they are, looking for a cause ends."""
    before = column(pa.chunked_array([first] * often, first.type))
    found = find_cause(before, column(pa.chunked_array([second] * now, second.type)))
    assert found is None or found.words


def test_the_largest_times_can_be_named() -> None:
    """A time near the largest is rounded up as a float, beyond what a time can be."""
    largest = pa.array([2**63 - 512] * 200, pa.timestamp("ns"))
    before = pa.array(np.arange(200) * 10**15, pa.timestamp("ns"))
    found = find_cause(column(before), column(largest))
    assert found is not None
    assert found.words == "stuck at 2262-04-11T23:47:16.854775807"


def test_a_number_that_became_a_time_has_no_cause_of_numbers() -> None:
    """The type says what happened; no value of one side is one of the other."""
    numbers = column(np.arange(200.0))
    assert find_cause(numbers, column(pa.array([0] * 200, pa.timestamp("ns")))) is None
