"""Test that a unit's writer accounts for every row and tells where each one came from."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.runs.lineage import source_rows
from batchscore.runs.unique import Duplicates, Scratch, find_duplicates, read_keys
from batchscore.stages.block import Block, End, locate_rows, reject_rows
from batchscore.stages.trial import Trial
from batchscore.stages.write import (
    REASONS,
    Attempt,
    Target,
    UnitWriter,
    reject_table,
    scored_batch,
)
from batchscore.storage.store import Store
from batchscore.units.record import BadShard, UnitRecord
from batchscore.units.unit import Piece, Shard, Unit
from tests.factory import make_batch, make_block, make_unit

TARGET = Target(("id", "part"), ("part",), "1.0")


def _block(unit: Unit, sequence: int, first: int, rows: int, bad: tuple[int, ...] = ()) -> Block:
    numbers = np.arange(first, first + rows)
    block = make_block(
        make_batch(id=numbers, part=[f"p{n % 2}" for n in numbers]),
        unit=unit,
        sequence=sequence,
        rows_b=to_arrow(numbers),
        values=make_batch(score=np.linspace(0, 1, rows, dtype=np.float32)),
        seconds={"infer": 1.0},
    )
    marks = pa.array([row in bad for row in range(rows)])
    return reject_rows(block, marks, "infer", "NonFiniteScore", "NaN") if bad else block


def _writer(
    store: Store,
    unit: Unit,
    profiled: list[pa.RecordBatch] | None = None,
    trial: Trial | None = None,
) -> UnitWriter:
    seen = [] if profiled is None else profiled
    return UnitWriter(store, _attempt(unit), TARGET, seen.append, trial or Trial(False))


def _attempt(unit: Unit) -> Attempt:
    return Attempt(unit, "attempt", "run", "s/attempt", "ledger")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An output on disk and one in memory."""
    if request.param == "local":
        yield Store(str(tmp_path))
        return
    yield Store("memory://write-test")
    fsspec.filesystem("memory").rm("/write-test", recursive=True)


def _table(store: Store, path: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(path)))


def _written(store: Store) -> tuple[UnitRecord, list[pa.RecordBatch]]:
    unit, profiled = make_unit(12), list[pa.RecordBatch]()
    writer = _writer(store, unit, profiled)
    writer.add(_block(unit, 0, 0, 5, bad=(1, 4)))
    writer.add(_block(unit, 1, 5, 5))
    return writer.finish(End(12, 2, 2)), profiled


def test_a_record_accounts_for_every_row(store: Store) -> None:
    """Read, filtered, scored and rejected rows, reasons, columns and busy seconds are recorded."""
    record, _ = _written(store)
    assert (record.read, record.filtered, record.scored, record.rejected) == (12, 2, 8, 2)
    assert record.reject_reasons == {"infer: NonFiniteScore: NaN": 2}
    assert [name for name, _ in record.columns] == ["id", "part", "score", "model_version"]
    assert record.seconds["infer"] == 2.0
    assert {"write", "profile"} <= set(record.seconds)
    assert sum(file.rows for file in record.files) == 8
    assert (record.unit, record.attempt, record.run) == ("unit12", "attempt", "run")
    assert (record.planned, record.pieces) == (12, make_unit(12).pieces)
    assert (record.bad_shards, record.keys_file, record.keys_columns) == ((), None, ())


def test_the_files_hold_the_scored_rows(store: Store) -> None:
    """Each file has the passed-through columns, scores and version of its partition's rows."""
    record, _ = _written(store)
    assert [file.partition for file in record.files] == ["part=p0", "part=p1"]
    tables = [_table(store, file.staged) for file in record.files]
    assert [table["id"].to_pylist() for table in tables] == [[0, 2, 6, 8], [3, 5, 7, 9]]
    assert tables[0].schema.names == ["id", "score", "model_version"]
    assert tables[0]["model_version"].unique().to_pylist() == ["1.0"]


