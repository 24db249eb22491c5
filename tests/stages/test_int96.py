"""Test that INT96 timestamps of any year are those that DuckDB reads, or a helpful error."""

from __future__ import annotations

import struct
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.errors import Int96Error
from batchscore.plan.footers import int96_unit, keep_row_groups, read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import unify_schemas
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import pack_units
from tests.factory import change_job, make_rows, published, run_cli, run_json, write_job

_JULIAN_1970 = 2_440_588
DAY = 86_400 * 10**9
FAR = [
    datetime(1, 1, 1),
    datetime(9999, 12, 31, 23, 59, 59, 999_999),
    datetime(1582, 10, 14),
    datetime(1582, 10, 15),
    datetime(1677, 9, 20),
    datetime(2262, 4, 12),
]
NEAR = [datetime(1970, 1, 1), datetime(2261, 12, 31), datetime(1678, 1, 1)]


def int96(moment: datetime) -> bytes:
    """A date-time as INT96 has it: nanoseconds of the day, then its Julian number."""
    passed = moment - datetime(1970, 1, 1)
    nanos = passed.seconds * 10**9 + passed.microseconds * 1000
    return struct.pack("<qi", nanos, passed.days + _JULIAN_1970)


def write_int96(
    path: Path, columns: dict[str, tuple[pa.DataType, Any]], moments: list[datetime], **how: Any
) -> Path:
    """Write a shard of columns made of placeholders, each exchanged for a moment.

    Arrow writes no INT96 beyond nanoseconds; placeholder number n is day 40,000 + n.
    """
    table = pa.table({name: pa.array(rows, kind) for name, (kind, rows) in columns.items()})
    sink = pa.BufferOutputStream()
    options = {"compression": "none", "use_deprecated_int96_timestamps": True, **how}
    pq.write_table(table, sink, **options)
    data = bytes(sink.getvalue())
    for number, moment in enumerate(moments):
        placeholder = struct.pack("<qi", 0, 40_000 + number + _JULIAN_1970)
        assert placeholder in data
        data = data.replace(placeholder, int96(moment))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def place(number: int) -> int:
    """A placeholder, as microseconds."""
    return (40_000 + number) * 86_400 * 10**6


MOMENT = pa.timestamp("us")


def shard_of(path: Path, moments: list[datetime], **how: Any) -> Path:
    """Write a shard with a column `t` of moments and a null, one a row."""
    rows = [*map(place, range(len(moments))), None]
    columns = {"id": (pa.int64(), list(range(len(rows)))), "t": (MOMENT, rows)}
    return write_int96(path, columns, moments, **how)


def read(path: Path, unit: str, filters: Any = None, pruned: bool = True) -> pa.Table:
    """The rows that the reader yields with a filter."""
    footers = read_footers(find_shards([str(path)]), 0, filters if pruned else None, unit).good
    source = Source(unify_schemas(footers, None), filters, 2, int96=int96_unit(footers, unit))
    units = pack_units(keep_row_groups(footers), 1000)
    blocks = [block.batch for each in units for block in read_unit(each, source)]
    return pa.Table.from_batches(blocks, source.schema)


def duck(path: Path, predicate: str = "true") -> list[Any]:
    """The rows that DuckDB reads."""
    return duckdb.execute(f"SELECT * FROM '{path}' WHERE {predicate} ORDER BY id").fetchall()


NESTED: dict[str, tuple[pa.DataType, Any]] = {
    "id": (pa.int64(), [0, 1, 2]),
    "t": (MOMENT, [place(0), None, place(1)]),
    "l": (pa.list_(MOMENT), [[place(2), None], [], None]),
    "s": (pa.struct([("x", MOMENT), ("i", pa.int8())]), [None, {"x": place(3), "i": 1}, None]),
    "m": (pa.map_(pa.string(), MOMENT), [None, [("k", place(4))], []]),
    "ls": (pa.list_(pa.struct([("x", MOMENT)])), [[{"x": place(5)}], None, [None]]),
    "none": (MOMENT, [None, None, None]),
}


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("arrow", [True, False])
def test_every_year_in_microseconds(tmp_path: Path, dictionary: bool, arrow: bool) -> None:
    """Values of all years are DuckDB's, at any depth, with an Arrow schema and without."""
    how = {"use_dictionary": dictionary, "store_schema": arrow, "write_statistics": False}
    path = write_int96(tmp_path / "a.parquet", NESTED, FAR, **how)
    table = read(path, "us")
    assert "[ns]" not in str(table.schema)
    rows = [tuple(row.values()) for row in table.to_pylist()]
    plain = [(*r[:4], dict(r[4]) if r[4] is not None else None, *r[5:]) for r in rows]
    assert plain == duck(path)


@pytest.mark.parametrize("name", ["t", "l", "s", "m", "ls"])
@pytest.mark.parametrize("far", FAR)
def test_a_value_beyond_nanoseconds_is_an_error(tmp_path: Path, name: str, far: datetime) -> None:
    """The error names the shard, the column, the value and what to set, wherever the value is."""
    kind, _ = NESTED[name]
    rows = {
        "t": place(0),
        "l": [None, place(0)],
        "s": {"x": place(0), "i": 1},
        "m": [("k", place(0))],
        "ls": [{"x": place(0)}],
    }
    columns = {"id": (pa.int64(), [0, 1, 2]), name: (kind, [None, None, rows[name]])}
    path = write_int96(tmp_path / "a.parquet", columns, [far])
    with pytest.raises(Int96Error) as caught:
        read(path, "ns")
    shown = far.isoformat()[:19]
    assert all(w in str(caught.value) for w in (str(path), repr(name), shown, "input.int96: us"))


