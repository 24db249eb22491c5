"""What other readers see of a published output: the same rows and sensible types."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.conftest import Published
from tests.factory import change_job, make_rows, run_cli, run_json, write_job, write_shard

pytestmark = pytest.mark.slow

ORDER = ["year", "month", "day", "carrier", "flight", "origin"]
COLUMNS = [*ORDER, "sched_dep_time", "score", "model_version"]
# What a reader may make of a column; the type of a hive key is each reader's own guess.
KINDS: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "year": (pa.types.is_int32,),
    "month": (pa.types.is_integer,),
    "day": (pa.types.is_int32,),
    "carrier": (pa.types.is_string, pa.types.is_large_string),
    "flight": (pa.types.is_int32,),
    "origin": (pa.types.is_string, pa.types.is_large_string),
    "sched_dep_time": (pa.types.is_int16,),
    "score": (pa.types.is_float32,),
    "model_version": (pa.types.is_string, pa.types.is_large_string),
}

Paths = str | list[str]


def by_pandas(paths: Paths) -> Any:
    frame = pd.read_parquet(paths, partitioning="hive")
    return pa.Table.from_pandas(frame, preserve_index=False)


def by_pyarrow(paths: Paths) -> Any:
    return ds.dataset(paths, partitioning="hive").to_table()


def by_duckdb(paths: Paths) -> Any:
    given = f"{paths}/**/*.parquet" if isinstance(paths, str) else paths
    return duckdb.read_parquet(given, hive_partitioning=True).to_arrow_table()


def by_polars(paths: Paths) -> Any:
    return pl.scan_parquet(paths, hive_partitioning=True).collect().to_arrow()


def in_order(table: pa.Table) -> pa.Table:
    """The rows in the order of their key, each column as the widest type of its kind."""
    wide = dict.fromkeys(("carrier", "origin", "model_version"), pa.string())
    wide["month"] = pa.int64()
    columns = {n: table[n].cast(wide[n]) if n in wide else table[n] for n in COLUMNS}
    whole = pa.table(columns)
    return whole.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()


@pytest.fixture(scope="module")
def expected(flights: Published) -> Any:
    """All published rows, in order."""
    return in_order(by_pyarrow(str(flights.data)))


@pytest.mark.parametrize("given", ["folder", "current"])
@pytest.mark.parametrize("read", [by_pandas, by_pyarrow, by_duckdb, by_polars])
def test_reader(
    read: Callable[[Paths], Any], given: str, flights: Published, expected: pa.Table
) -> None:
    """A reader sees the same rows in data/ as it is and in the files of current.txt."""
    paths = str(flights.data) if given == "folder" else [str(path) for path in flights.current]
    found = read(paths)
    assert sorted(found.column_names) == sorted(COLUMNS)
    for name, tests in KINDS.items():
        kind = found.schema.field(name).type
        if pa.types.is_dictionary(kind):
            found = found.set_column(
                found.column_names.index(name), name, found[name].cast(kind.value_type)
            )
            kind = kind.value_type
        assert any(test(kind) for test in tests), (name, kind)
    assert in_order(found).equals(expected)
    assert len(expected) == 309_772


NAMED = ["a b", " a", "%20", "a=b", "a/b", "a:b", "\xfc", "a.", "..", "", "~", "null", "x" * 240]


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output whose rows are partitioned by a column with a space in its name."""
    folder = tmp_path_factory.mktemp("spaced")
    rows = make_rows(len(NAMED)).set_column(3, "my part", pa.array(NAMED))
    write_shard(folder / "rows/0.parquet", rows)
    job = write_job(folder, {"input.path": "rows", "output.partition_by": ["my part"]})
    assert run_cli("run", job).exit_code == 0
    return folder / "out"


@pytest.mark.parametrize("given", ["folder", "current"])
@pytest.mark.parametrize("read", [by_pandas, by_pyarrow, by_duckdb, by_polars])
def test_partitions_are_read_by_name_and_value(
    read: Callable[[Paths], Any], given: str, spaced: Path
) -> None:
    """A column with a space in its name has its values back, whatever characters they have."""
    data = spaced / "data"
    found = read(str(data) if given == "folder" else [str(p) for p in data.rglob("*.parquet")])
    assert found.sort_by("id")["my part"].cast(pa.string()).to_pylist() == NAMED