def test_the_rejects_are_whole_when_the_record_is_there(store: Store) -> None:
    """A rejected row is written with its source columns, shard, row, stage and reason, readable."""
    record, _ = _written(store)
    assert record.rejects_file is not None
    rejects = _table(store, record.rejects_file).to_pylist()
    assert [row["id"] for row in rejects] == [1, 4]
    assert [row["_row"] for row in rejects] == [1, 4]
    assert rejects[0]["_shard"] == "x.parquet"
    assert (rejects[0]["_stage"], rejects[0]["_error"]) == ("infer", "NonFiniteScore")


def test_what_is_scored_is_profiled(store: Store) -> None:
    """The profile sees written rows with their scores, and rejected ones without."""
    _, profiled = _written(store)
    scored = [batch for batch in profiled if "score" in batch.schema.names]
    assert [batch.num_rows for batch in scored] == [3, 5]
    assert scored[0].schema.names == ["id", "part", "score"]
    rejected = [batch for batch in profiled if "score" not in batch.schema.names]
    assert [batch["id"].to_pylist() for batch in rejected] == [[1, 4]]
    assert rejected[0].schema.names == ["id", "part"]


def test_a_unit_that_keeps_no_row_has_no_file(store: Store) -> None:
    """All rows filtered, or rejected, leave a record without files of scores."""
    unit = make_unit(3)
    filtered = _writer(store, unit).finish(End(3, 3, 0))
    assert (filtered.files, filtered.rejects_file, filtered.columns) == ((), None, ())
    assert (filtered.rows_file, filtered.keys_file, filtered.score_ranges) == (None, None, {})
    writer = _writer(store, unit)
    writer.add(_block(unit, 0, 0, 3, bad=(0, 1, 2)))
    rejected = writer.finish(End(3, 0, 1))
    assert (rejected.files, rejected.rejected) == ((), 3)
    assert rejected.rejects_file is not None


@pytest.mark.parametrize(
    "end",
    [End(11, 2, 2), End(12, 1, 2), End(12, 3, 2), End(12, 2, 1), End(12, 2, 3)],
    ids=["read", "filtered less", "filtered more", "blocks less", "blocks more"],
)
def test_an_end_that_does_not_add_up_is_refused(tmp_path: Path, end: End) -> None:
    """A count of the reader's that differs from what came is an error, and no record is made."""
    unit = make_unit(12)
    writer = _writer(Store(str(tmp_path)), unit)
    writer.add(_block(unit, 0, 0, 5))
    writer.add(_block(unit, 1, 5, 5))
    with pytest.raises(StepError, match="rows"):
        writer.finish(end)


@pytest.mark.parametrize("sequences", [[1], [0, 0], [0, 2], [0, 1, 0]], ids=str)
def test_a_block_out_of_turn_is_refused(tmp_path: Path, sequences: list[int]) -> None:
    """A block that is missing, doubled or late tells that the stages were torn apart."""
    unit = make_unit(10)
    writer = _writer(Store(str(tmp_path)), unit)
    *good, last = sequences
    for sequence in good:
        writer.add(_block(unit, sequence, 0, 2))
    with pytest.raises(StepError, match=f"block {last} came where {len(good)} was expected"):
        writer.add(_block(unit, last, 0, 2))
    writer.abort()


def test_scores_that_change_their_type_are_refused(tmp_path: Path) -> None:
    """A column that is a float in one block and an integer in the next is an error."""
    unit = make_unit(4)
    writer = _writer(Store(str(tmp_path)), unit)
    writer.add(_block(unit, 0, 0, 2))
    with pytest.raises(StepError, match=r"score float.*score int64"):
        writer.add(replace(_block(unit, 1, 2, 2), values=make_batch(score=[1, 2])))
    writer.abort()


@pytest.mark.parametrize("name", ["id", "model_version"])
def test_a_score_with_another_columns_name_is_refused(name: str) -> None:
    """Neither a passed-through column nor the version is overwritten by a score."""
    block = make_block(make_batch(id=[1], part=["p"]), values=make_batch(**{name: [0.5]}))
    with pytest.raises(StepError, match=f"'{name}' would appear twice"):
        scored_batch(block, TARGET)


