"""Tests that shards of a run are each read by their own leaf columns, alike or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.stages.leaves import LeafLookup, Leaves
from batchscore.stages.read import Source, open_shard, read_unit
from batchscore.units.unit import Piece, Shard, Unit

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("pair", pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ("list", pa.list_(pa.int64())),
    ]
)
ROWS: dict[str, list[Any]] = {
    "id": [1, 2, 3],
    "text": ["x", None, "y"],
    "pair": [{"a": 1, "b": "p"}, None, {"a": None, "b": "q"}],
    "list": [[1, 2], [], None],
}
# Ways to store each column: types of which the run's are, or may be cast from.
KINDS: dict[str, list[pa.DataType]] = {
    "id": [pa.int64(), pa.int32()],
    "text": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    "pair": [SCHEMA.field("pair").type],
    "list": [pa.list_(pa.int64()), pa.large_list(pa.int64())],
    "other": [pa.int64(), pa.struct([("a", pa.int64())])],
}


def write(path: Path, columns: dict[str, pa.DataType]) -> Piece:
    """Writes the rows, columns in an order and stored types, and returns them as planned."""
    rows = {**ROWS, "other": [None, None, None]}
    arrays = [pa.array(rows[name], kind) for name, kind in columns.items()]
    pq.write_table(pa.table(arrays, names=list(columns)), path)
    found = path.stat()
    shard = Shard(str(path), found.st_size, str(found.st_mtime), 3)
    return Piece(shard, (0,), (0,), (3,))


def look_up(path: Path, lookup: LeafLookup) -> Leaves:
    """Looks up the leaves of a shard's columns."""
    with open_shard(str(path)) as file:
        return lookup.leaves(file, ["id", "pair"])


STORED = st.permutations(list(KINDS)).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(KINDS[name]) for name in names})
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(STORED, min_size=1, max_size=5), st.sampled_from([1, 3]))
def test_shards_with_columns_in_any_order_and_type_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, stored: list[dict[str, pa.DataType]], threads: int
) -> None:
    """Each shard's rows are its own columns' values, whatever was stored before it in its unit."""
    folder = tmp_path_factory.mktemp("in")
    pieces = [write(folder / f"{n}.parquet", columns) for n, columns in enumerate(stored)]
    *blocks, _ = read_unit(Unit("u", tuple(pieces)), Source(SCHEMA, None, 1000, threads))
    assert [block.batch.schema for block in blocks] == [SCHEMA]
    found = {name: blocks[0].batch[name].to_pylist() for name in SCHEMA.names}
    assert found == {name: ROWS[name] * len(stored) for name in SCHEMA.names}


def test_shards_that_are_alike_are_looked_up_once(tmp_path: Path) -> None:
    """The second of two shards of one schema has the first one's leaves; a third one its own."""
    columns = {name: KINDS[name][0] for name in SCHEMA.names}
    for name in ("0", "1"):
        write(tmp_path / name, columns)
    write(tmp_path / "2", dict(reversed(columns.items())))
    lookup = LeafLookup(SCHEMA)
    first, second, third = (look_up(tmp_path / name, lookup) for name in ("0", "1", "2"))
    assert first is second
    assert (first.read, first.flat, first.unsized) == ([0, 2, 3], 0, [2, 3])
    assert (third.read, third.flat, third.unsized) == ([4, 1, 2], 1, [1, 2])


def test_leaves_of_one_name_in_other_columns_are_not_alike(tmp_path: Path) -> None:
    """Parquet calls schemas equal whose leaves are; what the leaves are part of decides here."""
    part = pa.struct([pa.field("a", pa.int64(), nullable=True)])
    names = [("id", "pair", "other"), ("id", "other", "pair")]
    for number, columns in enumerate(names):
        arrays = [pa.array([1]), *[pa.array([{"a": k}], part) for k in (1, 2)]]
        pq.write_table(pa.table(arrays, names=columns), tmp_path / f"{number}")
    schemas = [pq.ParquetFile(tmp_path / f"{number}").schema for number in (0, 1)]
    assert schemas[0].equals(schemas[1])
    lookup = LeafLookup(SCHEMA)
    assert [look_up(tmp_path / f"{number}", lookup).read for number in (0, 1)] == [[0, 1], [0, 2]]
