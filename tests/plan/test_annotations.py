"""Test that Parquet annotations of columns go out as they came in, or are refused before work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import InputError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.plan.footers import read_footers
from batchscore.plan.listing import find_shards
from batchscore.plan.schemas import unify_schemas
from tests.factory import change_job, make_rows, run_cli, run_json, write_job, write_shard
from tests.parquet_faults import write_bytes

ROWS = 12
_MODEL_ROWS = "i::BIGINT AS id, sin(i)::FLOAT AS a, cos(i) AS b, 'p' || (i % 3) AS part"
_PASSES = {
    "u": "md5('' || i)::UUID",
    "nu": "if(i % 2 = 0, NULL, md5('' || i)::UUID)",
    "j": "('{\"a\":' || (i % 2) || '}')::JSON",
    "lu": "[md5('' || i)::UUID]",
    "lj": "['[]'::JSON, NULL]",
    "s": "{'u': md5('' || i)::UUID, 'j': '{}'::JSON, 'l': [md5('x')::UUID]}",
    "m": "MAP {md5('' || i)::UUID: '{}'::JSON}",
    "t": "TIME '01:02:03.000004'",
    "d4": "1.5::DECIMAL(4, 1)",
    "d18": "1.5::DECIMAL(18, 1)",
    "d38": "1.5::DECIMAL(38, 2)",
    "e": "'x'::ENUM('x', 'y')",
    "ts": "TIMESTAMP_MS '2024-01-01'",
    "tus": "TIMESTAMP '2024-01-01'",
    "tns": "TIMESTAMP_NS '2024-01-01 00:00:00.000000001'",
    "tz": "TIMESTAMPTZ '2024-01-01 00:00:00+00'",
    "i8": "(i - 5)::TINYINT",
    "u16": "i::USMALLINT",
    "u64": "18446744073709551615::UBIGINT",
    "day": "DATE '2024-01-01'",
    "blob": "'x'::BLOB",
}
_REFUSED = {
    "INTERVAL": "INTERVAL 3 DAY",
    "VARIANT": "{'a': 1}::VARIANT",
    "TIME in UTC": "TIMETZ '01:02:03+00'",
}


def write_duckdb(path: Path, columns: dict[str, str], rows: int = ROWS) -> Path:
    """Write a shard as DuckDB does, without an Arrow schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    query = f"SELECT {_MODEL_ROWS}, {values} FROM range({rows}) t(i)"
    duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


def annotated_leaves(path: Path) -> dict[str, Any]:
    """The annotation of each leaf column, by path; writers differ in how they spell plain ints."""
    schema = pq.ParquetFile(path).schema
    found = {}
    for leaf in (schema.column(index) for index in range(len(schema))):
        said = json.loads(leaf.logical_type.to_json())
        for spelling in ("is_from_converted_type", "force_set_converted_type"):
            said.pop(spelling, None)
        plain = said == {"Type": "Int", "bitWidth": said.get("bitWidth"), "isSigned": True}
        same = plain and leaf.physical_type == f"INT{said['bitWidth']}"
        found[leaf.path] = {"Type": "None"} if same else said
    return found


def prepare(folder: Path, columns: dict[str, str], **changes: Any) -> Path:
    """Write a job over one shard of DuckDB's."""
    job = write_job(folder, changes)
    (folder / "in/1.parquet").unlink()
    write_duckdb(folder / "in/0.parquet", columns)
    return job


def data_files(folder: Path) -> list[Path]:
    """The published files of a job's output."""
    return sorted((folder / "out/data").rglob("*.parquet"))


@pytest.mark.slow
def test_what_is_encoded_is_decoded(tmp_path: Path) -> None:
    """Each published column has the shard's annotations and DuckDB's values, at any depth."""
    changes = {"output.partition_by": ["part"], "checks.unique": ["u"]}
    job = prepare(tmp_path, _PASSES, **changes)
    assert run_json("run", job)["status"] == "published"
    wanted = annotated_leaves(tmp_path / "in/0.parquet")
    del wanted["part"]
    for path in data_files(tmp_path):
        found = annotated_leaves(path)
        assert {name: found[name] for name in wanted} == wanted
    names = ", ".join(["id", *_PASSES])
    rows = [
        duckdb.execute(f"SELECT {names} FROM '{where}' ORDER BY id").fetchall()
        for where in (tmp_path / "in/0.parquet", tmp_path / "out/data/**/*.parquet")
    ]
    assert rows[0] == rows[1]
    uuid = rows[0][3][1]
    for condition in (f"u={uuid}", 'j={"a":1}', "id=3"):
        traced = run_json("trace", tmp_path / "out", condition, "part=p0")
        assert 3 in [match["values"]["id"] for match in traced["matches"]]
    assert run_json("run", job)["status"] == "unchanged"


