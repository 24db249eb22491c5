"""Test that a block keeps its rows through packing and rejecting, and counts its own bytes only."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.stages.block import (
    Block,
    End,
    Reject,
    decode_block,
    encode_block,
    reject_rows,
    stopwatch,
    timed,
)
from batchscore.units.unit import Piece, Shard, Unit
from tests.factory import make_batch, make_block

UNIT = Unit(
    "u", (Piece(Shard("p", 1, "m", 9, (("month", 9), ("c", None))), (0, 2), (0, 5), (5, 4)),)
)
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float": (pa.float32(), st.floats(width=32)),
    "text": (pa.string(), st.text(max_size=5)),
    "bool": (pa.bool_(), st.booleans()),
    "time": (pa.timestamp("us", "UTC"), st.integers(-(2**40), 2**40)),
    "fixed": (pa.list_(pa.float32(), 2), st.lists(st.floats(width=32), min_size=2, max_size=2)),
    "list": (pa.list_(pa.int8()), st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    "code": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y"])),
    "null": (pa.null(), st.none()),
}
FLOATS = st.lists(st.floats(width=32), min_size=20, max_size=20)


@st.composite
def batches(draw: st.DrawFn, rows: int) -> pa.RecordBatch:
    """A batch with some of the columns, most often a slice of a longer one."""
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, min_size=1))
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    size = before + rows + after
    columns = []
    for name in names:
        kind, values = KINDS[name]
        cells = draw(st.lists(st.none() | values, min_size=size, max_size=size))
        columns.append(pa.array(cells, kind))
    return pa.RecordBatch.from_arrays(columns, names=names).slice(before, rows)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """A block at any stage, with any rejects, or a unit's end."""
    rows = draw(st.integers(0, 6))
    numbers = pa.array(np.arange(100))[draw(st.integers(0, 90)) :][:rows]
    rejects = []
    for count in draw(st.lists(st.integers(0, 3), max_size=2)):
        text = draw(st.text(max_size=9))
        taken = pa.array(np.arange(count))
        rejects.append(Reject("infer", "Odd", text, taken, draw(batches(count))))
    return Block(
        UNIT,
        draw(st.integers(0, 9)),
        numbers,
        draw(batches(rows)),
        draw(st.none() | batches(rows)),
        tuple(rejects),
        draw(st.dictionaries(st.sampled_from(["read", "infer"]), st.floats(0, 1e9))),
        draw(st.none() | st.builds(End, *[st.integers(0, 99)] * 3)),
        draw(st.none() | batches(rows)),
    )


def _bits(batch: pa.RecordBatch | None) -> bytes:
    """The batch as IPC of its rows, in which NaN is equal to itself."""
    if batch is None:
        return b"none"
    table = pa.Table.from_batches([batch]).to_pylist()
    return f"{batch.schema} {table}".encode()


def _facts(block: Block) -> list[Any]:
    rejects = [
        (r.stage, r.error, r.message, r.rows_r.to_pylist(), _bits(r.batch)) for r in block.rejects
    ]
    known = [block.unit, block.sequence, block.rows_b.to_pylist(), block.seconds, block.end]
    return [*known, *map(_bits, (block.batch, block.values, block.made)), rejects]


@pytest.mark.slow
@settings(deadline=None)
@given(blocks())
def test_a_block_survives_packing(block: Block) -> None:
    """All that a block holds comes back: rows of any type, sliced or none, rejects and its end."""
    assert _facts(decode_block(encode_block(block))) == _facts(block)


@pytest.mark.slow
@settings(deadline=None)
@given(FLOATS, st.text(max_size=9), st.integers(0, 19))
def test_floats_survive_packing_bitwise(numbers: list[float], text: str, start: int) -> None:
    """Every float comes back to the bit, wherever the header's length puts it in memory."""
    values = np.array(numbers, np.float32)
    batch = make_batch(x=to_arrow(values))[start:]
    reject = Reject("s", "E", text, to_arrow(np.arange(1)), batch[:1])
    back = decode_block(encode_block(make_block(batch, rejects=(reject,))))
    found = np.array(back.batch.column("x").to_numpy(zero_copy_only=False), np.float32)
    assert found.tobytes() == values[start:].tobytes()


def test_a_slice_packs_small() -> None:
    """Ten rows out of 100,000 take the bytes of ten, in columns, model inputs and rejects."""
    whole = make_batch(
        x=np.arange(100_000.0),
        text=[f"row {i}" for i in range(100_000)],
        vector=to_arrow(np.ones((100_000, 32), np.float32)),
    )
    part = whole[5_000:5_010]
    reject = Reject("s", "E", "m", to_arrow(np.arange(10)), part)
    block = make_block(part, values=part, rejects=(reject,))
    assert len(encode_block(make_block(whole))) > 10_000_000
    assert len(encode_block(block)) < 20_000
    assert block.nbytes < 10_000


def test_a_block_has_its_rows_as_length_and_is_true_without_any() -> None:
    """Beam counts a block's rows by len(), and an empty block is not taken for nothing."""
    empty = make_block(make_batch(x=[1, 2]).slice(2))
    assert (len(make_block(make_batch(x=[1, 2]))), len(empty), bool(empty)) == (2, 0, True)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_rejecting_parts_the_rows(marks: list[tuple[bool, bool]]) -> None:
    """After two stages have rejected rows, each row is kept or rejected once, all in order."""
    block = make_block(make_batch(x=np.arange(len(marks)) * 10))
    block = replace(block, values=make_batch(y=np.arange(len(marks)) * 2))
    block = reject_rows(block, pa.array([a for a, _ in marks], pa.bool_()), "one", "A", "m")
    left = [b for a, b in marks if not a]
    block = reject_rows(block, pa.array(left, pa.bool_()), "two", "B", "m")
    first, second = block.rejects
    numbers = [block.rows_b.to_pylist(), first.rows_r.to_pylist(), second.rows_r.to_pylist()]
    expected = [[], [], []]  # type: list[list[int]]
    for row, (a, b) in enumerate(marks):
        expected[1 if a else 2 if b else 0].append(row)
    assert numbers == expected
    for rows, batch in zip(numbers, [block.batch, first.batch, second.batch], strict=True):
        assert batch.column("x").to_pylist() == [row * 10 for row in rows]
    assert block.values is not None
    assert block.values.column("y").to_pylist() == [row * 2 for row in numbers[0]]


def test_busy_seconds_add_up() -> None:
    """A step's time is added to what its stage spent before; other stages keep theirs."""

    def step(block: Block) -> Block:
        time.sleep(0.01)
        return block

    block = make_block(make_batch(x=[1]), seconds={"infer": 5.0, "read": 1.0})
    done = timed("infer", step, block)
    assert done.seconds["infer"] >= 5.01
    assert done.seconds["read"] == 1.0
    assert block.seconds == {"infer": 5.0, "read": 1.0}


def test_an_end_passes_every_step_untouched() -> None:
    """No step is called on a unit's end."""
    end = make_block(make_batch(x=[1]).slice(1), end=End(1, 1, 0))
    assert timed("infer", lambda _: pytest.fail("called"), end) is end


def test_a_stopwatch_counts_what_failed_too() -> None:
    """The time up to an error belongs to the stage as well."""
    seconds = {"write": 1.0}
    with pytest.raises(KeyError), stopwatch(seconds, "write"):
        raise KeyError
    assert seconds["write"] > 1.0