def _opened(folder: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.resolve().is_relative_to(folder) for link in links)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("finish", [True, False])
def test_no_file_stays_open(tmp_path: Path, finish: bool) -> None:
    """After finish and after abort every handle is closed, the rejects' among them."""
    unit = make_unit(5)
    writer = _writer(Store(str(tmp_path)), unit)
    writer.add(_block(unit, 0, 0, 5, bad=(1,)))
    if finish:
        writer.finish(End(5, 0, 1))
    else:
        writer.abort()
    assert _opened(tmp_path) == 0
    del writer
    gc.collect()


def test_an_error_of_the_thread_is_raised(tmp_path: Path) -> None:
    """What fails behind the stages, here the profile, fails the unit; abort ends it quietly."""
    unit = make_unit(5)

    def fail(_: pa.RecordBatch) -> None:
        raise OSError("no space left")

    writer = UnitWriter(Store(str(tmp_path)), _attempt(unit), TARGET, fail, Trial(False))
    writer.add(_block(unit, 0, 0, 5))
    with pytest.raises(OSError, match="no space left"):
        writer.finish(End(5, 0, 1))
    writer.abort()


GROUPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=8)


@given(st.lists(GROUPS, min_size=1, max_size=3))
def test_a_rows_number_leads_to_its_shard_and_row(layout: list[list[tuple[int, int]]]) -> None:
    """Counting through any row groups, empty and pruned ones among them, finds every row again."""
    pieces, expected = [], list[tuple[str, int]]()
    for number, groups in enumerate(layout):
        starts, sizes, row = [], [], 0
        for skipped, size in groups:
            row += skipped
            starts.append(row)
            sizes.append(size)
            expected += [(f"{number}", row + index) for index in range(size)]
            row += size
        shard = Shard(f"{number}", 1, "m", row)
        pieces.append(Piece(shard, tuple(range(len(groups))), tuple(starts), tuple(sizes)))
    unit = Unit("u", tuple(pieces))
    shards, rows = locate_rows(unit, np.arange(unit.rows))
    found: list[Any] = list(zip(shards.to_pylist(), to_numpy(rows).tolist(), strict=True))
    assert found == expected


@pytest.mark.parametrize("rows", [255, 256])
def test_a_unit_of_which_nothing_was_scored(store: Store, rows: int) -> None:
    """256 rows without a score are the model's fault, for whatever reasons; 255 are not."""
    unit = make_unit(rows)
    writer = _writer(store, unit)
    writer.add(_block(unit, 0, 0, 100, bad=tuple(range(100))))
    writer.add(_relabelled(_block(unit, 1, 100, rows - 100, bad=tuple(range(rows - 100))), "odd"))
    if rows < 256:
        assert writer.finish(End(rows, 0, 2)).rejected == rows
        return
    with pytest.raises(StepError, match=r"none of 256 rows of a unit was scored.*156 for one"):
        writer.finish(End(rows, 0, 2))


@pytest.mark.parametrize("before", [0, 1])
def test_a_model_that_rejects_all_is_stopped_early(store: Store, before: int) -> None:
    """256 rows rejected for one reason end the unit at once, unless a row was scored before."""
    unit = make_unit(10_000)
    writer = _writer(store, unit)
    writer.add(_block(unit, 0, 0, 100 + before, bad=tuple(range(100))))
    last = _block(unit, 1, 100 + before, 156, bad=tuple(range(156)))
    if before:
        writer.add(last)
    else:
        with pytest.raises(StepError, match=r"none of 256 rows of a unit was scored"):
            writer.add(last)
    writer.abort()


def test_after_a_row_was_scored_no_unit_is_taken_for_a_failure_of_the_model(store: Store) -> None:
    """A unit of nothing but rejects ends with its record, once another had a row scored."""
    unit, trial = make_unit(300), Trial(False)
    first = _writer(store, make_unit(1), trial=trial)
    first.add(_block(make_unit(1), 0, 0, 1))
    writer = _writer(store, unit, trial=trial)
    writer.add(_block(unit, 0, 0, 300, bad=tuple(range(300))))
    assert writer.finish(End(300, 0, 1)).rejected == 300
    first.abort()