@pytest.mark.slow
def test_filters_and_functions_see_plain_types(tmp_path: Path) -> None:
    """A UUID is bytes and JSON a text for filters, which prune, and for a user's function."""
    columns = {name: _PASSES[name] for name in ("u", "j", "lu")}
    uuid = duckdb.execute("SELECT md5('3')::UUID").fetchall()[0][0]
    job = prepare(tmp_path, columns, **{"input.filters": [["u", "==", str(uuid)]]})
    (tmp_path / "steps.py").write_text(
        "import pyarrow as pa\n"
        "def features(batch):\n"
        "    assert batch.schema.field('u').type == pa.binary(16)\n"
        "    assert batch.schema.field('j').type == pa.string()\n"
        "    assert batch.schema.field('lu').type.value_type == pa.binary(16)\n"
        "    return batch.select(['a', 'b'])\n"
    )
    change_job(tmp_path, {"preprocess": {"function": "steps.py:features", "batch": "arrow"}})
    assert run_json("run", job)["rows"]["scored"] == 1
    (path,) = data_files(tmp_path)
    assert pq.read_table(path)["id"].to_pylist() == [3]
    assert annotated_leaves(path)["u"] == {"Type": "UUID"}


@pytest.mark.parametrize("annotation", _REFUSED)
def test_what_cannot_be_written_is_refused(tmp_path: Path, annotation: str) -> None:
    """The error names shard, column and annotation; without the column the job runs."""
    sql = _REFUSED[annotation]
    # DuckDB writes no variant within another column.
    nested = sql if annotation == "VARIANT" else f"{{'x': [{sql}]}}"
    job = prepare(tmp_path, {"x": sql, "n": nested})
    for name in ("x", "n"):
        change_job(tmp_path, {"output.columns": ["id", name]})
        done = run_cli("run", job)
        assert done.exit_code == 2
        words = (str(tmp_path / "in/0.parquet"), repr(name), annotation, "output.columns")
        assert all(word in done.output for word in words)
    change_job(tmp_path, {"output.columns": ["id"]})
    make_plan(load_job(str(job)))


def annotated(converted: int, logical: bytes) -> bytes:
    """A shard whose text column `x` has another annotation, in Thrift's compact protocol.

    A column's name is followed by its converted type (field 6) and its logical type (field 10).
    """
    table = make_rows(3).append_column("x", pa.array(["a", "b", None]))
    data = write_bytes(table, store_schema=False, compression="none")
    text = b"\x18\x01x\x25\x00\x4c\x1c\x00\x00"
    assert data.count(text) == 1
    made = b"\x18\x01x\x25" + bytes([converted << 1]) + b"\x4c" + logical + b"\x00\x00"
    size = int.from_bytes(data[-8:-4], "little") + len(made) - len(text)
    return data[:-8].replace(text, made) + size.to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    ("annotation", "converted", "logical"),
    [("ENUM", 4, b"\x4c"), ("BSON", 20, b"\xdc"), ("GEOMETRY", 0, b"\x0c\x22")],
)
def test_annotations_that_arrow_reads_past(
    tmp_path: Path, annotation: str, converted: int, logical: bytes
) -> None:
    """An enum, a BSON document and a geometry would lose their annotation, so they are refused."""
    job = write_job(tmp_path)
    (tmp_path / "in/1.parquet").unlink()
    (tmp_path / "in/0.parquet").write_bytes(annotated(converted, logical))
    with pytest.raises(InputError, match=f"'x' is {annotation}, an annotation that would be lost"):
        make_plan(load_job(str(job)))


def test_half_floats(tmp_path: Path) -> None:
    """They pass with their annotation and every bit, alone and in a list."""
    job = write_job(tmp_path)
    (tmp_path / "in/1.parquet").unlink()
    halves = pa.array([0.1, None, -65504.0], pa.float16())
    rows = make_rows(3).append_column("h", halves)
    rows = rows.append_column("l", pa.ListArray.from_arrays(pa.array([0, 1, 1, 3]), halves))
    pq.write_table(rows, tmp_path / "in/0.parquet", store_schema=False)
    assert run_json("run", job)["status"] == "published"
    (path,) = data_files(tmp_path)
    wanted, found = annotated_leaves(tmp_path / "in/0.parquet"), annotated_leaves(path)
    assert [found[leaf] for leaf in ("h", "l.list.element")] == [{"Type": "Float16"}] * 2
    assert found["h"] == wanted["h"]
    assert pq.read_table(path).select(["h", "l"]).equals(rows.select(["h", "l"]))


