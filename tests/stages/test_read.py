"""Test that blocks hold the kept rows of any layout of shards, in order, with their places."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
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

from batchscore.columnar.arrays import to_numpy
from batchscore.errors import ShardError
from batchscore.stages import read
from batchscore.stages.block import Block, locate_rows
from batchscore.stages.conform import conform
from batchscore.stages.read import Source, open_shard, read_unit
from batchscore.storage.parquet import LeafReader
from batchscore.units.record import BadShard
from batchscore.units.unit import Unit
from tests.factory import make_batch, make_rows, plan_units, write_shard
from tests.parquet_faults import claim_rows, write_bytes

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


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(LAYOUTS, st.integers(1, 30), st.integers(1, 60), st.integers(0, 3), st.sampled_from([1, 3]))
def test_blocks_hold_the_kept_rows_in_order_and_know_their_place(
    layout: list[tuple[int, list[list[int]]]],
    unit_rows: int,
    batch_rows: int,
    choice: int,
    threads: int,
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
    """A schema of nothing but what the path holds still gives every row."""
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
    buffers = [each.column("a").buffers()[1] for each in (done, batch)]
    assert len({buffer.address for buffer in buffers if buffer is not None}) == 1


def _change(path: Path, change: str) -> None:
    """Removes a shard, or writes other rows, or the same rows as another file."""
    path.unlink()
    if change != "removed":
        write_shard(path, None if change == "rewritten" else make_rows(301))
        os.utime(path, (1, 1))


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_a_shard_that_changed_after_planning_is_an_error(tmp_path: Path, change: str) -> None:
    """What was planned and what is read are never of two versions of a file."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    _change(path, change)
    with pytest.raises(ShardError, match=f"was {change} after planning") as caught:
        next(iter(read_unit(unit, Source(schema, None, 10))))
    assert caught.value.path == str(path)
    assert caught.value.problem == f"was {change} after planning; run again"


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_a_shard_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: str) -> None:
    """A shard is looked at once more after its last row, before the unit counts as complete."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    blocks = read_unit(unit, Source(schema, None, 10))
    next(blocks)
    _change(path, change)
    with pytest.raises(ShardError, match=f"was {change} after planning"):
        list(blocks)


def test_a_shard_overwritten_in_place_is_reported_as_rewritten(tmp_path: Path) -> None:
    """Pages that do not decode, since somebody writes over them, are not called corrupt."""
    path = write_shard(tmp_path / "0.parquet", make_rows(300_000))
    (unit,), schema = plan_units([tmp_path])
    blocks = read_unit(unit, Source(schema, None, 1000))
    next(blocks)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ShardError, match="was rewritten after planning"):
        list(blocks)


def test_a_footer_that_changed_unseen_is_an_error(tmp_path: Path) -> None:
    """Where size and mark stay as they were, other row groups give the change away."""
    path = tmp_path / "0.parquet"
    path.write_bytes(write_bytes(make_rows(), row_group_size=100))
    (unit,), schema = plan_units([tmp_path])
    before = path.stat()
    data = write_bytes(make_rows(), row_group_size=300)
    # Thrift does not read what lies behind a footer's own end.
    gap = bytes(before.st_size - len(data))
    length = int.from_bytes(data[-8:-4], "little") + len(gap)
    path.write_bytes(data[:-8] + gap + length.to_bytes(4, "little") + b"PAR1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ShardError, match="its footer changed after planning: 300 rows in 1 row"):
        list(read_unit(unit, Source(schema, None, 10)))


def test_fewer_rows_than_the_footer_promises_are_an_error(tmp_path: Path) -> None:
    """A shard that ends before the rows that were planned is bad."""
    path = write_shard(tmp_path / "0.parquet", make_rows(300).select(["id"]))
    path.write_bytes(claim_rows(path.read_bytes(), "both", 350))
    (unit,), schema = plan_units([tmp_path])
    with pytest.raises(ShardError, match="300 rows were read, but its footer counts 350"):
        list(read_unit(unit, Source(schema, None, 100)))


def _damage(path: Path) -> None:
    """Overwrites pages, so that the footer is fine and reading fails."""
    data = bytearray(path.read_bytes())
    data[4:3000] = bytes(2996)
    path.write_bytes(data)


def test_a_shard_damaged_within_is_an_error(tmp_path: Path) -> None:
    """Pages that do not decode are reported with the shard, though its footer was fine."""
    path = write_shard(tmp_path / "0.parquet")
    _damage(path)
    (unit,), schema = plan_units([tmp_path])
    with pytest.raises(ShardError, match=r"0\.parquet: cannot be read to its end"):
        list(read_unit(unit, Source(schema, None, 10)))


def test_a_page_with_another_checksum_is_an_error(tmp_path: Path) -> None:
    """Where a shard has checksums, a flipped bit that would still decode is found."""
    table = pa.table({"x": pa.array(np.arange(300.0))})
    how = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    data = write_bytes(table, **how)
    place = data.index(np.float64(150).tobytes())
    (tmp_path / "0.parquet").write_bytes(data[:place] + b"\1" + data[place + 1 :])
    (unit,), schema = plan_units([tmp_path])
    with pytest.raises(ShardError, match="CRC checksum verification failed"):
        list(read_unit(unit, Source(schema, None, 100)))


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"x" * 100], ids=str)
def test_what_is_not_a_parquet_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, empty, cut off or of another kind is an error with its path."""
    path = tmp_path / "0.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ShardError, match=r"0\.parquet: (no such file|not a readable)"):
        open_shard(str(path))


