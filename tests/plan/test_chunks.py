"""Tests of what footers say of columns: all null, encrypted, and of how many rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import InputError
from batchscore.plan.footers import read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import unify_schemas
from tests.factory import make_rows, published, run_cli, run_json, write_job, write_shard
from tests.parquet_faults import claim_rows, make_encrypted_file, write_bytes

NULLS: dict[str, Any] = {
    "category": pa.array(pd.Categorical([None] * 4)),
    "category-of-numbers": pa.array(pd.Categorical([None] * 4, categories=[1.5])),
    "category-of-null": pa.DictionaryArray.from_arrays(pa.nulls(4, pa.int8()), pa.nulls(0)),
    "object": pa.array(pd.Series([None] * 4, dtype=object)),
    "missing-numbers": pa.Array.from_pandas(np.full(4, np.nan)),
    "boolean": pa.nulls(4, pa.bool_()),
    "date": pa.nulls(4, pa.date32()),
    "decimal": pa.nulls(4, pa.decimal128(9, 2)),
    "text": pa.nulls(4, pa.string()),
    "binary": pa.nulls(4, pa.binary()),
    "struct": pa.nulls(4, pa.struct([("a", pa.int8()), ("l", pa.list_(pa.string()))])),
    "list": pa.nulls(4, pa.list_(pa.struct([("a", pa.date32())]))),
    "map": pa.nulls(4, pa.map_(pa.string(), pa.int8())),
}
VALUES: dict[str, Any] = {
    "texts": pa.array(["x", None, "y", "z"]),
    "dictionary": pa.array(["x", None, "y", "z"]).dictionary_encode(),
    "numbers": pa.array([1, 2, None, 4], pa.int32()),
    "dates": pa.array([0, 1, 2, None], pa.date32()),
    "lists": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int64())),
    "structs": pa.array([{"a": 1}, None, {"a": None}, {"a": 4}]),
}


def plan_type(folder: Path, name: str = "c") -> pa.DataType:
    """The type that a run has of a column of the shards in a folder."""
    return unify_schemas(read_footers(find_shards([str(folder)])).good, None).field(name).type


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("nulls", NULLS)
def test_an_all_null_column_has_the_type_of_its_siblings(
    tmp_path: Path, nulls: str, values: str
) -> None:
    """Nulls of any type fit values of any other, whichever shard comes first."""
    kind = VALUES[values].type
    wanted = kind.value_type if pa.types.is_dictionary(kind) else kind
    for first in (0, 1):
        pq.write_table(pa.table({"c": NULLS[nulls]}), tmp_path / f"{first}.parquet")
        pq.write_table(pa.table({"c": VALUES[values]}), tmp_path / f"{1 - first}.parquet")
        found = plan_type(tmp_path)
        assert found.equals(wanted) or pa.types.is_list(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nulls", "first"),
    [("category-of-null", 0), ("missing-numbers", 0), ("object", 1), ("struct", 0), ("list", 1)],
)
def test_rows_of_an_all_null_column_are_published(tmp_path: Path, nulls: str, first: int) -> None:
    """Such a column is passed through, filtered by, partitioned by and part of a key."""
    output = {"output.partition_by": ["part"], "checks.unique": ["id", "name"]}
    filters = {"input.filters": [["id", ">=", 1]], "input.path": "mixed"}
    job = write_job(tmp_path, {**output, **filters})
    rows = make_rows(8).append_column("name", pa.array(list("abcdefgh")))
    empty = rows[4:]
    for name in ("part", "name"):
        empty = empty.set_column(empty.schema.get_field_index(name), name, NULLS[nulls])
    write_shard(tmp_path / f"mixed/{1 - first}.parquet", rows[:4])
    write_shard(tmp_path / f"mixed/{first}.parquet", empty)
    assert run_json("run", job)["rows"]["scored"] == 7
    found = published(tmp_path / "out")
    assert found["id"].to_pylist() == [1, 2, 3, 4, 5, 6, 7]
    assert found["name"].to_pylist() == ["b", "c", "d", None, None, None, None]
    assert found["part"].to_pylist() == ["p1", "p2", "p0", None, None, None, None]


@pytest.mark.slow
def test_a_filter_on_an_all_null_column_keeps_no_null(tmp_path: Path) -> None:
    """A condition on the column, which statistics of another type cannot decide, still holds."""
    job = write_job(tmp_path, {"input.path": "mixed", "input.filters": [["part", "==", "p1"]]})
    rows = make_rows(8)
    write_shard(tmp_path / "mixed/0.parquet", rows[:4])
    write_shard(tmp_path / "mixed/1.parquet", rows[4:].set_column(3, "part", pa.nulls(4, "double")))
    found = run_json("run", job)["rows"]
    assert (found["scored"], found["filtered"]) == (1, 7)


@pytest.mark.parametrize(
    "column", [[None, []], [[None], None], [{"a": None}, None], [{"a": []}, None]], ids=str
)
def test_what_holds_nulls_is_not_null(tmp_path: Path, column: list[Any]) -> None:
    """To statistics an empty list or a struct of nulls is a null; no value is lost all the same."""
    pq.write_table(pa.table({"c": ["x", "y"]}), tmp_path / "0.parquet")
    part = pa.int8() if column[0] != {"a": []} else pa.list_(pa.int8())
    kind = pa.struct([("a", part)]) if isinstance(column[0], dict) else pa.list_(pa.int8())
    pq.write_table(pa.table({"c": pa.array(column, kind)}), tmp_path / "1.parquet")
    with pytest.raises(InputError, match=r"1\.parquet: column 'c' is .*, expected string"):
        plan_type(tmp_path)


@pytest.mark.parametrize("how", ["values", "no-statistics", "lying-statistics"])
def test_nulls_must_be_promised_and_true(tmp_path: Path, how: str) -> None:
    """Values, or no statistics, are an error before any work; a false promise fails the run."""
    job = write_job(tmp_path, {"input.path": "mixed"})
    rows = make_rows(8)
    column = pa.array([1.5, None, None, None] if how == "values" else [None] * 4, pa.float64())
    other = rows[4:].set_column(3, "part", column)
    write_shard(tmp_path / "mixed/0.parquet", rows[:4])
    path = write_shard(tmp_path / "mixed/1.parquet", other)
    if how == "no-statistics":
        pq.write_table(other, path, write_statistics=False)
    if how == "lying-statistics":
        _make_lie(path, other)
    done = run_cli("run", job)
    assert done.exit_code == (1 if how == "lying-statistics" else 2), done.output
    assert "1.parquet" in done.output
    assert "'part'" in done.output
    assert not (tmp_path / "out/data").exists()


def _make_lie(path: Path, table: pa.Table) -> None:
    """Writes the table with one value in its column `part`, and a footer that counts it as null."""
    lied = table.set_column(3, "part", pa.array([1.5, None, None, None]))
    data = write_bytes(lied, use_dictionary=False, compression="none")
    honest = write_bytes(lied.slice(1), use_dictionary=False, compression="none")
    assert honest != data
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # Of the statistics, in Thrift's compact form, field 3 is the null count: 3, as zigzag 6.
    for place in range(start, len(data) - 8):
        for old, new in ((b"\x36\x06", b"\x36\x08"), (b"\x16\x06", b"\x16\x08")):
            if data[place : place + 2] == old:
                broken = data[:place] + new + data[place + 2 :]
                found = pq.read_metadata(pa.BufferReader(broken)).row_group(0).column(3).statistics
                if found is not None and found.null_count == 4:
                    path.write_bytes(broken)
                    return
    raise AssertionError("the footer does not show where it counts nulls")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claimed", "filters"), [(0, None), (0, [["id", ">=", 100]]), (7, None), (10**6, None)]
)
def test_the_rows_of_row_groups_count(tmp_path: Path, claimed: int, filters: Any) -> None:
    """A footer's own count of rows is not looked at, as by pyarrow and DuckDB."""
    nested = make_rows().append_column("l", pa.array([[1, 2]] * 299 + [[]], pa.list_(pa.int8())))
    job = write_job(tmp_path, {"input.path": "lying", "input.filters": filters})
    data = claim_rows(write_bytes(nested, row_group_size=64), "file", claimed)
    path = tmp_path / "lying/0.parquet"
    path.parent.mkdir()
    path.write_bytes(data)
    wanted = duckdb.execute(
        f"select id from '{path}' where id >= {100 if filters else 0}"
    ).fetchall()
    assert len(wanted) == (200 if filters else 300)
    rows = run_json("run", job)["rows"]
    assert (rows["scored"], rows["filtered"]) == (len(wanted), 300 - len(wanted))
    found = published(tmp_path / "out")
    assert found["id"].to_pylist() == [row[0] for row in wanted]
    assert run_json("profile", path)["rows"] == 300


