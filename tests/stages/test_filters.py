"""Test that a filter keeps the rows that DuckDB keeps, with statistics and without, or misfits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import InputError
from batchscore.stages.filters import filter_expression, pruning_expression
from batchscore.stages.read import Source, read_unit
from tests.factory import plan_units, run_cli, write_job, write_shard

OPERATORS = ("==", "=", "!=", "<", "<=", ">", ">=", "in", "not in")
NAN = float("nan")


def kept(paths: Sequence[Path], filters: Any, pruned: bool) -> list[int]:
    """The ids of the rows that batchscore reads, with statistics or without."""
    units, schema = plan_units(paths, filters=filters if pruned else None)
    source = Source(schema, filters, 100)
    blocks = [block for unit in units for block in read_unit(unit, source)]
    return [row for block in blocks for row in block.batch.column("id").to_pylist()]


def expected(paths: Sequence[Path], predicate: str) -> list[int]:
    """The ids of the rows that DuckDB keeps."""
    query = "SELECT id FROM read_parquet('{}') WHERE {} ORDER BY id"
    duckdb.execute("SET TimeZone = 'UTC'")
    found = [duckdb.execute(query.format(path, predicate)).fetchall() for path in paths]
    return [row for rows in found for (row,) in rows]


def sql_of(column: str, operator: str, literals: Sequence[str]) -> str:
    """A condition in SQL, in which a null meets `not in` alone and NaN no comparison."""
    listed = ", ".join(literals)
    if operator == "in":
        return f"{column} IN ({listed})"
    if operator == "not in":
        return f"({column} NOT IN ({listed}) OR {column} IS NULL)"
    return f"{column} {'=' if operator == '==' else operator} {literals[0]}"


def write_rows(folder: Path, columns: Sequence[pa.Array]) -> list[Path]:
    """Write a shard a column, with statistics of every two rows."""
    folder.mkdir(exist_ok=True)
    paths, first = [], 0
    for number, column in enumerate(columns):
        paths.append(folder / f"{number}.parquet")
        ids = pa.array(range(first, first + len(column)), pa.int64())
        pq.write_table(pa.table({"id": ids, "c": column}), paths[-1], row_group_size=2)
        first += len(column)
    return paths


INTEGERS = st.sampled_from(
    [0, 1, 7, -1, 127, 128, -128, -129, 1000, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
)
NUMBERS = st.sampled_from([0.5, 1.0, 0.1, -0.1, 2.5, 127.5, -128.5, 1e10])


def sql_number(value: float) -> str:
    """A number in SQL, exactly."""
    return f"'{value}'::HUGEINT" if isinstance(value, int) else f"{Decimal(str(value)):f}"


NAIVE: list[date] = [
    datetime(2024, 1, 1),
    datetime(2024, 1, 1, 12),
    datetime(2024, 1, 1, 0, 0, 0, 500_001),
]
AWARE: list[date] = [
    datetime(2024, 1, 1, hour, tzinfo=zone)
    for hour in (0, 2, 12)
    for zone in (timezone.utc, timezone(timedelta(hours=2)))
]
DATES = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 1, 2), date(1, 1, 1), date(9999, 12, 31)]


def sql_moment(value: date) -> str:
    """A date or date-time in SQL."""
    if not isinstance(value, datetime):
        return f"DATE '{value.isoformat()}'"
    kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
    return f"{kind} '{value.isoformat()}'"


def moments(kinds: Sequence[pa.TimestampType], literals: Sequence[date]) -> Any:
    """Columns of dates or date-times, and literals, with both in SQL."""
    values = [0, 1, 43_200, 86_400, -86_400]

    def column(kind: pa.TimestampType) -> pa.Array:
        days = pa.array([19_723 * 86_400 + each for each in values], pa.timestamp("s", kind.tz))
        return pa.concat_arrays([days.cast(kind), pa.nulls(1, kind)])

    columns = st.sampled_from(kinds).map(column)
    return columns, st.sampled_from(literals), sql_moment


def numbers(kind: pa.DataType, values: Sequence[Any], literals: Any) -> Any:
    """A column of numbers, and literals, with both in SQL."""
    return st.just(pa.array([*values, None], kind)), literals, sql_number


TEXTS = ["", "a", "07", "7", "ä", "zz"]
FAMILIES: dict[str, Any] = {
    "int8": numbers(pa.int8(), [-128, -1, 0, 1, 7, 127], INTEGERS | NUMBERS),
    "int64": numbers(pa.int64(), [-(2**63), 0, 1, 2**53 + 1, 2**63 - 1], INTEGERS | NUMBERS),
    "uint8": numbers(pa.uint8(), [0, 1, 7, 255], INTEGERS | NUMBERS),
    "uint64": numbers(pa.uint64(), [0, 1, 2**53, 2**63, 2**64 - 1], INTEGERS | NUMBERS),
    "double": numbers(pa.float64(), [0.1, 0.5, -0.1, 1e10], NUMBERS),
    "decimal": numbers(
        pa.decimal128(14, 2),
        [Decimal("0.10"), Decimal("-0.10"), Decimal(1), Decimal("1E10"), Decimal("7.00")],
        st.sampled_from([0, 1, 7, -1, 10**10, 10**20]) | NUMBERS,
    ),
    "text": (
        st.sampled_from([pa.array([*TEXTS, None], k) for k in (pa.string(), pa.large_string())]),
        st.sampled_from(TEXTS),
        lambda text: f"'{text}'",
    ),
    "binary": (
        st.just(pa.array([*(text.encode() for text in TEXTS), None], pa.binary())),
        st.sampled_from(TEXTS),
        lambda text: f"encode('{text}')",
    ),
    "dates": (moments([pa.timestamp("s")], NAIVE)[0].map(lambda c: c.cast(pa.date32(), safe=False)),
              st.sampled_from(DATES + NAIVE), sql_moment),
    "naive": moments([pa.timestamp(u) for u in ("s", "ms", "us")], DATES + NAIVE),
    "zoned": moments([pa.timestamp(u, "UTC") for u in ("ms", "us")], DATES + AWARE),
    "boolean": (st.just(pa.array([True, False, None])), st.booleans(), str),
}  # fmt: skip


@pytest.mark.slow
@settings(max_examples=80)
@given(
    data=st.data(), family=st.sampled_from(sorted(FAMILIES)), operator=st.sampled_from(OPERATORS)
)
def test_the_rows_that_duckdb_keeps(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, family: str, operator: str
) -> None:
    """Every literal that fits a type keeps the rows that DuckDB keeps, pruned and unpruned."""
    columns, literals, to_sql = FAMILIES[family]
    column = data.draw(columns)
    many = operator in ("in", "not in")
    values = data.draw(st.lists(literals, min_size=1, max_size=3 if many else 1))
    filters = [[("c", operator, values if many else values[0])]]
    paths = write_rows(tmp_path_factory.mktemp("rows"), [column])
    wanted = expected(paths, sql_of("c", operator, [to_sql(value) for value in values]))
    assert kept(paths, filters, pruned=True) == wanted
    assert kept(paths, filters, pruned=False) == wanted


@pytest.mark.parametrize("operator", OPERATORS)
def test_shards_of_two_widths(tmp_path: Path, operator: str) -> None:
    """What a narrow shard's statistics exclude, the wide type that rows are compared in excludes.

    0.1 is above the 32-bit float next to it, which the statistics have.
    """
    narrow, wide = pa.array([0.1, 0.1, 0.5, None], pa.float32()), pa.array([0.1, 0.2, 0.5, None])
    literal = 0.1 if operator not in ("in", "not in") else [0.1, 0.5]
    paths = write_rows(tmp_path, [narrow, wide])
    filters = [[("c", operator, literal)]]
    listed = ["0.1::DOUBLE", "0.5::DOUBLE"] if isinstance(literal, list) else ["0.1::DOUBLE"]
    wanted = expected(paths, sql_of("c::DOUBLE", operator, listed))
    assert kept(paths, filters, pruned=True) == kept(paths, filters, pruned=False) == wanted
    assert kept(paths[:1], filters, pruned=True) == kept(paths[:1], filters, pruned=False)


def meeting(column: pa.Array, operator: str, literal: Any) -> list[Any]:
    """The values of a column that meet a condition."""
    table = pa.table({"c": column})
    filters = [[("c", operator, literal)]]
    found: list[Any] = table.filter(filter_expression(filters, table.schema))["c"].to_pylist()
    return found


LARGE = pa.array([2.0**53, 2.0**53 + 2, NAN, None])
HALF = pa.array([0.5, 1.0, NAN, None], pa.float16())
TIMES = pa.array([time(1, 30), time(2), None], pa.time64("us"))
FIXED = pa.array([bytes(15) + b"a", bytes(15) + b"b", None], pa.binary(16))
ZONED = pa.array([0], pa.timestamp("us", "UTC"))
NANOS = pa.array([1, 2], pa.timestamp("ns"))


@pytest.mark.parametrize(
    ("column", "operator", "literal", "rows"),
    [
        (LARGE, "==", 2**53 + 1, []),
        (LARGE, ">", 2**53 + 1, [2.0**53 + 2]),
        (LARGE, "<=", 2**53 + 1, [2.0**53]),
        (LARGE, "in", [2**53 + 1, 2**53], [2.0**53]),
        (pa.array([0.1, 0.5], pa.float32()), "==", 0.1, pa.array([0.1], pa.float32()).to_pylist()),
        (pa.array([3.0], pa.float32()), "<", 1e300, [3.0]),
        (pa.array([3.0], pa.float32()), ">", -(10**400), [3.0]),
        (HALF, ">=", 1, [1.0]),
        (HALF, "in", [0.5, 0.1], [0.5]),
        (TIMES, ">=", "01:30:00.000001", [time(2)]),
        (TIMES, "==", "01:30", [time(1, 30)]),
        (FIXED, "==", "00000000-0000-0000-0000-000000000061", [bytes(15) + b"a"]),
        (NANOS, ">", "1970-01-01T00:00:00.000000001", NANOS[1:].to_pylist()),
        (NANOS, "<", date(9999, 1, 1), NANOS.to_pylist()),
        (ZONED, ">", "0001-01-01T00:00:00+02:00", ZONED.to_pylist()),
        (ZONED, ">", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))), []),
        (pa.array([7, 12]), "==", "07", [7]),
        (pa.array([7, 12]), "in", ["7", 12.0], [7, 12]),
        (pa.array([True, False]), "==", "true", [True]),
        (pa.nulls(2), "!=", 1, []),
        (pa.nulls(2), "in", ["a", 1], []),
        (pa.nulls(2), "not in", ["a", 1], [None, None]),
        (pa.array([date(2024, 1, 1)]), ">=", datetime(2024, 1, 1, 12), []),
        (pa.array([10**75], pa.decimal256(76, 0)), "==", 10**75, [Decimal(10**75)]),
        (pa.array([1], pa.decimal128(38, 37)), "<", 10**30, [Decimal(1)]),
    ],
)  # fmt: skip
def test_a_literal_is_compared_exactly(
    column: pa.Array, operator: str, literal: Any, rows: list[Any]
) -> None:
    """A literal that a type lacks is equal to none of its values, and lies where it belongs."""
    assert meeting(column, operator, literal) == rows


@pytest.mark.parametrize("operator", OPERATORS)
def test_nan_and_null_meet_what_they_met(operator: str) -> None:
    """A null meets `not in` alone, and NaN `!=` and `not in`, also of a literal a type lacks."""
    for literal in (1, 2**53 + 1):
        value = [literal] if operator in ("in", "not in") else literal
        found = meeting(pa.array([NAN, None]), operator, value)
        assert [each is None for each in found] == {"!=": [False], "not in": [False, True]}.get(
            operator, []
        )


MISFITS: list[tuple[pa.Array, Any, str]] = [
    (pa.array([1]), "x", "write a number"),
    (pa.array([1]), True, "write a number"),
    (pa.array([1]), "1e999999999", "write a number"),
    (pa.array([1]), date(2024, 1, 1), "write a number"),
    (pa.array([0.5]), "x", "write a number"),
    (pa.array([Decimal(1)]), "x", "write a number"),
    (pa.array([True]), 1, "write true or false"),
    (pa.array(["a"]), 1, "write a text, in quotes"),
    (pa.array([b"a"]), 1, "write a text, in quotes"),
    (FIXED, "short", "write a text of 16 bytes, or a UUID, in quotes"),
    (pa.array([date(2024, 1, 1)]), 20240101, "write a date, such as 2026-11-20"),
    (pa.array([0], pa.timestamp("us")), AWARE[0], "write a date-time without an offset"),
    (pa.array([0], pa.timestamp("us", "UTC")), NAIVE[0], "write a date-time with its offset"),
    (pa.array([0], pa.timestamp("us")), 5, "write a date-time without an offset"),
    (TIMES, 5400, "write a time as a text in quotes, such as '01:30:00'"),
    (TIMES, "01:30:00Z", "without an offset"),
    (pa.array([0], pa.duration("s")), 1, "filter by another column"),
    (pa.array([[1]]), 1, "filter by another column"),
    (pa.array([{"a": 1}]), 1, "filter by another column"),
]


@pytest.mark.parametrize(("column", "literal", "remedy"), MISFITS)
@pytest.mark.parametrize("operator", ["==", "in"])
def test_a_literal_that_cannot_be_compared(
    column: pa.Array, literal: Any, remedy: str, operator: str
) -> None:
    """The error names the column, its type and the literal, and says what to write instead."""
    schema = pa.schema([("c", column.type)])
    filters = [[("c", operator, [literal] if operator == "in" else literal)]]
    with pytest.raises(InputError) as caught:
        filter_expression(filters, schema)
    shown = "true" if literal is True else str(literal)
    words = ("input.filters", "'c'", str(column.type), repr(operator), shown, remedy)
    assert all(word in str(caught.value) for word in words)
    assert pruning_expression(filters, schema) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "code", "words"),
    [
        ([["u", ">=", 2**63]], 0, ""),
        ([["u", "<", 2**64]], 0, ""),
        ([["u", ">", "x"]], 2, "'u' is uint64"),
        ([["at", ">=", "2024-01-01T00:00:00"]], 2, "write a date-time with its offset"),
    ],
)
def test_a_run_compares_exactly_or_not_at_all(
    tmp_path: Path, filters: Any, code: int, words: str
) -> None:
    """A job whose filter misfits is invalid before any work; one that fits runs to its end."""
    job = write_job(tmp_path, {"input.filters": filters})
    table = pq.read_table(tmp_path / "in/0.parquet")
    high = pa.array([2**63 + row for row in range(table.num_rows)], pa.uint64())
    table = table.append_column("u", high)
    table = table.append_column("at", pa.array([0] * len(table), pa.timestamp("us", "UTC")))
    for name in ("0", "1"):
        write_shard(tmp_path / f"in/{name}.parquet", table)
    done = run_cli("run", job)
    assert (done.exit_code, words in done.output) == (code, True)
    assert (tmp_path / "out").exists() == (code == 0)
