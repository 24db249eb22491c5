"""What other readers see of a published output: the same rows and sensible types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.conftest import Published

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
