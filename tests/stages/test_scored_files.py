"""Test that partitions part the rows, and that files, buffers and handles stay within bounds."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import StepError
from batchscore.stages import scored_files as partition
from batchscore.stages.hashed_file import PIECES_BEHIND
from batchscore.stages.rows_file import RowsFile
from batchscore.stages.scored_files import PartitionFiles, PartitionRows, split_partitions
from batchscore.storage.store import Store
from batchscore.units.unit import HIVE_NULL
from tests.factory import make_batch

TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(
    ["..", "/", "a/b", "=", "%2F", "\n", " ", "é", "\0", "x&y"]
)  # fmt: skip


def _value(text: str) -> str | None:
    return None if text == HIVE_NULL else unquote(text)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.none() | st.integers(-2, 2), st.booleans()), max_size=30))
def test_splitting_parts_the_rows(rows: list[tuple[str | None, int | None, bool]]) -> None:
    """Each row is in one part, in its order, in the folder that holds its encoded values."""
    texts, numbers, flags = ([row[i] for row in rows] for i in range(3))
    batch = make_batch(
        **{"t/=": pa.array(texts, pa.string())},
        n=pa.array(numbers, pa.int64()),
        id=pa.array(range(len(rows)), pa.int64()),
        b=pa.array(flags, pa.bool_()),
    )
    numbers_b = to_arrow(np.arange(len(rows)) + 7)
    parts = split_partitions(batch, numbers_b, ("t/=", "n", "b"))
    found: dict[int, tuple[str | None, ...]] = {}
    for part in parts:
        assert part.batch.schema.names == ["id"]
        assert part.batch.num_rows
        levels = [level.split("=") for level in part.folder.split("/")]
        assert [unquote(name) for name, _ in levels] == ["t/=", "n", "b"]
        assert part.folder.isascii()
        assert part.folder.isprintable()
        ids = part.batch.column("id").to_pylist()
        assert ids == sorted(ids)
        assert part.rows_p.to_pylist() == [number + 7 for number in ids]
        found |= dict.fromkeys(ids, tuple(_value(text) for _, text in levels))
    wanted = [(t, None if n is None else str(n), str(b).lower()) for t, n, b in rows]
    assert found == dict(enumerate(wanted))
    assert sum(part.batch.num_rows for part in parts) == len(rows)
    assert len({part.folder for part in parts}) == len(parts) == len(set(wanted))


@pytest.mark.parametrize(
    ("column", "folder"),
    [
        (pa.array([date(2013, 9, 1)]), "c=2013-09-01"),
        (
            pa.array([datetime(2013, 9, 1, 5, tzinfo=timezone.utc)]),
            "c=2013-09-01 05%3A00%3A00%2B00",
        ),
        (pa.array([1_000_000_001], pa.timestamp("ns")), "c=1970-01-01 00%3A00%3A01.000000001"),
        (pa.array([None], pa.int8()), f"c={HIVE_NULL}"),
        (pa.array([True]), "c=true"),
    ],
    ids=["day", "moment", "nanosecond", "null", "bool"],
)
def test_values_read_as_hive_writes_them(column: pa.Array, folder: str) -> None:
    """Dates and times are ISO 8601, booleans lower case, and a null has Hive's own name."""
    (part,) = split_partitions(make_batch(c=column, x=[1]), _numbers(1), ("c",))
    assert part.folder.startswith(folder)
    assert part.batch.to_pydict() == {"x": [1]}


def test_without_partitions_there_is_one_part_or_none() -> None:
    """All rows go to the folder itself; no rows make no part."""
    batch = make_batch(x=[1, 2])
    assert split_partitions(batch, _numbers(2), ()) == [PartitionRows("", batch, _numbers(2))]
    assert split_partitions(batch[:0], _numbers(0), ()) == []
    assert split_partitions(batch[:0], _numbers(0), ("x",)) == []


def test_a_part_does_not_keep_the_batch_alive() -> None:
    """One row of a large batch takes one row's memory while it waits."""
    batch = make_batch(k=np.arange(100_000) == 7, x=np.ones(100_000))
    parts = split_partitions(batch, _numbers(100_000), ("k",))
    (small,) = [part for part in parts if part.folder == "k=true"]
    assert small.batch.get_total_buffer_size() < 1_000
    assert small.rows_p.get_total_buffer_size() < 1_000


def _numbers(rows: int, first: int = 0) -> pa.Array:
    return to_arrow(np.arange(first, first + rows))


@pytest.fixture
def lineage(tmp_path: Path) -> RowsFile:
    """Records which rows are written."""
    return RowsFile(Store(str(tmp_path)), "rows.parquet")


@pytest.fixture
def files(tmp_path: Path, lineage: RowsFile) -> Callable[..., PartitionFiles]:
    """Makes the files of one attempt."""
    store = Store(str(tmp_path))
    return lambda file_bytes=1 << 30: PartitionFiles(store, "s", file_bytes, lineage)


def _part(folder: str, first: int, rows: int) -> PartitionRows:
    rng = np.random.default_rng(first)
    batch = make_batch(id=np.arange(first, first + rows), x=rng.random(rows))
    return PartitionRows(folder, batch, _numbers(rows, first))


