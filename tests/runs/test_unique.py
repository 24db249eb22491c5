"""Test that equal keys are counted as a dictionary of all keys would, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import Array, to_arrow
from batchscore.errors import RecordError
from batchscore.runs import unique
from batchscore.runs.unique import (
    KEY,
    Duplicates,
    Scratch,
    SortedKeys,
    find_duplicates,
    hash_file,
    only_hi,
    partition_values,
    read_keys,
)
from batchscore.stages import key_hashes as keys
from batchscore.stages.key_hashes import KeysFile, hash_keys
from batchscore.stages.scored_files import split_partitions
from batchscore.storage.store import Store
from tests.factory import make_batch


def _write_keys(store: Store, path: str, numbers: list[int]) -> None:
    file = KeysFile(store, path, ("n",), len(numbers))
    for start in range(0, len(numbers), 3):
        part = numbers[start : start + 3]
        file.add(make_batch(n=part), to_arrow(np.arange(start, start + len(part))))
    file.close()


def _check(found: Duplicates, files: list[list[int]]) -> None:
    """Compares what was found with a dictionary of all keys."""
    places = defaultdict[int, set[tuple[str, int]]](set)
    for index, numbers in enumerate(files):
        for row, number in enumerate(numbers):
            places[number].add((f"f{index}", row))
    groups = [group for group in places.values() if len(group) > 1]
    assert found.count == sum(len(group) - 1 for group in groups)
    assert len(found.examples) == min(len(groups), unique.EXAMPLES)
    for example in found.examples:
        (group,) = (group for group in groups if group.issuperset(example))
        assert len(set(example)) == len(example) == min(len(group), 5)
        assert list(example) == sorted(example)
    assert len({example[0] for example in found.examples}) == len(found.examples)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=25), max_size=8), st.integers(2, 4)
)
def test_equal_keys_are_counted_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], fan_in: int
) -> None:
    """Any split into files, runs and batches, merged at once or in several passes, counts alike."""
    store = Store(str(tmp_path_factory.mktemp("unique")))
    with pytest.MonkeyPatch.context() as patch, Scratch() as scratch:
        patch.setattr(keys, "RUN_ROWS", 6)
        patch.setattr(keys, "ROW_GROUP_ROWS", 4)
        patch.setattr(unique, "_BATCH_ROWS", 3)
        runs = []
        for index, numbers in enumerate(files):
            _write_keys(store, f"{index}.keys.parquet", numbers)
            runs += read_keys(store, f"{index}.keys.parquet", f"f{index}")
        _check(find_duplicates(runs, scratch, fan_in), files)


def _run(label: str, pairs: list[tuple[int, int]], batch: int) -> SortedKeys:
    ordered = sorted((hi, lo, row) for row, (hi, lo) in enumerate(pairs))
    keys_n = np.array([(*key, -1) for key in ordered], KEY)

    def read() -> Iterator[Array]:
        for start in range(0, len(keys_n), batch):
            yield keys_n[start : start + batch].copy()
            yield keys_n[:0]

    return SortedKeys(label, read, partial(only_hi, read))


HALVES = st.sampled_from([0, 1, 2**63, 2**64 - 1])


@pytest.mark.slow
@given(st.lists(st.lists(st.tuples(HALVES, HALVES), max_size=12), max_size=6), st.integers(1, 5))
def test_both_halves_of_a_hash_count(files: list[list[tuple[int, int]]], batch: int) -> None:
    """Hashes that share one half are different keys, wherever a batch ends."""
    numbered = [[hi * 2**64 + lo for hi, lo in pairs] for pairs in files]
    runs = [_run(f"f{index}", pairs, batch) for index, pairs in enumerate(files)]
    with Scratch() as scratch:
        _check(find_duplicates(runs, scratch, 2), numbered)


def test_one_key_in_all_rows_is_one_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group far larger than a batch is counted whole and shown by some of its rows."""
    monkeypatch.setattr(unique, "_BATCH_ROWS", 10)
    store = Store(str(tmp_path))
    for name in "ab":
        _write_keys(store, name, [7] * 1_000)
    with Scratch() as scratch:
        runs = [run for name in "ab" for run in read_keys(store, name, name)]
        found = find_duplicates(runs, scratch)
    assert found.count == 1_999
    assert [len(example) for example in found.examples] == [5]


