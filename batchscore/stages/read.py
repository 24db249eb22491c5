"""Parquet row groups to blocks of one fixed row count, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.arrays import to_arrow
from batchscore.errors import InputError, StepError
from batchscore.stages.block import Block, End
from batchscore.storage import modification_mark, open_filesystem
from batchscore.units import Piece, Shard, Unit
from batchscore.wording import reason

_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """How every unit of a run is read.

    Args:
        schema: the columns that the stages see, hive keys among them, in order.
        filters: pyarrow's DNF form, or None.
        batch_rows: rows of a block.
        threads: whether columns are decoded side by side.
    """

    schema: pa.Schema
    filters: Any
    batch_rows: int
    threads: bool = False


def open_parquet(path: str) -> pq.ParquetFile:
    """Opens a shard so that a row group is read page by page, not as a whole.

    Raises:
        InputError: it is not there, not Parquet, cut off, or empty.
    """
    try:
        filesystem, inner = open_filesystem(path)
        local = "file" in filesystem.protocol
        source = inner if local else filesystem.open(inner, "rb", cache_type="readahead")
        return pq.ParquetFile(source, pre_buffer=False, buffer_size=_READ_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"shard {path}: no such file; was it removed meanwhile?") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"shard {path}: not a readable Parquet file ({reason(error)}); "
            "write it again or take it out of input.path"
        ) from error


def read_unit(unit: Unit, source: Source) -> Iterator[Block]:
    """Yields a unit's blocks of `batch_rows` kept rows (the last may have fewer), then its end.

    Rows keep their order; blocks go on across the shards of a pack. Busy seconds stand in
    each block under `read`.

    Raises:
        InputError, StepError: a shard cannot be read, or changed since it was planned.
    """
    counts = {"read": 0, "blocks": 0, "kept": 0}
    start = time.perf_counter()
    for rows, batch in _cut(_kept_rows(unit, source, counts), source.batch_rows):
        spent = time.perf_counter() - start
        yield Block(unit, counts["blocks"], rows, batch, seconds={"read": spent})
        counts["blocks"] += 1
        counts["kept"] += batch.num_rows
        start = time.perf_counter()
    end = End(counts["read"], counts["read"] - counts["kept"], counts["blocks"])
    empty = source.schema.empty_table().to_batches(max_chunksize=1)
    batch = empty[0] if empty else pa.RecordBatch.from_pylist([], schema=source.schema)
    yield Block(unit, counts["blocks"], to_arrow(np.empty(0, np.int64)), batch, end=end)


def _kept_rows(
    unit: Unit, source: Source, counts: dict[str, int]
) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    condition = pq.filters_to_expression(source.filters) if source.filters else None
    for piece in unit.pieces:
        for batch in _read_piece(piece, source):
            first = counts["read"]
            counts["read"] += batch.num_rows
            rows = to_arrow(np.arange(first, first + batch.num_rows, dtype=np.int64))
            if condition is not None:
                numbered = batch.append_column("", rows).filter(condition)
                rows, batch = numbered.columns[-1], numbered.select(range(batch.num_columns))
            yield rows, batch


def _read_piece(piece: Piece, source: Source) -> Iterator[pa.RecordBatch]:
    shard = piece.shard
    check_unchanged(shard)
    keys = dict(shard.keys)
    columns = [name for name in source.schema.names if name not in keys]
    with open_parquet(shard.path) as file:
        try:
            for row_groups in _groups(piece, source.batch_rows):
                for batch in file.iter_batches(
                    source.batch_rows, row_groups, columns, use_threads=source.threads
                ):
                    yield conform(batch, source.schema, keys)
        except (pa.ArrowException, OSError) as error:
            raise StepError(
                f"shard {shard.path}: cannot be read to its end ({reason(error)}); "
                "write it again or take it out of input.path"
            ) from error


def _groups(piece: Piece, batch_rows: int) -> Iterator[list[int]]:
    """Yields row groups to open at a time: about a block of small ones, or a single large one.

    Arrow keeps the read buffers of all that were opened together until the last is done.
    """
    pending, rows = list[int](), 0
    for row_group, size in zip(piece.row_groups, piece.sizes, strict=True):
        if pending and rows + size > batch_rows:
            yield pending
            pending, rows = [], 0
        pending.append(row_group)
        rows += size
    if pending:
        yield pending


def check_unchanged(shard: Shard) -> None:
    """Raises StepError when a shard is not the file any more that was planned."""
    filesystem, inner = open_filesystem(shard.path)
    try:
        info = filesystem.info(inner)
    except FileNotFoundError as error:
        raise StepError(f"shard {shard.path}: was removed after planning; run again") from error
    if (info["size"], modification_mark(info)) != (shard.size, shard.mark):
        raise StepError(f"shard {shard.path}: was rewritten after planning; run again")


def conform(batch: pa.RecordBatch, schema: pa.Schema, keys: dict[str, Any]) -> pa.RecordBatch:
    """Orders and casts a shard's columns to the run's schema; hive keys become constants."""
    columns = []
    for field in schema:
        if field.name in keys:
            columns.append(pa.repeat(pa.scalar(keys[field.name], field.type), batch.num_rows))
        else:
            column = batch.column(field.name)
            columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cut(
    parts: Iterator[tuple[pa.Array, pa.RecordBatch]], size: int
) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    """Joins and splits batches so that each but the last has exactly `size` rows."""
    pending: list[tuple[pa.Array, pa.RecordBatch]] = []
    held = 0
    for part in parts:
        pending.append(part)
        held += part[1].num_rows
        while held >= size:
            rows, batch = _join(pending)
            yield rows[:size], batch[:size]
            held -= size
            pending = [(rows[size:], batch[size:])] if held else []
    if held:
        yield _join(pending)


def _join(parts: list[tuple[pa.Array, pa.RecordBatch]]) -> tuple[pa.Array, pa.RecordBatch]:
    filled = [part for part in parts if part[1].num_rows]
    if len(filled) == 1:
        return filled[0]
    rows, batches = zip(*filled, strict=True)
    return pa.concat_arrays(rows), pa.concat_batches(batches)