def test_closed_files_are_what_they_say(
    files: Callable[..., PartitionFiles], tmp_path: Path
) -> None:
    """Rows, bytes, hash and partition of each file are those of the file on disk."""
    made = files()
    for number in range(6):
        made.add(_part(f"p={number % 2}", number * 10, 10))
    made.close()
    assert [file.partition for file in made.files] == ["p=0", "p=1"]
    for file in made.files:
        data = (tmp_path / file.staged).read_bytes()
        assert file.bytes == len(data)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.rows == pq.read_metadata(tmp_path / file.staged).num_rows == 30
    ids = pq.read_table(tmp_path / made.files[1].staged)["id"].to_pylist()
    assert ids == [*range(10, 20), *range(30, 40), *range(50, 60)]


def test_a_file_is_closed_at_its_size(
    files: Callable[..., PartitionFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has reached file_bytes is closed, the next begins, and rows keep their order."""
    monkeypatch.setattr(partition, "ROW_GROUP_ROWS", 1_000)
    made = files(20_000)
    for number in range(20):
        made.add(_part("", number * 500, 500))
    made.close()
    assert all(20_000 <= file.bytes < 40_000 for file in made.files[:-1])
    tables = [pq.read_table(tmp_path / file.staged) for file in made.files]
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(10_000))
    assert len({file.staged for file in made.files}) == len(made.files) > 3
    sizes = [
        meta.row_group(group).num_rows
        for meta in (pq.read_metadata(tmp_path / file.staged) for file in made.files)
        for group in range(meta.num_row_groups)
    ]
    assert max(sizes) == 1_000


def _opened(folder: Path) -> int:
    opened = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # A thread closed it meanwhile.
            opened += link.readlink().is_relative_to(folder)
    return opened


def test_handles_and_buffers_are_bounded(
    files: Callable[..., PartitionFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many partitions no more files are open, nor more rows wait, than the bounds allow.

    Files whose last bytes wait for the disk are open at the same time.
    """
    monkeypatch.setattr(partition, "OPEN_FILES", 3)
    monkeypatch.setattr(partition, "BUFFER_BYTES", 8_000)
    made = files()
    opened, waiting = [], []
    for number in range(60):
        made.add(_part(f"p={number % 10}", number * 100, 100))
        opened.append(_opened(tmp_path))
        waiting.append(sum(part.pending_bytes for part in made._partitions.values()))
    made.close()
    assert 3 <= max(opened) <= 3 + PIECES_BEHIND + 1
    assert 0 < max(waiting) <= 8_000
    assert _opened(tmp_path) == 0
    rows = ds.dataset([str(tmp_path / file.staged) for file in made.files]).to_table()
    assert sorted(rows["id"].to_pylist()) == list(range(6_000))
    assert {file.partition for file in made.files} == {f"p={number}" for number in range(10)}


def test_too_many_partitions_are_refused(
    files: Callable[..., PartitionFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column with a value a row ends in one clear error, not in a file a row."""
    monkeypatch.setattr(partition, "UNIT_PARTITIONS", 5)
    made = files()
    with pytest.raises(StepError, match="more than 5 partitions"):
        for number in range(6):
            made.add(_part(f"p={number}", number, 1))
    made.abort()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_abandoned_attempt_holds_no_file_open(
    files: Callable[..., PartitionFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After abort every handle is closed, and what was written is listed nowhere."""
    monkeypatch.setattr(partition, "ROW_GROUP_ROWS", 10)
    made = files()
    made.add(_part("", 0, 20))
    assert _opened(tmp_path) == 1
    made.abort()
    assert _opened(tmp_path) == 0
    assert made.files == []
    del made
    gc.collect()


def test_all_files_of_a_unit_are_encoded_alike(
    files: Callable[..., PartitionFiles], tmp_path: Path
) -> None:
    """What is chosen for the first rows holds for every partition's file."""
    made = files()
    for name, values in (("a", np.zeros(2_000)), ("b", np.random.default_rng(0).random(2_000))):
        made.add(PartitionRows(name, make_batch(x=pa.array(values)), _numbers(2_000)))
    made.close()
    for file in made.files:
        column: Any = pq.read_metadata(tmp_path / file.staged).row_group(0).column(0)
        assert column.compression == "ZSTD"


def test_the_rows_file_follows_every_written_row(
    files: Callable[..., PartitionFiles],
    lineage: RowsFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The k-th entry of a file's number is the k-th row of that file, as files come and go."""
    monkeypatch.setattr(partition, "ROW_GROUP_ROWS", 70)
    monkeypatch.setattr(partition, "OPEN_FILES", 2)
    made = files(2_000)
    for number in range(40):
        made.add(_part(f"p={number % 3}", number * 50, 50))
    made.close()
    lineage.close()
    assert len(made.files) > 6
    entries = pq.read_table(tmp_path / "rows.parquet").to_pandas()
    assert len(entries) == 2_000
    for file in made.files:
        path = tmp_path / file.staged
        mine = entries.row[entries.file == int(path.stem)]
        assert mine.tolist() == pq.read_table(path)["id"].to_pylist()