def test_what_nanoseconds_hold_keeps_every_digit(tmp_path: Path) -> None:
    """Values within them are as they were, to the nanosecond; in microseconds these are cut."""
    path, kind = tmp_path / "a.parquet", pa.timestamp("ns")
    near = pa.array([-(2**63) + 10**9, 123_456_789, 2**63 - 10**9, None], kind)
    pq.write_table(pa.table({"t": near}), path, use_deprecated_int96_timestamps=True)
    assert read(path, "ns")["t"].combine_chunks() == near
    assert read(path, "us")["t"].cast(pa.int64())[1].as_py() == 123_456


def test_a_value_that_microseconds_do_not_hold(tmp_path: Path) -> None:
    """A day of the year 300,000 is an error in microseconds too."""
    path = shard_of(tmp_path / "a.parquet", [NEAR[0]])
    day = struct.pack("<i", 110_000_000 + _JULIAN_1970)
    path.write_bytes(path.read_bytes().replace(int96(NEAR[0]), bytes(8) + day))
    with pytest.raises(Int96Error, match=r"'t' holds .*of microseconds cannot; write it again"):
        read(path, "us")


@pytest.mark.parametrize("pruned", [True, False])
@pytest.mark.parametrize(
    ("operator", "literal"),
    [
        ("<", date(1600, 1, 1)),
        ("<=", datetime(1582, 10, 14)),
        (">", datetime(2262, 4, 12)),
        ("==", datetime(1, 1, 1)),
        ("!=", datetime(1, 1, 1)),
        (">=", date(9999, 12, 31)),
    ],
)
def test_filters(tmp_path: Path, operator: str, literal: date, pruned: bool) -> None:
    """A filter keeps the rows that DuckDB keeps."""
    path = shard_of(tmp_path / "a.parquet", FAR + NEAR, row_group_size=3)
    found = read(path, "us", [[("t", operator, literal)]], pruned)["id"].to_pylist()
    sign = "=" if operator == "==" else operator
    assert found == [row[0] for row in duck(path, f"t {sign} TIMESTAMP '{literal.isoformat()}'")]


def test_a_mixed_input_has_one_type(tmp_path: Path) -> None:
    """Shards of INT96 and of microseconds agree, and the values of both are kept."""
    shard_of(tmp_path / "in/a.parquet", FAR)
    pq.write_table(pa.table({"id": [9], "t": pa.array([7], MOMENT)}), tmp_path / "in/b.parquet")
    table = read(tmp_path / "in", "us")
    assert table.schema.field("t").type == MOMENT
    assert table["t"].to_pylist() == [*FAR, None, datetime(1970, 1, 1, 0, 0, 0, 7)]


def test_profiles_have_the_right_range(tmp_path: Path) -> None:
    """A profile of all years is made in microseconds, one of nanoseconds' years in those."""
    shard_of(tmp_path / "far.parquet", FAR)
    shard_of(tmp_path / "near.parquet", NEAR)
    far = bs.profile(tmp_path / "far.parquet").summary()["t"]
    near = bs.profile(tmp_path / "near.parquet").summary()["t"]
    assert (far["type"], near["type"]) == ("timestamp[us]", "timestamp[ns]")
    assert (far["min"][:10], far["max"][:10]) == ("0001-01-01", "9999-12-31")
    assert bs.compare(tmp_path / "near.parquet", tmp_path / "far.parquet").verdict != "fail"


@pytest.mark.slow
def test_a_run_refuses_and_then_publishes(tmp_path: Path) -> None:
    """A run over a far year fails with what to set; set, it publishes the right values."""
    job = write_job(tmp_path, {"output.partition_by": ["t"]})
    (tmp_path / "in/1.parquet").unlink()
    rows = make_rows(4)
    columns = {name: (rows.schema.field(name).type, rows[name].to_pylist()) for name in ["a", "b"]}
    ids = {"id": (pa.int64(), range(4)), "t": (MOMENT, [*map(place, range(3)), None])}
    moments = [FAR[0], FAR[3], NEAR[1]]
    write_int96(tmp_path / "in/0.parquet", {**columns, **ids}, moments)
    for command in ("check", "run"):
        refused = run_cli(command, job)
        assert refused.exit_code == 1, refused.output
        assert "'t' holds the INT96 timestamp 0001-01-01T00:00:00" in refused.output
        assert "input.int96: us" in refused.output
    assert run_cli("run", change_job(tmp_path, {"input.int96": "us"})).exit_code == 0
    found = dict(
        duckdb.execute(
            f"SELECT id, t FROM read_parquet('{tmp_path}/out/data/**/*.parquet', "
            "hive_types = {'t': TIMESTAMP})"
        ).fetchall()
    )
    assert found == dict(enumerate([*moments, None]))
    traced = run_json("trace", tmp_path / "out", "t=0001-01-01")
    assert [row["values"]["id"] for row in traced["matches"]] == [0]
    assert run_json("run", job)["status"] == "unchanged"
    assert published(tmp_path / "out").num_rows == 4
