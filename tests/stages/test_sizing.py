"""Tests that a block's bytes are bounded whatever a shard decodes to, and that no row changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import ShardError
from batchscore.stages import sizing
from batchscore.stages.leaves import LeafLookup
from batchscore.stages.read import Source, open_shard, read_unit
from batchscore.storage.parquet import LeafReader
from tests.factory import make_rows, plan_units

LIMIT = 1 << 20
ROWS = 300


def repeated(text: str, times: int) -> pa.Array:
    """A text many times, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))


def skewed() -> pa.Array:
    """Short texts, and behind them long ones of the same dictionary."""
    indices = pa.array([0] * 250 + [1] * 50, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(["short", "x" * 100_000]))


def every(values: pa.Array, count: int) -> pa.Array:
    """Lists of `count` values each."""
    offsets = pa.array(range(0, len(values) + 1, count), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def as_map(values: pa.Array) -> pa.Array:
    """A map of one entry a row."""
    offsets, keys = pa.array(range(len(values) + 1), pa.int32()), pa.array(["k"] * len(values))
    return pa.MapArray.from_arrays(offsets, keys, values)


TEXT = "x" * 100_000
GROWING: dict[str, Callable[[], pa.Array]] = {
    "text": lambda: repeated(TEXT, ROWS),
    "skewed": skewed,
    "large-text": lambda: repeated(TEXT, ROWS).cast(pa.large_string()).dictionary_encode(),
    "binary": lambda: repeated(TEXT, ROWS).cast(pa.binary()).dictionary_encode(),
    "list": lambda: every(repeated(TEXT, 2 * ROWS), 2),
    "map": lambda: as_map(repeated(TEXT, ROWS)),
    "struct": lambda: pa.StructArray.from_arrays([repeated(TEXT, ROWS)], names=["s"]),
    "list-of-structs": lambda: every(
        pa.StructArray.from_arrays([repeated(TEXT, ROWS), pa.array(range(ROWS))], ["s", "n"]), 1
    ),
    "zeros": lambda: every(pa.array(np.zeros(20_000 * ROWS, np.int8)), 20_000),
    "plain": lambda: pa.array([f"{i}{TEXT}" for i in range(ROWS)]),
}


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes blocks of one MB at most."""
    monkeypatch.setattr(sizing, "MOST_BYTES", LIMIT)


@pytest.mark.slow
@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", GROWING)
def test_blocks_of_what_grows_are_small_and_equal(tmp_path: Path, kind: str, threads: int) -> None:
    """Texts of dictionaries, in lists, maps and structs too, make blocks of bounded bytes."""
    table = pa.table({"id": range(ROWS), "c": GROWING[kind]()})
    for name in ("0", "1") if threads > 1 else ("0",):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=200, compression="zstd")
    (unit,), schema = plan_units([tmp_path])
    blocks = list(read_unit(unit, Source(schema, [[("id", "!=", 7)]], 65_536, threads)))
    assert max(block.batch.nbytes for block in blocks) < 2 * LIMIT
    assert [block.sequence for block in blocks] == list(range(len(blocks)))
    found = pa.Table.from_batches([block.batch for block in blocks])
    wanted = pq.read_table(tmp_path).cast(schema)
    assert found.equals(wanted.filter(pa.compute.field("id") != 7))


@pytest.mark.usefixtures("limit")
def test_many_constant_columns_make_small_blocks(tmp_path: Path) -> None:
    """Encoded, they take next to nothing; decoded, a block has a tile's rows at least."""
    columns = {f"c{i}": pa.array(np.full(4096, i)) for i in range(300)}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    sizes = [len(block) for block in read_unit(unit, Source(schema, None, 65_536))]
    assert sizes == [1024] * 4 + [0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(range(70_000)),
        pa.array([f"name {i % 5000}" for i in range(70_000)]),
        pa.array([f"text {i}" for i in range(70_000)]),
        pa.array([[0.5, i] for i in range(70_000)], pa.list_(pa.float32())),
        pa.array([[0.5, i] for i in range(70_000)], pa.list_(pa.float32(), 2)),
        pa.array([{"a": i, "b": str(i % 9)} for i in range(70_000)]),
        pa.nulls(70_000),
    ],
    ids=["numbers", "names", "texts", "lists", "vectors", "structs", "nulls"],
)
def test_ordinary_columns_make_whole_blocks(tmp_path: Path, column: pa.Array) -> None:
    """What grows little is decoded as many rows at a time as the job says."""
    table = pa.table({"id": range(70_000), "c": column})
    pq.write_table(table, tmp_path / "0.parquet")
    (unit,), schema = plan_units([tmp_path])
    sizes = [len(block) for block in read_unit(unit, Source(schema, None, 65_536))]
    assert sizes == [65_536, 70_000 - 65_536, 0]


@pytest.mark.parametrize(
    "how",
    [{"dictionary_pagesize_limit": 1 << 30}, {"use_dictionary": False, "data_page_size": 1 << 30}],
    ids=["dictionary", "page"],
)
def test_a_page_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """The error names shard, column, size and limit, and the remedy works."""
    for name in ("MOST_PAGE_BYTES", "MOST_DICTIONARY_BYTES"):
        monkeypatch.setattr(sizing, name, LIMIT // 2)
    table = pa.table({"c": [f"{i}{TEXT}" for i in range(40)]})
    pq.write_table(table, tmp_path / "0.parquet", compression="zstd", **how)
    (unit,), schema = plan_units([tmp_path])
    with pytest.raises(ShardError, match=r"0\.parquet: column 'c' has a page of 4 MB .*smaller"):
        list(read_unit(unit, Source(schema, None, 65_536)))
    small = {"write_batch_size": 1, "use_dictionary": False, "data_page_size": 1000}
    pq.write_table(table, tmp_path / "0.parquet", compression="zstd", **small)
    (unit,), schema = plan_units([tmp_path])
    assert sum(len(block) for block in read_unit(unit, Source(schema, None, 65_536))) == 40


def test_a_small_shard_is_not_looked_at(tmp_path: Path) -> None:
    """Whether a text grows is not asked where all texts of a shard are short."""
    path = tmp_path / "0.parquet"
    pq.write_table(make_rows(), path)

    def reopen(_: list[str]) -> LeafReader:
        raise AssertionError("it was opened again")

    with open_shard(str(path)) as file:
        leaves = LeafLookup(make_rows().schema).leaves(file, make_rows().schema.names)
        shard = sizing.OpenShard(str(path), file, leaves, reopen)
        assert sizing.rows_at_once(shard, [0], 65_536) == 65_536
