"""Test that a written row leads back to its row of the unit, for next to no bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import RecordError
from batchscore.runs.lineage import find_source_rows, source_rows
from batchscore.stages import rows_file as lineage
from batchscore.stages.rows_file import RowsFile
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord

Added = list[tuple[int, list[list[int]]]]
ROWS_FILE = "ledger/a.rows.parquet"


def _write(store: Store, added: Added) -> UnitRecord:
    file = RowsFile(store, ROWS_FILE)
    for number, chunks in added:
        file.add(number, [to_arrow(np.array(chunk, np.int64)) for chunk in chunks])
    file.close()
    return _record(file.written)


def _record(rows_file: str | None) -> UnitRecord:
    return UnitRecord(
        "u", "a", "r", (), 0, 0, 0, 0, {}, None, (), (), {}, rows_file=rows_file
    )  # fmt: skip


CHUNKS = st.lists(st.lists(st.integers(0, 2**40), max_size=7), max_size=3)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), CHUNKS), max_size=8))
def test_the_rows_of_a_file_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, added: Added
) -> None:
    """However files take turns and row groups fall, each file's rows are those it was given."""
    store = Store(str(tmp_path_factory.mktemp("lineage")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage, "ROW_GROUP_ROWS", 5)
        record = _write(store, added)
    written = [row for _, chunks in added for chunk in chunks for row in chunk]
    assert record.rows_file == (ROWS_FILE if written else None)
    for number in range(4):
        mine = [row for n, chunks in added for chunk in chunks for row in chunk if n == number]
        found = [row for rows_n in source_rows(store, record, f"s/a/{number:04d}.parquet")
                 for row in rows_n.tolist()]  # fmt: skip
        assert found == mine


@pytest.mark.parametrize("store", ["local", "memory"])
def test_rows_are_found_by_position(store: str, tmp_path: Path) -> None:
    """Positions in any order, and twice, give their rows, in a staged and a published file."""
    output = Store(str(tmp_path) if store == "local" else f"memory://{tmp_path.name}")
    record = _write(output, [(0, [[5, 6]]), (12, [[1, 3], [7]]), (0, [[9]]), (12, [[11]])])
    for path in ("staging/a/0012.parquet", "data/month=9/20261120-7f3a-0123abcd-0012.parquet"):
        found = find_source_rows(output, record, path, np.array([3, 0, 2, 0]))
        assert found.tolist() == [11, 1, 7, 1]
    assert find_source_rows(output, record, "0000.parquet", np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("position", [-1, 2, 7])
def test_a_position_beyond_the_file_is_an_error(tmp_path: Path, position: int) -> None:
    """A row that the rows file does not know is named, with how many it knows."""
    store = Store(str(tmp_path))
    record = _write(store, [(1, [[1, 2]])])
    with pytest.raises(RecordError, match=rf"row {position} was requested.* lists 2 rows"):
        find_source_rows(store, record, "0001.parquet", np.array([1, position]))


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    pq.write_table(pq.read_table(path).rename_columns(["x", "row"]), path)


@pytest.mark.parametrize("spoil", [_remove, _cut, _empty, _other])
def test_a_rows_file_that_is_gone_or_damaged_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """The error names the file and the remedy, whatever is wrong with it."""
    store = Store(str(tmp_path))
    record = _write(store, [(1, [[1, 2]])])
    spoil(tmp_path / ROWS_FILE)
    with pytest.raises(RecordError, match=r"ledger/a\.rows\.parquet: .*--rescore"):
        list(source_rows(store, record, "0001.parquet"))


def test_a_file_that_was_renamed_is_an_error(tmp_path: Path) -> None:
    """A name without a number leads to no rows file's entries."""
    with pytest.raises(RecordError, match=r"'?copy\.parquet: expected a name that ends"):
        list(source_rows(Store(str(tmp_path)), _record(ROWS_FILE), "data/copy.parquet"))


def test_a_million_rows_in_order_take_about_a_kilobyte(tmp_path: Path) -> None:
    """Contiguous rows cost almost nothing, and every third row little more."""
    store = Store(str(tmp_path))
    numbers = np.arange(1_000_000)
    file = RowsFile(store, ROWS_FILE)
    for start in range(0, 1_000_000, 65_536):
        file.add(0, [to_arrow(numbers[start : start + 65_536])])
    file.close()
    assert (tmp_path / ROWS_FILE).stat().st_size < 1_500
    metadata = pq.read_metadata(tmp_path / ROWS_FILE)
    assert metadata.num_rows == 1_000_000


def test_footers_are_bounded(tmp_path: Path) -> None:
    """What waits is written once it is a row group, and freed."""
    file = RowsFile(Store(str(tmp_path)), ROWS_FILE)
    numbers = to_arrow(np.arange(131_072))
    waiting = []
    for _ in range(20):
        file.add(0, [numbers])
        waiting.append(sum(len(chunk) for chunk in file._chunks))
    file.close()
    assert max(waiting) < lineage.ROW_GROUP_ROWS
    sizes = pq.read_metadata(tmp_path / ROWS_FILE)
    assert [sizes.row_group(i).num_rows for i in range(3)] == [1 << 20, 1 << 20, 1 << 19]
