"""The element that flows between the stages: one block of rows, with what is known about them.

Suffixes: `_c` rows with one cause, `_r` rejected rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    filter_rows,
    finite_rows,
    spoiled_values,
    text_array,
    to_arrow,
    to_numpy,
)
from batchscore.errors import StepError, UnfitStepError
from batchscore.messages.values import joined_texts
from batchscore.messages.wording import counted
from batchscore.units.record import BadShard
from batchscore.units.unit import Unit


@dataclass(frozen=True)
class End:
    """What the reader counted of a whole unit; rides on the unit's last, empty block.

    Args:
        read: Rows that were read from the shards.
        filtered: Of these, rows that the filter left out.
        blocks: Blocks before this one.
        bad_shards: What was left out, its rows not among `read`.
        done: Whether the unit was finished before, so that nothing was read.
    """

    read: int
    filtered: int
    blocks: int
    bad_shards: tuple[BadShard, ...] = ()
    done: bool = False

    @staticmethod
    def from_json(facts: dict[str, Any]) -> End:
        """Reverses `asdict`."""
        return End(**{**facts, "bad_shards": tuple(BadShard(**s) for s in facts["bad_shards"])})


@dataclass(frozen=True)
class Reject:
    """Rows that a stage could not take, and why.

    Args:
        stage: Where they failed.
        error: The error's class.
        message: What is wrong with them.
        rows_r: int64 numbers of the rows within the unit.
        batch: The rows' source columns.
        details: What is wrong with each row, as texts (r,): the column or output, the value that
            was found, and what was expected; None where the message tells all.
    """

    stage: str
    error: str
    message: str
    rows_r: pa.Array
    batch: pa.RecordBatch
    details: pa.Array | None = None

    @property
    def texts(self) -> pa.Array:
        """The details, which are null where there are none."""
        return pa.nulls(len(self.rows_r), pa.string()) if self.details is None else self.details


@dataclass(frozen=True)
class Cause:
    """Rows of a block that are to be rejected for one cause.

    Args:
        message: What is wrong with all of them.
        rows_c: Their places (c,) in the block.
        details: As in a `Reject`.
    """

    message: str
    rows_c: Array
    details: pa.Array


@dataclass(frozen=True)
class Block:
    """Some rows of one unit.

    Args:
        unit: Whose rows they are.
        sequence: Its place in the unit, from 0.
        rows_b: int64 numbers of the rows within the unit, filtered ones counted.
        batch: The rows' source columns.
        values: Model inputs, then model outputs, then scores, as the stages replace them.
        rejects: Rows that left on the way.
        seconds: Busy seconds by stage.
        end: Set on the unit's last block, which has no rows.
        made: Columns that the job's function made, which checks count.
        pending: Waits for what a device computes, and returns the block with its values; until
            then it has none, and its rejects are those from before.
    """

    unit: Unit
    sequence: int
    rows_b: pa.Array
    batch: pa.RecordBatch
    values: pa.RecordBatch | None = None
    rejects: tuple[Reject, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    end: End | None = None
    made: pa.RecordBatch | None = None
    pending: Callable[[], Block] | None = None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def __bool__(self) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, a slice's share only."""
        values = self.values.nbytes if self.values is not None else 0
        return int(self.batch.nbytes + values)


Step = Callable[[Block], Block]


def settled(block: Block) -> Block:
    """Waits for a block's pending results and returns it with them; any other as it is.

    Raises:
        StepError: A step that the block went through in the meantime failed.
    """
    return block if block.pending is None else block.pending()


def timed(stage: str, step: Step, block: Block) -> Block:
    """Runs a step on a block and adds the seconds that it took; an end marker passes untouched.

    On a block with pending results the step is run once they are there, by who waits for them.

    Raises:
        StepError: The step's own error, with the place of the block in the input.
        UnfitStepError: The step's own error, which any block would meet.
    """
    if block.end is not None:
        return block
    if block.pending is not None:
        return replace(block, pending=lambda: timed(stage, step, settled(block)))
    start = time.perf_counter()
    try:
        done = step(block)
    except UnfitStepError:
        raise
    except StepError as error:
        raise StepError(f"{error} ({_place(block)})") from error
    spent = done.seconds.get(stage, 0.0) + time.perf_counter() - start
    return replace(done, seconds={**done.seconds, stage: spent})


def _place(block: Block) -> str:
    if not len(block):
        return f"in an empty batch of unit {block.unit.id}"
    shards, rows = locate_rows(block.unit, to_numpy(block.rows_b[:1]))
    return f"in the batch of {counted(len(block), 'row')} from row {rows[0]} of shard {shards[0]}"


def locate_rows(unit: Unit, rows_n: Array) -> tuple[pa.Array, pa.Array]:
    """Returns the shard path and the row number within it of rows (n,) numbered by unit."""
    groups = [
        (piece.shard.path, start, size)
        for piece in unit.pieces
        for start, size in zip(piece.starts, piece.sizes, strict=True)
    ]
    begins = np.cumsum([0, *(size for _, _, size in groups)])[:-1]
    index_n = np.searchsorted(begins, rows_n, side="right") - 1
    starts = np.array([start for _, start, _ in groups], np.int64)
    shards = text_array([path for path, _, _ in groups])
    row_n = rows_n - begins[index_n] + starts[index_n]
    return shards.take(to_arrow(index_n.astype(np.int64))), to_arrow(row_n.astype(np.int64))


