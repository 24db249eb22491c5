"""Test what checks of columns count: every type, and the same under any split."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import InputError, StepError
from batchscore.job import ColumnCheck
from batchscore.stages.tally import Tallies, check_type, tally
from batchscore.units.tallies import EXAMPLES, Tally, merge_tallies
from batchscore.units.unit import Piece, Shard, Unit

UTC = dt.timezone.utc
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=UTC)
NOT_NULL, FRESH = ColumnCheck("not_null", "c"), ColumnCheck("fresh", "c")


def locate(rows_n: Any) -> list[tuple[str, int]]:
    """Return the rows as those of one shard."""
    return [("x.parquet", int(row)) for row in rows_n]


def count(check: ColumnCheck, column: pa.Array) -> Tally:
    """Return what a check counts of a column."""
    return tally(check, column, np.arange(len(column)), locate)


def accepted(*values: Any) -> ColumnCheck:
    """Return the check that accepts these values."""
    return ColumnCheck("accepted", "c", values)


def views(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an array that is a slice of a longer one."""
    return pa.array([None, *values, None], kind).slice(1, len(values))


@pytest.mark.parametrize(
    ("kind", "values", "literals", "wrong"),
    [
        (pa.string(), ["a", "é", "", "b"], ("a", ""), [1, 3]),
        (pa.large_string(), ["a", "b"], ("a",), [1]),
        (pa.string_view(), ["a", "b"], ("a",), [1]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"], ("a",), [1]),
        (pa.int8(), [1, -2, 3], (1, -2), [2]),
        (pa.int64(), [2**63 - 1, 2**63 - 2], (2**63 - 1,), [1]),
        (pa.uint64(), [2**64 - 1, 2**64 - 2], (2**64 - 1,), [1]),
        (pa.decimal128(10, 2), [Decimal("1.50"), Decimal("1.51")], (1.5,), [1]),
        (pa.decimal256(60, 2), [Decimal("1.50"), Decimal("1.51")], (1.5,), [1]),
        (pa.decimal32(5, 2), [Decimal("1.50"), Decimal("1.51")], (1.5,), [1]),
        (pa.decimal64(10, 2), [Decimal("1.50"), Decimal("1.51")], (1.5,), [1]),
        (pa.bool_(), [True, False], (True,), [1]),
        (pa.date32(), [dt.date(2026, 11, 20), dt.date(1, 1, 1)], (dt.date(2026, 11, 20),), [1]),
        (
            pa.timestamp("us"),
            [dt.datetime(2026, 11, 20), dt.datetime(1, 1, 1)],
            ("2026-11-20",),
            [1],
        ),
        (pa.timestamp("ns", "Asia/Tokyo"), [NOON, NOON + dt.timedelta(1)], (NOON,), [1]),
        (pa.time64("us"), [dt.time(1, 30), dt.time(2)], ("01:30:00",), [1]),
        (pa.float64(), [0.1, 0.2], (0.1,), [1]),
        (pa.binary(), [b"a", b"b"], ("a",), [1]),
        (pa.binary(2), [b"ab", b"cd"], ("ab",), [1]),
    ],
    ids=str,
)
def test_every_type_is_compared_exactly(
    kind: pa.DataType, values: list[Any], literals: tuple[Any, ...], wrong: list[int]
) -> None:
    """The first value and those like it are accepted, the last one is not; a null passes."""
    column = views([*values, None], kind)
    found = count(accepted(*literals), column)
    assert (found.rows, found.failed) == (len(column), len(wrong))
    assert [each.row for each in found.examples] == wrong


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_zeros_are_one_value_and_nan_is_none(kind: pa.DataType) -> None:
    """Minus zero equals 0 as in a filter; NaN is neither null nor accepted."""
    column = pa.array(np.array([0.0, -0.0, np.nan, 1.0], kind.to_pandas_dtype()), kind)
    found = count(accepted(0), column)
    assert [each.row for each in found.examples] == [2, 3]
    assert count(NOT_NULL, column).failed == 0


def test_an_example_shows_the_value() -> None:
    """Texts are shortened, and values that Python does not have are shown all the same."""
    texts = pa.array(["x" * 100, "a\nb", "ok"])
    shown = [each.value for each in count(accepted("ok"), texts).examples]
    assert shown == ["x" * 59 + "…", "a b"]
    far = pa.array([2**62, 0], pa.int64()).cast(pa.timestamp("s"))
    assert "4611686018427387904" in count(accepted("1970-01-01"), far).examples[0].value
    raw = pa.array([b"\xff\xfe"], pa.binary())
    assert "xff" in count(accepted("a"), raw).examples[0].value
    text = "61616161-6161-6161-6161-616161616161"
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16], pa.binary(16)))
    other = accepted("62616161-6161-6161-6161-616161616161")
    assert (count(other, uuids).examples[0].value, count(accepted(text), uuids).failed) == (text, 0)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1], None, []], pa.list_(pa.int64())),
        pa.array([{"x": 1}, None, {"x": None}]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", None])),
        pa.array([1.0, None, float("nan")]),
        pa.array(["", None, "a"], pa.string_view()),
    ],
    ids=lambda column: str(column.type),
)
def test_nulls_are_counted_in_every_type(column: pa.Array) -> None:
    """A null inside a value is none; one that a dictionary holds is one."""
    found = count(NOT_NULL, column)
    assert (found.rows, found.failed) == (3, 1)
    assert [(each.row, each.value) for each in found.examples] == [(1, "null")]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([5, None, 7], pa.timestamp("s")), 7 * 10**9),
        (pa.array([5, 7], pa.timestamp("ms", "Asia/Tokyo")), 7 * 10**6),
        (pa.array([-5, -7], pa.timestamp("us")), -5000),
        (pa.array([5, 7], pa.timestamp("ns")), 7),
        (pa.array([2**62], pa.timestamp("s")), 2**62 * 10**9),
        (pa.array([1, 2], pa.date32()), 2 * 86_400 * 10**9),
        (pa.array([86_400_000], pa.int64()).view(pa.date64()), 86_400 * 10**9),
        (pa.array([None], pa.timestamp("s")), None),
        (pa.nulls(3), None),
        (pa.array([], pa.date32()), None),
        (pa.array([5, 7], pa.timestamp("s")).dictionary_encode(), 7 * 10**9),
    ],
    ids=str,
)
def test_the_newest_value_is_an_instant(column: pa.Array, expected: int | None) -> None:
    """Nanoseconds since 1970 in UTC, for any unit and zone."""
    assert count(FRESH, column).newest == expected