def _relabelled(block: Block, *messages: str) -> Block:
    """The block with each reject's rows dealt out to rejects with other messages."""
    (whole,) = block.rejects
    size = len(whole.rows_r) // len(messages)
    cuts = [slice(i * size, (i + 1) * size) for i in range(len(messages))]
    return replace(
        block,
        rejects=tuple(
            replace(whole, message=m, rows_r=whole.rows_r[c], batch=whole.batch[c])
            for m, c in zip(messages, cuts, strict=True)
        ),
    )


def test_reasons_are_bounded_and_the_file_keeps_every_message(store: Store) -> None:
    """Beyond 50 messages rows are counted by their error, and beyond 100 texts by their stage."""
    unit = make_unit(800)
    writer = _writer(store, unit)
    for sequence, errors in enumerate((["E0"] * 60, [f"E{n}" for n in range(1, 61)])):
        block = _block(unit, sequence, sequence * 400, 400, bad=tuple(range(60)))
        block = _relabelled(block, *(f"m{n}" for n in range(60)))
        rejects = zip(block.rejects, errors, strict=True)
        named = tuple(replace(reject, error=error) for reject, error in rejects)
        writer.add(replace(block, rejects=named))
    record = writer.finish(End(800, 0, 2))
    reasons = record.reject_reasons
    assert [reasons[f"infer: E0: m{n}"] for n in range(50)] == [1] * 50
    assert reasons["infer: E0: other messages"] == 10
    assert reasons["infer: E49: other messages"] == 1
    assert reasons["infer: other errors"] == 11
    assert len(reasons) == 2 * REASONS + 1
    assert sum(reasons.values()) == record.rejected == 120
    assert record.rejects_file is not None
    messages = _table(store, record.rejects_file)["_message"].to_pylist()
    assert messages == [f"m{n}" for n in range(60)] * 2
    rejects_file = pq.ParquetFile(pa.BufferReader(store.read(record.rejects_file)))
    assert rejects_file.num_row_groups == 2