@contextmanager
def stopwatch(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the seconds spent inside to a stage's."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def reject_rows(
    block: Block,
    bad_b: pa.Array,
    stage: str,
    error: str,
    message: str,
    details: pa.Array | None = None,
) -> Block:
    """Takes the rows where the boolean array (b,) is true out of the block, into its rejects."""
    keep_b = pc.invert(bad_b)
    rows_r, batch = block.rows_b.filter(bad_b), filter_rows(block.batch, bad_b)
    reject = Reject(stage, error, message, rows_r, batch, details)
    return replace(
        block,
        rows_b=block.rows_b.filter(keep_b),
        batch=filter_rows(block.batch, keep_b),
        values=filter_rows(block.values, keep_b) if block.values is not None else None,
        made=filter_rows(block.made, keep_b) if block.made is not None else None,
        rejects=(*block.rejects, reject),
    )


def reject_causes(block: Block, causes: Sequence[Cause], stage: str, error: str) -> Block:
    """Takes the rows of all causes, each row of one cause only, out of the block."""
    left_b = np.arange(len(block))
    for cause in causes:
        bad_b = np.isin(left_b, cause.rows_c)
        block = reject_rows(block, to_arrow(bad_b), stage, error, cause.message, cause.details)
        left_b = left_b[~bad_b]
    return block


def reject_non_finite(
    block: Block,
    stage: str,
    message: str,
    explain: Callable[[pa.Array], pa.Array] | None = None,
) -> Block:
    """Takes rows whose values are not all finite out of a block that has values.

    Args:
        block: Whose rows they are.
        stage: Where they are rejected.
        message: What is wrong with them.
        explain: Takes the mask (b,) of these rows, and returns what each detail ends with.
    """
    assert block.values is not None
    good_b = finite_rows(block.values)
    if good_b.all():
        return block
    bad_b = to_arrow(~good_b)
    details = _non_finite(filter_rows(block.values, bad_b), stage)
    if explain is not None:
        details = joined_texts([details, explain(bad_b)])
    return reject_rows(block, bad_b, stage, "NonFiniteScore", message, details)


def _non_finite(values: pa.RecordBatch, stage: str) -> pa.Array:
    """Returns the first value (b,) of each row that is not finite, with its column's name."""
    noun, rows, texts = ("output" if stage == "infer" else "score"), [], []
    for name, column in zip(values.schema.names, values.columns, strict=True):
        row_n, _, found = spoiled_values(column)
        rows.append(row_n)
        texts.append(joined_texts([f"{noun} {name!r}: ", found, ", expected a finite number"]))
    _, first_b = np.unique(np.concatenate(rows), return_index=True)
    return pa.concat_arrays(texts).take(to_arrow(first_b))


def encode_block(block: Block) -> bytes:
    """Packs a block as Arrow IPC streams behind a JSON header; a slice takes its own rows only."""
    parts = [pa.record_batch([block.rows_b], names=["row"]), block.batch]
    parts += [each for each in (block.values, block.made) if each is not None]
    for reject in block.rejects:
        texts = pa.record_batch([reject.rows_r, reject.texts], names=["row", "detail"])
        parts += [texts, reject.batch]
    blobs = [_encode_batch(part) for part in parts]
    header = {
        "unit": block.unit.to_json(),
        "sequence": block.sequence,
        "values": block.values is not None,
        "made": block.made is not None,
        "rejects": [[r.stage, r.error, r.message] for r in block.rejects],
        "seconds": block.seconds,
        "end": None if block.end is None else asdict(block.end),
        "sizes": [len(blob) for blob in blobs],
    }
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *blobs])


def decode_block(data: bytes) -> Block:
    """Reverses `encode_block`."""
    length = int.from_bytes(data[:4], "little")
    header: dict[str, Any] = json.loads(data[4 : 4 + length])
    parts = list(_decode_batches(memoryview(data)[4 + length :], header["sizes"]))
    rows, batch = parts[0].column(0), parts[1]
    values = parts[2] if header["values"] else None
    made = parts[2 + header["values"]] if header["made"] else None
    pairs = parts[2 + header["values"] + header["made"] :]
    rejects = tuple(
        Reject(stage, error, message, texts.column(0), source, texts.column(1))
        for (stage, error, message), texts, source in zip(
            header["rejects"], pairs[::2], pairs[1::2], strict=True
        )
    )
    end = End.from_json(header["end"]) if header["end"] else None
    unit = Unit.from_json(header["unit"])
    return Block(
        unit, header["sequence"], rows, batch, values, rejects, header["seconds"], end, made
    )


def _encode_batch(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _decode_batches(data: memoryview, sizes: list[int]) -> Iterator[pa.RecordBatch]:
    start = 0
    for size in sizes:
        with pa.ipc.open_stream(pa.py_buffer(data[start : start + size])) as reader:
            yield reader.read_next_batch()
        start += size