@pytest.mark.parametrize(
    ("check", "kind", "message"),
    [
        (accepted("a"), pa.list_(pa.string()), "list<.*>, whose values cannot be listed"),
        (accepted(1), pa.duration("s"), "duration.*whose values cannot be listed"),
        (accepted(1), pa.bool_(), "has no value 1 .an integer.; write true or false"),
        (accepted(True), pa.int64(), "has no value true .a boolean.; write a number"),
        (accepted(300), pa.int8(), "int8, which has no value 300; correct it"),
        (accepted(-1), pa.uint64(), "uint64, which has no value -1; correct it"),
        (accepted("1.005"), pa.decimal128(5, 2), "has no value '1.005'; correct it"),
        (accepted("x"), pa.date32(), "write a date, such as"),
        (FRESH, pa.time64("us"), "time64.*; expected dates or timestamps"),
        (FRESH, pa.string(), "string; expected dates or timestamps"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_type_is_refused(
    check: ColumnCheck, kind: pa.DataType, message: str
) -> None:
    """The column, its type, the value, and what to write."""
    with pytest.raises(InputError, match=message):
        check_type(check, kind)
    with pytest.raises(StepError, match=message):
        count(check, pa.nulls(1, kind))


def test_true_and_one_are_two_values() -> None:
    """Python's equality of the two shows neither in a key nor in what a type has."""
    assert accepted(True).key != accepted(1).key
    check_type(accepted(True), pa.bool_())
    with pytest.raises(InputError):
        check_type(accepted(1), pa.bool_())
    assert accepted(1, 2).key == accepted(2, 1).key


VALUES = st.lists(st.sampled_from(["a", "b", None]), max_size=60)


def whole_unit(rows: int) -> Unit:
    """Return a unit of two shards."""
    half = rows // 2
    shards = [Shard(f"{name}.parquet", 1, "m", n) for name, n in (("p", half), ("q", rows - half))]
    return Unit("u", tuple(Piece(s, (0,), (0,), (s.rows,)) for s in shards))


@given(values=VALUES, cuts=st.lists(st.integers(0, 60), max_size=6), order=st.randoms())
def test_any_split_counts_the_same(values: list[str | None], cuts: list[int], order: Any) -> None:
    """Blocks of a unit, and units merged in any order, come to the counts of one pass."""
    checks = (NOT_NULL, accepted("a"))
    column, unit = pa.array(values, pa.string()), whole_unit(len(values))
    numbers = pa.array(range(len(values)), pa.int64())
    ends = sorted({min(cut, len(values)) for cut in cuts} | {0, len(values)})
    blocks, parts = Tallies(checks, unit), []
    for first, last in zip(ends, [*ends[1:], len(values)], strict=True):
        batch = pa.record_batch([column[first:last]], names=["c"])
        rows = numbers[first:last]
        blocks.add([batch], rows)
        alone = Tallies(checks, unit)
        alone.add([batch], rows)
        parts.append(alone.found)
    order.shuffle(parts)
    for check in checks:
        merged = merge_tallies([part[check.key] for part in parts])
        assert merged == blocks.found[check.key]
        wrong = [n for n, v in enumerate(values) if (v == "b" if check.values else v is None)]
        assert (merged.rows, merged.failed) == (len(values), len(wrong))
        half = len(values) // 2
        places = [("p.parquet", n) if n < half else ("q.parquet", n - half) for n in wrong]
        assert [(e.shard, e.row) for e in merged.examples] == places[:EXAMPLES]
        assert Tally.from_json(merged.to_json()) == merged


@pytest.mark.parametrize(
    "facts",
    [
        {"rows": -1, "failed": 0},
        {"rows": 1.0, "failed": 0},
        {"rows": 1, "failed": 1, "examples": [["a", "b", "c"]]},
        {"rows": 1, "failed": 1, "examples": [[1, 2, "c"]]},
        {"rows": 1, "failed": 0, "newest": "now"},
        {"rows": 1},
    ],
    ids=str,
)
def test_a_damaged_tally_is_refused(facts: dict[str, Any]) -> None:
    """Who reads a record learns that it is none."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        Tally.from_json(facts)