BAD = ["damaged", "removed", "rewritten"]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=6),
    bad=st.lists(st.one_of(st.none(), st.sampled_from(BAD)), min_size=6, max_size=6),
    batch_rows=st.one_of(st.integers(1, 300), st.integers(1000, 9000)),
    allowed=st.integers(1, 6),
    threads=st.sampled_from([1, 3]),
)
def test_bad_shards_are_left_out_and_shift_nothing(
    sizes: list[int], bad: list[str | None], batch_rows: int, allowed: int, threads: int
) -> None:
    """The blocks from the last number 0 on are those of the good shards, each row in its place.

    The end lists each bad shard with its rows; one more than allowed is an error.
    """
    with _folder() as folder:
        paths = [folder / f"{number}.parquet" for number in range(len(sizes))]
        for number, size in enumerate(sizes):
            write_shard(paths[number], make_rows(size, 1000 * number))
        (unit,), schema = plan_units([folder])
        spoilt = {str(paths[n]): bad[n] for n in range(len(sizes)) if bad[n]}
        for path, how in spoilt.items():
            _spoil(Path(path), str(how))
        source = Source(schema, None, batch_rows, threads)
        if len(spoilt) > allowed:
            with pytest.raises(ShardError, match=f"max_bad_shards allows {allowed}"):
                list(read_unit(unit, source, allowed))
            return
        *blocks, last = _last_attempt(list(read_unit(unit, source, allowed)))
        rows = [row for block in blocks for row in _located(unit, block)]
    ids = [1000 * n + k for n, size in enumerate(sizes) if not bad[n] for k in range(size)]
    assert [row["id"] for row in rows] == ids
    assert [row["row"] for row in rows] == [each % 1000 for each in ids]
    assert [row["shard"] for row in rows] == [str(paths[each // 1000]) for each in ids]
    assert last.end is not None
    assert (last.end.read, last.end.blocks) == (len(ids), len(blocks))
    found = {each.path: each.rows for each in last.end.bad_shards}
    assert found == {path: sizes[paths.index(Path(path))] for path in spoilt}


def _spoil(path: Path, how: str) -> None:
    if how == "damaged":
        before = path.stat()
        footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
        with path.open("r+b") as file:
            file.seek(4)
            file.write(bytes(before.st_size - footer - 12))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        _change(path, how)


def _last_attempt(blocks: list[Block]) -> list[Block]:
    """The blocks from the last with number 0 on; all before are numbered from 0 each time, too."""
    begins = [index for index, block in enumerate(blocks) if block.sequence == 0]
    for start, stop in pairwise([*begins, len(blocks)]):
        assert [block.sequence for block in blocks[start:stop]] == list(range(stop - start))
    return blocks[begins[-1] :]


@pytest.mark.parametrize("bad", [1, 2, 8])
def test_however_many_shards_are_bad_the_unit_restarts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """Each good shard is opened twice, whether corrupt shards or unreachable ones lie between."""
    paths = [write_shard(tmp_path / f"{number:02}.parquet") for number in range(16)]
    (unit,), schema = plan_units([tmp_path])
    for number, path in enumerate(paths[1 : 2 * bad : 2]):
        if number % 2:
            path.unlink()
            path.symlink_to(path)
        else:
            _damage(path)
    opened, waited = Counter[str](), list[float]()

    def count(path: str, *args: Any, **options: Any) -> LeafReader:
        opened[path] += 1
        return open_shard(path, *args, **options)

    monkeypatch.setattr(read, "open_shard", count)
    monkeypatch.setattr(time, "sleep", waited.append)
    *_, last = read_unit(unit, Source(schema, None, 100), bad)
    assert last.end is not None
    assert [each.path for each in last.end.bad_shards] == list(map(str, paths[1 : 2 * bad : 2]))
    good = [str(path) for path in (*paths[: 2 * bad : 2], *paths[2 * bad :])]
    assert {opened[path] for path in good} == {2}
    assert waited == [1.0] * (bad > 1)


def test_reading_rows_that_a_filter_leaves_out_takes_its_time(tmp_path: Path) -> None:
    """The end tells the seconds of what was read behind the last block, here of all."""
    write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    (last,) = read_unit(unit, Source(schema, [[("id", "<", -1)]], 100))
    assert last.end is not None
    assert last.end.read == last.end.filtered > 0
    assert last.seconds["read"] > 0


def test_a_unit_whose_every_shard_is_bad_ends_with_no_rows(tmp_path: Path) -> None:
    """The end alone comes, with what was left out and why."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    path.unlink()
    (last,) = read_unit(unit, Source(schema, None, 100), 1)
    assert last.end is not None
    assert (last.sequence, last.end.read, last.end.blocks) == (0, 0, 0)
    gone = BadShard(str(path), 300, "was removed after planning; run again")
    assert last.end.bad_shards == (gone,)


@pytest.mark.parametrize("max_bad_shards", [0, 1])
def test_a_shard_whose_input_fails_once_is_read_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bad_shards: int
) -> None:
    """An I/O error is tried again after a while before the shard is given up."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    waited: list[float] = []

    def fix(seconds: float) -> None:
        waited.append(seconds)
        path.with_suffix(".away").rename(path)

    path.rename(path.with_suffix(".away"))
    path.symlink_to(path)
    monkeypatch.setattr(time, "sleep", fix)
    *_, last = read_unit(unit, Source(schema, None, 100), max_bad_shards)
    assert waited == [1.0]
    assert last.end is not None
    assert (last.end.read, last.end.bad_shards) == (300, ())


def test_a_shard_whose_input_fails_twice_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error that stays is a bad shard; corrupt data is not tried again."""
    first, second = (write_shard(tmp_path / f"{number}.parquet") for number in range(2))
    _damage(second)
    (unit,), schema = plan_units([tmp_path])
    first.unlink()
    first.symlink_to(first)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    *_, last = read_unit(unit, Source(schema, None, 100), 2)
    assert waited == [1.0]
    assert last.end is not None
    assert [each.reason.partition(" (")[0] for each in last.end.bad_shards] == [
        "cannot be looked at",
        "cannot be read to its end",
    ]


def test_closing_in_the_middle_closes_the_shard(tmp_path: Path) -> None:
    """A reader that stops early leaves no file open."""
    path = write_shard(tmp_path / "0.parquet", pa.table({"a": np.arange(300_000)}))
    assert path.stat().st_size > 1 << 20
    (unit,), schema = plan_units([tmp_path])
    blocks = read_unit(unit, Source(schema, None, 10))
    next(blocks)
    assert _opened(path) == 1
    blocks.close()  # type: ignore[attr-defined]
    assert _opened(path) == 0


def test_a_shard_of_up_to_a_mebibyte_is_read_at_once(tmp_path: Path) -> None:
    """Its file is closed before its first rows are decoded."""
    path = write_shard(tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    blocks = read_unit(unit, Source(schema, None, 10))
    next(blocks)
    assert _opened(path) == 0


def _opened(path: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.resolve() == path for link in links)