def test_a_source_column_named_as_a_facts_is_renamed(tmp_path: Path) -> None:
    """The rejects file has each name once, and the input's own columns are whole."""
    names = ["_shard", "_row", "_stage", "_error", "_message", "_detail", "input._row", "id"]
    columns = {name: [f"my {name}", ""] for name in names}
    block = make_block(make_batch(**columns), unit=make_unit(2), values=make_batch(score=[1.0, 2]))
    marked = reject_rows(block, pa.array([True, False]), "infer", "E", "why")
    pq.write_table(reject_table(marked.rejects, block.unit), tmp_path / "rejects.parquet")
    (row,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    facts = [row.pop(name) for name in names[:6]]
    assert facts == ["x.parquet", 0, "infer", "E", "why", None]
    assert row == {
        **{f"input.{name}": f"my {name}" for name in (names[0], *names[2:6])},
        "input.input._row": "my _row",
        "input._row": "my input._row",
        "id": "my id",
    }


def test_rejects_of_one_block_keep_their_own_facts(store: Store) -> None:
    """Rows rejected for several reasons keep their own row, source columns and message."""
    unit = make_unit(10)
    writer = _writer(store, unit)
    writer.add(_relabelled(_block(unit, 0, 0, 10, bad=(2, 3, 5, 8)), "a", "b"))
    record = writer.finish(End(10, 0, 1))
    assert record.rejects_file is not None
    rejects = _table(store, record.rejects_file).to_pylist()
    found = [(row["_row"], row["id"], row["_message"]) for row in rejects]
    assert found == [(2, 2, "a"), (3, 3, "a"), (5, 5, "b"), (8, 8, "b")]


def test_rows_of_shards_left_out_are_reconciled(store: Store) -> None:
    """Rows read and rows of bad shards together are what the footers promise, else an error."""
    bad = (BadShard("y.parquet", 4, "cut off"), BadShard("z.parquet", 3, "gone"))
    for rows in (12, 13):
        unit = make_unit(rows)
        writer = _writer(store, unit)
        writer.add(_block(unit, 0, 0, 5))
        if rows == 12:
            assert writer.finish(End(5, 0, 1, bad)).bad_shards == bad
        else:
            with pytest.raises(StepError, match=r"5 rows were read and 7 left out, but .* 13;"):
                writer.finish(End(5, 0, 1, bad))


def test_written_rows_lead_to_their_source_rows(store: Store) -> None:
    """Every row of every file has its number within the unit, rejected and filtered rows or not."""
    record, _ = _written(store)
    assert record.rows_file == "ledger/attempt.rows.parquet"
    for file in record.files:
        numbers = np.concatenate(list(source_rows(store, record, file.staged)))
        assert numbers.tolist() == _table(store, file.staged)["id"].to_pylist()


def test_the_key_of_every_written_row_is_kept(store: Store) -> None:
    """Two rows with one key are found by their numbers, whatever partitions they went to."""
    unit = make_unit(10)
    target = replace(TARGET, unique=("id",))
    writer = UnitWriter(store, _attempt(unit), target, lambda _: None, Trial(False))
    writer.add(_block(unit, 0, 0, 5, bad=(1,)))
    again = _block(unit, 1, 4, 5)
    writer.add(replace(again, rows_b=to_arrow(np.arange(5, 10))))
    record = writer.finish(End(10, 0, 2))
    assert (record.keys_file, record.keys_columns) == ("ledger/attempt.keys.parquet", ("id",))
    assert record.keys_file is not None
    with Scratch() as scratch:
        found = find_duplicates(read_keys(store, record.keys_file, "u"), scratch)
    assert found == Duplicates(1, ((("u", 4), ("u", 5)),))


def test_the_range_of_every_score_of_numbers_is_kept(store: Store) -> None:
    """Smallest and largest of integers, floats and lists of them, over all blocks."""
    unit = make_unit(4)
    writer = _writer(store, unit)
    for sequence, first in enumerate((1, -7)):
        values = make_batch(
            whole=pa.array([first, None], pa.int32()),
            half=pa.array([first / 2, 0], pa.float16()),
            lists=[[0.25], [first, 3.5]],
            fixed=pa.array([[1, first], [2, 3]], pa.list_(pa.float32(), 2)),
            label=["a", "b"],
            flag=[True, False],
            empty=pa.array([[], None], pa.list_(pa.int8())),
            exact=pa.array([Decimal(first) / 4, None], pa.decimal128(5, 2)),
            encoded=pa.array([first, 2]).dictionary_encode(),
        )
        block = _block(unit, sequence, 2 * sequence, 4)
        kept = replace(block, batch=block.batch[2:], rows_b=block.rows_b[2:], values=values)
        writer.add(kept)
    ranges = writer.finish(End(4, 0, 2)).score_ranges
    assert ranges == {
        "whole": (-7.0, 1.0),
        "half": (-3.5, 0.5),
        "lists": (-7.0, 3.5),
        "fixed": (-7.0, 3.0),
        "exact": (-1.75, 0.25),
        "encoded": (-7.0, 2.0),
    }
    assert {type(bound) for pair in ranges.values() for bound in pair} == {float}


def test_a_discarded_attempt_leaves_nothing(tmp_path: Path) -> None:
    """Files, sidecars and handles of an attempt go, in its middle or done; others' files stay."""
    store = Store(str(tmp_path))
    store.write("ledger/other.rows.parquet", b"")
    unit = make_unit(5)
    for finish in (False, True):
        target = replace(TARGET, unique=("id",))
        writer = UnitWriter(store, _attempt(unit), target, lambda _: None, Trial(False))
        writer.add(_block(unit, 0, 0, 5, bad=(1,)))
        if finish:
            record = writer.finish(End(5, 0, 1))
            written = [f.staged for f in record.files]
            assert store.exists(str(record.rows_file))
            assert store.exists(str(record.keys_file))
            assert all(store.exists(path) for path in written)
        writer.discard()
        assert _opened(tmp_path) == 0
        assert store.names("s") == []
        assert store.names("ledger") == ["other.rows.parquet"]


def test_a_discarded_attempt_that_wrote_nothing_is_fine(store: Store) -> None:
    """Discarding before the first block, and twice, is no error."""
    writer = _writer(store, make_unit(5))
    store.write("ledger/x", b"")
    writer.discard()
    writer.discard()
