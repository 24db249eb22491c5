"""Test that blocks hold the kept rows of any layout of shards, in order, with their places."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.arrays import to_numpy
from batchscore.errors import InputError, StepError
from batchscore.stages.block import Block, locate_rows
from batchscore.stages.read import Source, conform, open_parquet, read_unit
from batchscore.units import Unit
from tests.factory import make_batch, make_rows, plan_units, write_shard

FILTERS = [None, [[("v", "<", 5)]], [[("v", ">", 8)]], [[("part", "==", 1), ("v", "!=", 0)]]]


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _write(folder: Path, layout: list[tuple[int, list[list[int]]]]) -> pa.Table:
    """Writes a shard for each pair of a hive key and row groups; returns all rows as read."""
    first, tables = 0, []
    for number, (part, groups) in enumerate(layout):
        path = folder / f"part={part}" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        table = pa.table({"id": pa.array(range(first, first + sum(map(len, groups))), pa.int64())})
        first += table.num_rows
        table = table.append_column("v", pa.array(list(chain.from_iterable(groups)), pa.int32()))
        ends = [0, *accumulate(map(len, groups))]
        with pq.ParquetWriter(path, table.schema) as writer:
            for start, stop in pairwise(ends):
                writer.write_table(table[start:stop], row_group_size=99)
        rows = table.num_rows
        table = table.append_column("part", pa.array([part] * rows, pa.int64()))
        table = table.append_column("shard", pa.array([str(path)] * rows, pa.string()))
        tables.append(table.append_column("row", pa.array(range(rows), pa.int64())))
    return pa.concat_tables(tables).sort_by([("shard", "ascending"), ("row", "ascending")])


def _keep(row: dict[str, Any], choice: int) -> bool:
    v, part = row["v"], row["part"]
    return (True, v < 5, v > 8, part == 1 and v != 0)[choice]


LAYOUTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(LAYOUTS, st.integers(1, 30), st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_blocks_hold_the_kept_rows_in_order_and_know_their_place(
    layout: list[tuple[int, list[list[int]]]],
    unit_rows: int,
    batch_rows: int,
    choice: int,
    threads: bool,
) -> None:
    """For any shards, row groups, filter and sizes the blocks of all units are the kept rows.

    Each block but a unit's last has exactly batch_rows, a row's number leads back to its shard
    and row, and the end counts what was read and filtered.
    """
    with _folder() as folder:
        rows = _write(folder, layout).to_pylist()
        units, schema = plan_units([folder], unit_rows, FILTERS[choice])
        source = Source(schema, FILTERS[choice], batch_rows, threads)
        expected = [row for row in rows if _keep(row, choice)]
        found = [row for unit in units for row in _rows_of_unit(unit, source)]
    assert found == expected


def _rows_of_unit(unit: Unit, source: Source) -> list[dict[str, Any]]:
    *blocks, last = read_unit(unit, source)
    assert [block.sequence for block in [*blocks, last]] == list(range(len(blocks) + 1))
    assert all(len(block) == source.batch_rows for block in blocks[:-1])
    assert all(0 < len(block) <= source.batch_rows for block in blocks)
    assert last.end is not None
    kept = sum(map(len, blocks))
    assert (last.end.read, last.end.filtered) == (unit.rows, unit.rows - kept)
    assert last.end.blocks == len(blocks)
    assert len(last) == 0
    assert all(block.batch.schema == source.schema for block in [*blocks, last])
    return [row for block in blocks for row in _located(unit, block)]


def _located(unit: Unit, block: Block) -> list[dict[str, Any]]:
    shards, numbers = locate_rows(unit, to_numpy(block.rows_b))
    places = zip(shards.to_pylist(), numbers.to_pylist(), strict=True)
    return [
        {**row, "shard": shard, "row": number}
        for row, (shard, number) in zip(block.batch.to_pylist(), places, strict=True)
    ]


def _blocks(folder: Path, **source: Any) -> list[Block]:
    (unit,), schema = plan_units([folder])
    return list(read_unit(unit, Source(**{"schema": schema, "filters": None, "batch_rows": 100,
                                          **source})))  # fmt: skip


def test_only_hive_keys_can_be_read(tmp_path: Path) -> None:
    """A schema of nothing but what stands in the path still gives every row."""
    write_shard(tmp_path / "k=7/0.parquet", make_rows(250))
    blocks = _blocks(tmp_path, schema=pa.schema([("k", pa.int64())]))
    assert [len(block) for block in blocks] == [100, 100, 50, 0]
    assert blocks[0].batch.column("k").unique().to_pylist() == [7]


def test_a_null_hive_key_is_a_null(tmp_path: Path) -> None:
    """Hive's folder for no value gives nulls of the key's type."""
    write_shard(tmp_path / "k=1/0.parquet", make_rows(1))
    write_shard(tmp_path / "k=__HIVE_DEFAULT_PARTITION__/0.parquet", make_rows(1))
    blocks = _blocks(tmp_path)
    assert blocks[0].batch.column("k").to_pylist() == [1, None]


def test_a_shard_in_memory_is_read(tmp_path: Path) -> None:
    """Shards of another file system give the same rows as local ones."""
    store = fsspec.filesystem("memory")
    path = write_shard(tmp_path / "0.parquet")
    store.pipe_file("/read-test/0.parquet", path.read_bytes())
    try:
        (unit,), schema = plan_units(["memory://read-test"])
        block = next(iter(read_unit(unit, Source(schema, None, 1000))))
    finally:
        store.rm("/read-test", recursive=True)
    assert block.batch.equals(make_rows().combine_chunks().to_batches()[0])


def test_shards_of_several_types_become_one(tmp_path: Path) -> None:
    """Column order, dictionaries, widths and null columns give way to the run's schema."""
    first = {"t": pa.array(["a"]), "i": pa.array([1], pa.int64()), "f": pa.array([0.5])}
    second = {
        "f": pa.array([0.25], pa.float32()),
        "i": pa.array([2], pa.int32()),
        "t": pa.array(["b"]).dictionary_encode(),
    }
    third = {"f": pa.nulls(1), "t": pa.nulls(1), "i": pa.nulls(1)}
    for number, columns in enumerate([first, second, third]):
        write_shard(tmp_path / f"{number}.parquet", pa.table(columns))
    blocks = _blocks(tmp_path)
    assert blocks[0].batch.to_pydict() == {
        "t": ["a", "b", None],
        "i": [1, 2, None],
        "f": [0.5, 0.25, None],
    }


