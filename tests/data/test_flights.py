"""The sample shards are what their README says."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
KEY = ["year", "month", "day", "carrier", "flight", "origin"]
SCHEMA = pa.schema(
    {
        "year": pa.int32(),
        "day": pa.int32(),
        "dep_time": pa.int16(),
        "sched_dep_time": pa.int16(),
        "dep_delay": pa.int16(),
        "arr_time": pa.int16(),
        "sched_arr_time": pa.int16(),
        "arr_delay": pa.int16(),
        "carrier": pa.string(),
        "flight": pa.int32(),
        "tailnum": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "air_time": pa.int16(),
        "distance": pa.int16(),
        "hour": pa.int16(),
        "minute": pa.int16(),
        "time_hour": pa.timestamp("us", tz="UTC"),
    }
)


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """All rows, the month read from the path."""
    return ds.dataset(SAMPLES / "flights", partitioning="hive").to_table()


@pytest.fixture(scope="module")
def readme() -> str:
    """The page next to the shards."""
    return (SAMPLES / "README.md").read_text(encoding="utf-8")


def test_rows_and_months(flights: pa.Table) -> None:
    """The whole source is there: 336,776 rows of 19 columns in twelve months."""
    assert flights.shape == (336_776, 19)
    assert sorted(flights["month"].unique().to_pylist()) == list(range(1, 13))


@pytest.mark.parametrize("month", range(1, 13))
def test_shards_of_a_month(month: int, readme: str) -> None:
    """A month has two shards of several row groups, typed alike, as long as the README says."""
    folder = SAMPLES / "flights" / f"month={month}"
    shards = [pq.ParquetFile(folder / f"part-{part}.parquet") for part in range(2)]
    assert len(list(folder.iterdir())) == 2
    assert all(shard.schema_arrow == SCHEMA for shard in shards)
    assert all(shard.metadata.num_row_groups == 4 for shard in shards)
    rows = [shard.metadata.num_rows for shard in shards]
    assert f"| {month} | {sum(rows):,} | {rows[0]:,} | {rows[1]:,} |" in readme


def test_columns_in_readme(flights: pa.Table, readme: str) -> None:
    """The README's table names every column with its number of nulls."""
    section = readme.partition("## Flights")[2].partition("\n## ")[0]
    reported = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", section, re.MULTILINE))
    assert reported == {name: f"{flights[name].null_count:,}" for name in flights.column_names}


@pytest.mark.parametrize(("left_out", "repeated"), [(None, 0), ("origin", 24), ("carrier", 13_323)])
def test_key(flights: pa.Table, left_out: str | None, repeated: int) -> None:
    """The README's key names one row, and does not without the origin or the carrier."""
    columns = [name for name in KEY if name != left_out]
    distinct = flights.group_by(columns).aggregate([]).num_rows
    assert flights.num_rows - distinct == repeated


def test_missing_values_are_null(flights: pa.Table) -> None:
    """A missing value is a null, and no string is empty or the source's NA."""
    assert flights["dep_time"].null_count == 8_255
    for name in ("carrier", "tailnum", "origin", "dest"):
        assert not {"", "NA"} & set(flights[name].unique().to_pylist())


def test_size() -> None:
    """The samples stay small enough for a checkout: under 10 MB."""
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*.parquet")) < 10_000_000