def two_level(table: pa.Table) -> bytes:
    """A shard whose only list, of required 32-bit integers, has the old two-level form.

    Its repeated group is taken out of the schema, and the element is repeated in its place.
    """
    data = write_bytes(table, store_schema=False, compression="none")
    group, required = b"\x35\x04\x18\x04list\x15\x02\x00", b"\x15\x02\x25\x00\x18\x07element"
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    repeated = required.replace(b"\x00", b"\x04")
    footer = data[start:-8].replace(group + required, repeated)
    assert len(footer) == len(data) - 8 - start - len(group)
    # Before the schema's elements is their number, in four bits.
    place = footer.index(b"\x19") + 1
    footer = footer[:place] + bytes([footer[place] - 0x10]) + footer[place + 1 :]
    return data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.slow
def test_lists_of_two_levels(tmp_path: Path) -> None:
    """An old list has DuckDB's values, and is published in the form of three levels."""
    job = write_job(tmp_path)
    (tmp_path / "in/1.parquet").unlink()
    kind = pa.list_(pa.field("element", pa.int32(), nullable=False))
    rows = make_rows(4).append_column("l", pa.array([[1, 2], [], None, [3]], kind))
    path = tmp_path / "in/0.parquet"
    path.write_bytes(two_level(rows))
    assert str(pq.ParquetFile(path).schema).count("repeated") == 1
    assert "group field_id=-1 list" not in str(pq.ParquetFile(path).schema)
    values = duckdb.execute(f"SELECT l FROM '{path}'").fetchall()
    assert values == [([1, 2],), ([],), (None,), ([3],)]
    assert run_json("run", job)["status"] == "published"
    (made,) = data_files(tmp_path)
    assert duckdb.execute(f"SELECT l FROM '{made}'").fetchall() == values
    assert "l.list.element" in annotated_leaves(made)


@pytest.mark.slow
@pytest.mark.parametrize("plain_first", [True, False])
def test_a_column_keeps_its_published_type(tmp_path: Path, plain_first: bool) -> None:
    """What was published as binaries and texts stays so, in each slice; a new output is marked."""
    job = write_job(tmp_path, {"params": {"day": {"type": "integer"}}, "input.path": "in/${day}"})
    columns = {name: _PASSES[name] for name in ("u", "j")} | {"iv": _REFUSED["INTERVAL"]}
    write_duckdb(tmp_path / "in/2/0.parquet", columns)
    if plain_first:
        table = pq.read_table(tmp_path / "in/2/0.parquet", arrow_extensions_enabled=False)
        kinds = [field.with_nullable(True) for field in table.schema]
        write_shard(tmp_path / "in/1/0.parquet", table.cast(pa.schema(kinds)))
        assert run_cli("run", job, "--param", "day=1").exit_code == 0
        done = run_cli("run", job, "--param", "day=2")
        assert done.exit_code == 0, done.output
        kinds_of = {str(pq.read_schema(path).field("u").type) for path in data_files(tmp_path)}
        assert kinds_of == {"fixed_size_binary[16]"}
    else:
        done = run_cli("run", job, "--param", "day=2")
        assert (done.exit_code, "'iv' is INTERVAL" in done.output) == (2, True)


def test_shards_that_differ_in_annotations_are_plain(tmp_path: Path) -> None:
    """A column that one shard annotates and another does not is written without."""
    job = prepare(tmp_path, {"u": _PASSES["u"]})
    marked = make_plan(load_job(str(job))).spec.scoring.target.marked
    assert marked == (("u", pa.uuid()),)
    plain = pq.read_table(tmp_path / "in/0.parquet", arrow_extensions_enabled=False)
    write_shard(tmp_path / "in/1.parquet", plain)
    assert make_plan(load_job(str(job))).spec.scoring.target.marked == ()
    footers = read_footers(find_shards([str(tmp_path / "in")])).good
    assert unify_schemas(footers, None).field("u").type == pa.binary(16)


@pytest.mark.slow
def test_extension_types_within_others(tmp_path: Path) -> None:
    """A list of UUIDs that Arrow itself wrote passes, and `trace` shows them as UUIDs."""
    job = write_job(tmp_path)
    (tmp_path / "in/1.parquet").unlink()
    plain = pa.array([[bytes(16)], None, [None]], pa.list_(pa.binary(16)))
    rows = make_rows(3).append_column("l", plain.cast(pa.list_(pa.uuid())))
    write_shard(tmp_path / "in/0.parquet", rows)
    assert run_json("run", job)["status"] == "published"
    (path,) = data_files(tmp_path)
    assert annotated_leaves(path)["l.list.element"] == {"Type": "UUID"}
    assert pq.read_table(path)["l"].to_pylist() == rows["l"].to_pylist()
    (found,) = run_json("trace", tmp_path / "out", "id=0")["matches"]
    assert found["values"]["l"] == ["00000000-0000-0000-0000-000000000000"]