@pytest.mark.parametrize("column", [["a", None, "b"], [1, None, 2]], ids=["texts", "numbers"])
def test_null_partitions(column: list[Any], tmp_path: Path) -> None:
    """They are read as null by all but pandas, which needs the column's type, as the docs say."""
    rows = make_rows(3).set_column(3, "my part", pa.array(column))
    write_shard(tmp_path / "rows/0.parquet", rows)
    job = write_job(tmp_path, {"input.path": "rows", "output.partition_by": ["my part"]})
    assert run_cli("run", job).exit_code == 0
    data = str(tmp_path / "out/data")
    for read in (by_pyarrow, by_duckdb, by_polars):
        assert read(data).sort_by("id")["my part"].to_pylist() == column
    with pytest.raises(pa.ArrowException, match="unify dictionaries with nulls"):
        by_pandas(data)
    typed = ds.partitioning(pa.schema([("my part", rows["my part"].type)]), flavor="hive")
    frame = pd.read_parquet(data, partitioning=typed).sort_values("id")
    assert [None if pd.isna(v) else v for v in frame["my part"]] == column


TYPED: dict[str, Any] = {
    "code": (["007", None, "7"], pa.string(), "VARCHAR", pl.String),
    "flag": ([True, False, None], pa.bool_(), "BOOLEAN", pl.Boolean),
    "at": ([datetime(2024, 1, 1, 1, 30), None, None], pa.timestamp("us"), "TIMESTAMP",
           pl.Datetime("us")),
    "none": ([None] * 3, pa.int64(), "BIGINT", pl.Int64),
}  # fmt: skip


def test_types_that_a_reader_is_given(tmp_path: Path) -> None:
    """Every reader returns each partition value in the type that it is given, as the docs say."""
    rows = make_rows(3)
    for name, (values, kind, _, _) in TYPED.items():
        rows = rows.append_column(name, pa.array(values, kind))
    write_shard(tmp_path / "rows/0.parquet", rows)
    by = list(TYPED)
    job = write_job(tmp_path, {"input.path": "rows", "output.partition_by": by})
    assert run_cli("run", job).exit_code == 0
    data, fields = str(tmp_path / "out/data"), [(name, how[1]) for name, how in TYPED.items()]
    typed = ds.partitioning(pa.schema(fields), flavor="hive")
    types = {name: how[2] for name, how in TYPED.items()}
    duck = duckdb.sql(f"FROM read_parquet('{data}/**/*.parquet', hive_types={types})")
    assert duck is not None
    schema = {name: how[3] for name, how in TYPED.items()}
    frame = pd.read_parquet(data, partitioning=typed)
    tables = [
        ds.dataset(data, partitioning=typed).to_table(),
        pa.Table.from_pandas(frame, schema=pa.schema([("id", pa.int64()), *fields])),
        duck.to_arrow_table(),
        pl.scan_parquet(data, hive_partitioning=True, hive_schema=schema).collect().to_arrow(),
    ]
    for table in tables:
        for name, (values, *_) in TYPED.items():
            assert table.sort_by("id")[name].to_pylist() == values


def texts_from(first: int) -> pa.Table:
    """The small job's rows from an id on, each with a text."""
    rows = make_rows(200, first)
    return rows.append_column("text", pa.array([f"row {n:020d}" for n in rows["id"].to_pylist()]))


def test_another_compression_rescores_nothing_and_readers_see_one_table(tmp_path: Path) -> None:
    """A changed compression leaves a run unchanged; shards added under each are read together."""
    job = write_job(tmp_path)
    for shard in (0, 1):
        write_shard(tmp_path / f"in/{shard}.parquet", texts_from(200 * shard))
    assert run_json("run", job)["rows"]["scored"] == 400
    for shard, compression in ((2, "snappy"), (3, "none"), (4, "zstd")):
        change_job(tmp_path, {"output.compression": compression})
        assert run_json("run", job)["status"] == "unchanged"
        write_shard(tmp_path / f"in/{shard}.parquet", texts_from(200 * shard))
        rows = run_json("run", job)["rows"]
        assert rows["scored"] - rows["reused"] == 200
    data = str(tmp_path / "out/data")
    expected = pa.concat_tables([texts_from(200 * n) for n in range(5)])["text"].to_pylist()
    for read in (by_pandas, by_pyarrow, by_duckdb, by_polars):
        assert sorted(read(data)["text"].to_pylist()) == expected
    assert _codecs(Path(data)) == {"ZSTD", "SNAPPY", "UNCOMPRESSED"}


def _codecs(data: Path) -> set[str]:
    """The compression of the column of texts in each file."""
    found = set()
    for path in data.rglob("*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        columns = [group.column(index) for index in range(group.num_columns)]
        found |= {each.compression for each in columns if each.path_in_schema == "text"}
    return found