def test_conforming_leaves_a_fitting_column_where_it_is() -> None:
    """A column that has its type already is not copied."""
    batch = make_batch(a=np.arange(3.0), b=[1, 2, 3])
    schema = pa.schema([("b", pa.int64()), ("a", pa.float64())])
    done = conform(batch, schema, {})
    assert done.schema == schema
    assert done.column("a").buffers()[1].address == batch.column("a").buffers()[1].address


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_a_shard_that_changed_after_planning_is_an_error(tmp_path: Path, change: str) -> None:
    """What was planned and what is read are never of two versions of a file."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    path.unlink()
    if change == "rewritten":
        write_shard(path)
        os.utime(path, (1, 1))
    with pytest.raises(StepError, match=f"was {change} after planning"):
        next(iter(read_unit(unit, Source(schema, None, 10))))


def test_a_shard_damaged_within_is_an_error(tmp_path: Path) -> None:
    """Pages that do not decode are told with the shard, though its footer was fine."""
    path = write_shard(tmp_path / "0.parquet")
    data = bytearray(path.read_bytes())
    data[4:3000] = bytes(2996)
    path.write_bytes(data)
    (unit,), schema = plan_units([tmp_path])
    with pytest.raises(StepError, match=r"0\.parquet: cannot be read to its end"):
        list(read_unit(unit, Source(schema, None, 10)))


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"x" * 100], ids=str)
def test_what_is_not_a_parquet_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, empty, cut off or of another kind is an InputError with its path."""
    path = tmp_path / "0.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"0\.parquet: (no such file|not a readable)"):
        open_parquet(str(path))


def test_closing_in_the_middle_closes_the_shard(tmp_path: Path) -> None:
    """A reader that stops early leaves no file open."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    blocks = read_unit(unit, Source(schema, None, 10))
    next(blocks)
    assert _opened(path) == 1
    blocks.close()  # type: ignore[attr-defined]
    assert _opened(path) == 0


def _opened(path: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.resolve() == path for link in links)