def test_a_row_group_that_counts_too_few_rows_is_refused(tmp_path: Path) -> None:
    """Where a row group's columns have more values than it has rows, no row is left out."""
    job = write_job(tmp_path, {"input.path": "lying"})
    (tmp_path / "lying").mkdir()
    data = claim_rows(write_bytes(make_rows(), row_group_size=64), "group", 7)
    (tmp_path / "lying/0.parquet").write_bytes(data)
    done = run_cli("check", job)
    assert done.exit_code == 2
    assert "counts 300 rows, its row groups 243" in done.output


@pytest.mark.slow
@pytest.mark.parametrize(("named", "leaf"), [("id", "id"), ("s", "s.x")])
def test_rows_beyond_a_row_groups_count_are_not_left_out(
    tmp_path: Path, named: str, leaf: str
) -> None:
    """A run over a shard that claims fewer rows than it holds fails, as DuckDB does."""
    rows = make_rows().append_column("s", pa.array([{"l": [1, 2], "x": 1}] * 300))
    output = {"output.columns": [named], "runtime.batch_rows": 50}
    job = write_job(tmp_path, {"input.path": "lying", **output})
    path = tmp_path / "lying/0.parquet"
    path.parent.mkdir()
    path.write_bytes(claim_rows(write_bytes(rows.select([named, "a", "b"])), "both", 293))
    with pytest.raises(duckdb.Error):
        duckdb.execute(f"SELECT * FROM '{path}'").fetchall()
    done = run_cli("run", job)
    assert done.exit_code == 1, done.output
    assert f"column '{leaf}' has 300 values in row group 0, but its footer" in done.output
    assert "counts 293 rows; write it again" in done.output
    assert run_cli("profile", path).exit_code == 1


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    """A job over a shard whose footer is plain, and whose columns `i` and `s` are encrypted."""
    wanted = {"input.path": "secret", "model.inputs": {"x": ["x", "b"]}, "output.columns": ["t"]}
    job = write_job(tmp_path, wanted)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/0.parquet").write_bytes(make_encrypted_file(plaintext_footer=True))
    return job