TABLE = make_batch(
    day=pa.array([date(2026, 11, 20), date(2026, 11, 21), None, date(2026, 11, 20)]),
    flight=["a b", "é/x", "c", "a b"],
    id=[1, 2, 3, 4],
)


@pytest.mark.parametrize("columns", [("day", "flight"), ("flight",), ("flight", "id"), ("day",)])
@pytest.mark.parametrize("partition_by", [(), ("day",), ("day", "flight"), ("flight",)])
def test_a_scored_file_is_hashed_as_its_rows_were(
    tmp_path: Path, columns: tuple[str, ...], partition_by: tuple[str, ...]
) -> None:
    """Keys out of published files, columns in the path among them, equal those of an attempt."""
    store = Store(str(tmp_path))
    expected = set(zip(*(half.tolist() for half in hash_keys(TABLE, columns)), strict=True))
    found = set()
    with Scratch() as scratch:
        for part in split_partitions(TABLE, to_arrow(np.arange(4)), partition_by):
            path = f"data/{part.folder}/x.parquet"
            with store.create(path) as file:
                pq.write_table(pa.Table.from_batches([part.batch]), file)
            values = partition_values(part.folder, TABLE.schema)
            for run in hash_file(store, path, values, columns, hash_keys, scratch):
                assert run.label == path
                (read,) = run.read()
                assert sorted(read["row"].tolist()) == list(range(part.batch.num_rows))
                found |= set(zip(read["hi"].tolist(), read["lo"].tolist(), strict=True))
    assert found == expected


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_a_scored_file_makes_bounded_sorted_runs(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    """Runs of one file together hold each row once, and duplicates in and across them are found."""
    store = Store(str(tmp_path_factory.mktemp("file")))
    with store.create("x.parquet") as file:
        pq.write_table(pa.table({"n": numbers, "other": numbers}), file, row_group_size=7)
    with pytest.MonkeyPatch.context() as patch, Scratch() as scratch:
        patch.setattr(unique, "_BATCH_ROWS", 3)
        patch.setattr(unique, "_RUN_ROWS", 8)
        runs = hash_file(store, "x.parquet", {}, ("n",), hash_keys, scratch)
        assert len(runs) >= len(numbers) // 10
        labelled = [SortedKeys("f0", run.read, run.read_hi) for run in runs]
        _check(find_duplicates(labelled, scratch, 2), [numbers])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([-5, None], pa.int8()),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array(["", "x=y/%é", None]),
        pa.array(["x"], pa.large_string()),
        pa.array([True, False, None]),
        pa.array([date(1969, 1, 2), None]),
        pa.array([datetime(2026, 11, 20, 5, 6, 7, 8), None], pa.timestamp("us")),
        pa.array([1_000_000_001], pa.timestamp("ns")),
        pa.array([datetime(2026, 6, 1, tzinfo=timezone.utc)], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([Decimal("1.50")], pa.decimal128(5, 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_values_in_the_path_are_read_as_they_were(column: pa.Array) -> None:
    """A folder's text becomes the value, of the column's type, that it was made of."""
    batch = make_batch(**{"c/=": column}, x=np.zeros(len(column)))
    for part in split_partitions(batch, to_arrow(np.arange(len(column))), ("c/=",)):
        values = partition_values(part.folder, batch.schema)
        row = part.rows_p[0].as_py()
        assert values == {"c/=": column[row]}


def test_a_path_that_is_no_value_is_an_error() -> None:
    """A partition whose text is not of its column's type, or whose column is unknown, is named."""
    with pytest.raises(RecordError, match=r"partition 'month=x': 'x' is not a value of .*'month'"):
        partition_values("month=x", pa.schema([("month", pa.int64())]))
    with pytest.raises(RecordError, match=r"is not a value of column 'month'"):
        partition_values("month=9", pa.schema([]))


def test_a_file_without_the_key_is_an_error(tmp_path: Path) -> None:
    """A file that lacks a column, is gone or damaged ends in an error that names it."""
    store = Store(str(tmp_path))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    store.write("damaged.parquet", b"PAR1PAR1")
    with Scratch() as scratch:
        hashed = partial(hash_file, hash_keys=hash_keys, scratch=scratch)
        with pytest.raises(RecordError, match=r"x\.parquet: has no column 'b'"):
            hashed(store, "x.parquet", {}, ("a", "b"))
        for name in ("gone.parquet", "damaged.parquet"):
            with pytest.raises(RecordError, match=name):
                hashed(store, name, {}, ("a",))
            with pytest.raises(RecordError, match=name):
                read_keys(store, name, "f")
        with pytest.raises(RecordError, match=r"x\.parquet: damaged"):
            read_keys(store, "x.parquet", "f")


def test_many_runs_take_no_more_files_than_the_fan_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs there are, those read side by side are open, and none afterwards."""
    store = Store(str(tmp_path))
    files = [[number, number + 1] for number in range(40)]
    monkeypatch.setattr(unique, "HI_FAN_IN", 5)
    opened: list[int] = []

    def watched(run: SortedKeys) -> Iterator[Array]:
        for keys_n in run.read():
            opened.append(_opened(tmp_path))
            yield keys_n

    runs = []
    for index, numbers in enumerate(files):
        _write_keys(store, f"{index}", numbers)
        runs += [
            SortedKeys(run.label, partial(watched, run), run.read_hi)
            for run in read_keys(store, f"{index}", f"f{index}")
        ]
    with Scratch() as scratch:
        _check(find_duplicates(runs, scratch, 5), files)
    assert max(opened) == 5
    assert _opened(tmp_path) == 0


def _opened(folder: Path) -> int:
    return sum(Path(file.path).is_relative_to(folder) for file in psutil.Process().open_files())


def test_no_more_is_written_than_leaves_the_fan_in() -> None:
    """One run too many has two runs merged beforehand, not all."""
    runs = [_run(f"f{index}", [(index, 0), (9, 9)], 10) for index in range(6)]
    with Scratch() as scratch:
        assert find_duplicates(runs, scratch, 5).count == 5
        assert scratch._end == 4 * KEY.itemsize


@given(st.lists(st.lists(st.integers(0, 30), max_size=9), max_size=6), st.integers(1, 4))
def test_equal_halves_are_seen_whatever_the_batches(files: list[list[int]], batch: int) -> None:
    """The quick look says yes just where two keys share a first half, in one run or in two."""
    runs = [_run("f", [(number, 0) for number in numbers], batch) for numbers in files]
    every = [number for numbers in files for number in numbers]
    found = unique._agree([run.read_hi for run in runs])
    assert found == (len(set(every)) < len(every))


def test_no_runs_have_no_duplicates() -> None:
    """An empty slice is unique."""
    with Scratch() as scratch:
        assert find_duplicates([], scratch) == Duplicates(0, ())


@pytest.mark.slow
def test_a_large_merge_holds_batches_not_runs(tmp_path: Path) -> None:
    """Merging four million keys takes a small part of their bytes in memory."""
    store = Store(str(tmp_path))
    for index in range(4):
        numbers = np.arange(index * 999_990, index * 999_990 + 1_000_000)
        file = KeysFile(store, f"{index}", ("n",), len(numbers))
        for start in range(0, 1_000_000, 65_536):
            part = to_arrow(numbers[start : start + 65_536])
            file.add(make_batch(n=part), to_arrow(np.arange(start, start + len(part))))
        file.close()
    runs = [run for index in range(4) for run in read_keys(store, f"{index}", f"{index}")]
    before, held = pa.total_allocated_bytes(), list[int]()

    def watched(run: SortedKeys) -> Iterator[Array]:
        for keys_n in run.read():
            held.append(pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
            yield keys_n

    tracemalloc.start()
    with Scratch() as scratch:
        found = find_duplicates(
            [SortedKeys(r.label, partial(watched, r), r.read_hi) for r in runs], scratch
        )
    tracemalloc.stop()
    assert found.count == 30
    assert max(held) < 20_000_000
