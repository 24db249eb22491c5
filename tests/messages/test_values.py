"""Times of day and durations are shown exactly, in a form that DuckDB reads."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.messages.values import (
    bounded,
    clock_text,
    duration_text,
    number_texts,
    plain_values,
)

DAY_MICROSECONDS = 86_400_000_000
MICROSECONDS = st.integers(-(10**17), 10**17)


def _duckdb(query: str, *values: Any) -> Any:
    # All is fetched: a result that is left open would block the connection for other tests.
    ((value,),) = duckdb.execute(query, values).fetchall()
    return value


@given(MICROSECONDS)
def test_duckdb_reads_a_durations_text_as_the_duration(microseconds: int) -> None:
    """Whatever its sign and size, the text is an interval of as many microseconds."""
    text = duration_text(microseconds, "us")
    query = "SELECT CAST(? AS INTERVAL) = to_microseconds(?::BIGINT)"
    assert _duckdb(query, text, microseconds)


@given(st.integers(0, DAY_MICROSECONDS - 1))
def test_duckdb_shows_a_time_of_day_alike(microseconds: int) -> None:
    """A time of day is what DuckDB prints of it."""
    query = "SELECT CAST(make_timestamp(?::BIGINT) AS TIME)::VARCHAR"
    assert clock_text(microseconds, "us") == _duckdb(query, microseconds)


def test_a_duration_reads_as_people_write_it() -> None:
    """Days have their right plural, and what is zero is left out."""
    assert [duration_text(each, "s") for each in (0, 5, 86_400, 2 * 86_400 + 1, -90_000)] == [
        "00:00:00",
        "00:00:05",
        "1 day",
        "2 days 00:00:01",
        "-1 day -01:00:00",
    ]
    assert duration_text(1, "ns") == "00:00:00.000000001"
    assert duration_text(-(2**63), "ns") == "-106751 days -23:47:16.854775808"


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "dictionary"])
def test_nanoseconds_stay_in_python_values(coded: bool) -> None:
    """Neither a time nor a duration loses its nanoseconds, which Python's own types do not have."""
    numbers = pa.array([1, None, 86_399_999_999_999], pa.int64())
    for kind in (pa.time64("ns"), pa.duration("ns")):
        column = numbers.cast(kind).dictionary_encode() if coded else numbers.cast(kind)
        assert plain_values(column) == ["00:00:00.000000001", None, "23:59:59.999999999"]


@pytest.mark.parametrize(
    "kind", [pa.uint64(), pa.int8(), pa.float16(), pa.float64(), pa.decimal128(20, 2), pa.bool_()]
)
def test_a_number_is_a_text(kind: pa.DataType) -> None:
    """Each kind of number has a text, a null too."""
    column = pa.array([1, None], pa.int8()).cast(pa.uint8()).cast(kind, safe=False)
    texts = number_texts(column).to_pylist()
    assert texts[1] == "null"
    assert texts[0] == "true" or float(texts[0]) == 1


def test_a_long_text_is_cut() -> None:
    """Eighty characters stay of a text, an ellipsis among them."""
    assert bounded(pa.array(["ä" * 81, "b" * 80])).to_pylist() == ["ä" * 79 + "…", "b" * 80]


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in a list"])
@pytest.mark.parametrize(
    ("kind", "far", "seconds"),
    [
        (pa.timestamp("s"), 2**40, 2**40),
        (pa.timestamp("us", "Asia/Tokyo"), 2**58, 2**58 // 10**6),
        (pa.date64(), 2**48 // 86_400_000 * 86_400_000, 2**48 // 86_400_000 * 86_400),
    ],
    ids=str,
)
def test_a_date_of_a_year_that_python_lacks_is_a_text(
    kind: pa.DataType, far: int, seconds: int, nested: bool
) -> None:
    """It begins as DuckDB shows the same instant; others stay what they are."""
    column = pa.array([0, far, None, -(2**63)], pa.int64()).view(kind)
    found = plain_values(column)
    if nested:
        whole = pa.ListArray.from_arrays(pa.array([0, 4], pa.int32()), column)
        assert plain_values(whole) == [found]
    shown = _duckdb("SELECT make_timestamp(?::BIGINT)::VARCHAR", seconds * 10**6)
    expected = shown.partition(" ")[0] if pa.types.is_date(kind) else shown.replace(" ", "T")
    assert found[1].startswith(expected)
    assert [found[0], *found[2:]] == [column[0].as_py(), None, str(-(2**63))]


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.duration("ns"), pa.time64("ns")], ids=str)
def test_times_within_lists_structs_and_maps_are_shown(kind: pa.DataType) -> None:
    """Extremes that Python's own types cannot hold are shown at any depth, also in slices."""
    most = 86_399_999_999_999 if pa.types.is_time(kind) else 2**63 - 1
    leaf = pa.array([0, most, None, 1, most, 2], pa.int64()).cast(kind)
    reported = plain_values(leaf)
    ends, mask = pa.array([0, 1, None, 3, 6], pa.int32()), pa.array([False, True, False])
    nested = pa.ListArray.from_arrays(ends, leaf)
    lists = [reported[:1], reported[1:3], None, reported[3:]]
    fixed = pa.FixedSizeListArray.from_arrays(leaf, 2, mask=mask)
    struct = pa.StructArray.from_arrays([leaf, pa.array(range(6))], ["t", "n"])
    rows = [{"t": text, "n": n} for n, text in enumerate(reported)]
    pairs = pa.MapArray.from_arrays(pa.array([0, 2, 6], pa.int32()), pa.array(list("abcdef")), leaf)
    for column, expected in (
        (nested, lists),
        (nested.cast(pa.large_list(kind)), lists),
        (fixed, [reported[:2], None, reported[4:]]),
        (struct, rows),
        (pa.ListArray.from_arrays(pa.array([0, 4, 6], pa.int32()), struct), [rows[:4], rows[4:]]),
        (
            pairs,
            [
                list(zip("ab", reported[:2], strict=True)),
                list(zip("cdef", reported[2:], strict=True)),
            ],
        ),
        (pa.chunked_array([nested, nested]), lists * 2),
    ):
        assert plain_values(column) == expected
        assert plain_values(column.slice(1, 1)) == expected[1:2]