@pytest.mark.parametrize(
    "reading",
    ["output.columns=[i]", "input.filters=[[s, '>', a]]", "output.columns=null"],
    ids=["passed", "filtered", "all"],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_an_encrypted_column_is_refused_before_any_work(
    encrypted: Path, command: str, reading: str
) -> None:
    """The message names shard and column, and nothing is written."""
    done = run_cli(command, encrypted, "--set", reading)
    assert done.exit_code == 2, done.output
    assert "secret/0.parquet: column '" in done.output
    assert "is encrypted" in done.output
    assert not (encrypted.parent / "out").exists()


@pytest.mark.slow
def test_encrypted_columns_that_are_not_read_do_not_matter(encrypted: Path) -> None:
    """A job that leaves them out scores every row."""
    assert run_json("run", encrypted)["rows"]["scored"] == 300


@pytest.mark.parametrize("plaintext", [True, False], ids=["plain-footer", "encrypted-footer"])
def test_profile_and_compare_refuse_encrypted_columns(tmp_path: Path, plaintext: bool) -> None:
    """They end with exit code 2 and the shard's name."""
    path = tmp_path / "e.parquet"
    path.write_bytes(make_encrypted_file(plaintext_footer=plaintext))
    good = write_shard(tmp_path / "good.parquet")
    for arguments in (["profile", path], ["compare", good, path], ["compare", path, good]):
        done = run_cli(*arguments)
        assert done.exit_code == 2, done.output
        assert "e.parquet" in done.output
        assert "is encrypted" in done.output
    done = run_cli("profile", path, "--columns", "x")
    assert done.exit_code == (0 if plaintext else 2), done.output


def test_the_error_without_encryption_is_the_schema(tmp_path: Path) -> None:
    """Files that are not encrypted have no encrypted column."""
    write_shard(tmp_path / "0.parquet")
    (footer,) = read_footers(find_shards([str(tmp_path)])).good
    assert footer.encrypted == frozenset()
    with pytest.raises(InputError, match="no column 'zz'"):
        unify_schemas([footer], ["zz"])
