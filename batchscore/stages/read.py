"""Parquet row groups to blocks of one fixed row count, in bounded memory."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import make_batch, to_arrow
from batchscore.errors import ShardError
from batchscore.messages.terms import JOB, Terms
from batchscore.messages.wording import counted_were, one_line, reason
from batchscore.stages import sizing
from batchscore.stages.ahead import read_ahead
from batchscore.stages.as_planned import check_footer, check_values
from batchscore.stages.block import Block, End
from batchscore.stages.filters import filter_expression
from batchscore.stages.int96 import GUARD, Int96Guard
from batchscore.storage.marks import is_linked_mark, linked_mark, size_and_mark
from batchscore.storage.parquet import open_parquet
from batchscore.storage.store import open_filesystem
from batchscore.units.record import BadShard
from batchscore.units.unit import Piece, Shard, Unit

# A batch, and how many rows like its own make a block.
_Sized: TypeAlias = tuple[pa.RecordBatch, int]
_Numbered: TypeAlias = tuple[pa.Array, pa.RecordBatch, int]
_BLOCKS_AHEAD = 2
_LOCAL_BUFFER_BYTES = 1 << 17  # of each column; fresh memory costs more than another read
_RETRY_SECONDS = 1.0
_OPENED_AS = re.compile(r"^Could not open Parquet input source '.*?': ")
_ENCRYPTED = re.compile("no decryption found|Cannot decrypt")
# No value of one is a value of another, though Arrow casts between them.
_FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_temporal,
    lambda kind: kind in (pa.string(), pa.large_string(), pa.string_view()),
    lambda kind: kind in (pa.binary(), pa.large_binary(), pa.binary_view()),
)


@dataclass(frozen=True)
class Source:
    """How every unit of a run is read.

    Args:
        schema: The columns that the stages see, hive keys among them, in order.
        filters: DNF as in pyarrow, or None.
        batch_rows: Rows of a block.
        threads: Columns, or small shards, that are decoded side by side.
        int96: The unit that INT96 timestamps are read in, `ns` or `us`; None: there are none.
        places: Addresses of shards by path, where a path does not tell all of it.
        terms: The user's names, for messages.
    """

    schema: pa.Schema
    filters: Any
    batch_rows: int
    threads: int = 1
    int96: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = JOB


def open_shard(
    path: str,
    int96: str | None = None,
    dictionaries: Sequence[str] = (),
    place: str = "",
    terms: Terms = JOB,
) -> pq.ParquetFile:
    """Opens a shard so that a row group is read page by page, not as a whole.

    Pages that carry a checksum are compared with it.

    Args:
        int96: The unit that INT96 timestamps are read in; None: nanoseconds.
        dictionaries: Dotted paths of texts that are read as dictionaries.
        place: Its address, if the path does not tell all of it.
        terms: The user's names, for messages.

    Raises:
        ShardError: It is not there, not Parquet, cut off, or empty.
    """
    try:
        return open_parquet(
            *open_filesystem(place or path),
            _LOCAL_BUFFER_BYTES,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=int96,
            read_dictionary=list(dictionaries) or None,
        )
    except FileNotFoundError as error:
        raise ShardError(path, "no such file; was it removed meanwhile?") from error
    except Exception as error:  # a store's client raises errors of its own
        raise ShardError(path, f"{unreadable(error)}; {terms.write_again}") from error


def unreadable(error: Exception, what: str = "not a readable Parquet file") -> str:
    """Says what is wrong with a shard and why, in Arrow's words without the shard's path."""
    text = _OPENED_AS.sub("", str(error))
    if _ENCRYPTED.search(text):
        return "is encrypted, which cannot be read here"
    return f"{what} ({one_line(text, 300) or type(error).__name__})"


def read_unit(unit: Unit, source: Source, max_bad_shards: int = 0) -> Iterator[Block]:
    """Yields a unit's blocks of `batch_rows` kept rows (the last may have fewer), then its end.

    Rows keep their order and are numbered by the rows that were planned; blocks go on across the
    shards of a pack. Each block has its busy seconds under `read`.

    The blocks may start again with number 0, and those before then count for nothing: once for
    each shard whose input or output failed, after a second, and once without the bad shards; the
    first bad one has all behind it read to their ends, to find the others before that.

    Args:
        max_bad_shards: Shards that may be left out, which the end lists.

    Raises:
        ShardError: One shard more cannot be read, or changed since it was planned.
    """
    bad: dict[str, BadShard] = {}
    retried: set[str] = set()
    while True:
        try:
            yield from _read_once(unit, source, bad)
            return
        except ShardError as error:
            if error.path not in retried and _may_pass(error):
                retried.add(error.path)
                time.sleep(_RETRY_SECONDS)
            else:
                bad[error.path] = _leave_out(unit, error, len(bad), max_bad_shards)
                for path, found in _probe(_behind(unit, error.path, bad), source).items():
                    bad[path] = _leave_out(unit, found, len(bad), max_bad_shards)


def read_unit_ahead(
    unit: Unit, source: Source, max_bad_shards: int = 0
) -> Generator[Block, None, None]:
    """Yields what `read_unit` does, two blocks decoded ahead on a thread.

    Each block has under `wait_read` how long the caller waited for it, and under `passing` how
    long the caller worked on the one before. The end has under `began` when the unit started.
    """
    began, passing = time.time(), 0.0
    with closing(read_ahead(read_unit(unit, source, max_bad_shards), _BLOCKS_AHEAD)) as blocks:
        asked = time.perf_counter()
        for block in blocks:
            given = time.perf_counter()
            waits = {"wait_read": given - asked, "passing": passing}
            waits |= {"began": began} if block.end is not None else {}
            yield replace(block, seconds={**block.seconds, **waits})
            asked = time.perf_counter()
            passing = asked - given


def _behind(unit: Unit, path: str, bad: Collection[str]) -> list[Piece]:
    """Returns what is to be read behind a shard."""
    start = [piece.shard.path for piece in unit.pieces].index(path)
    return [piece for piece in unit.pieces[start:] if piece.shard.path not in bad]


def _probe(pieces: Sequence[Piece], source: Source) -> dict[str, ShardError]:
    """Returns what is wrong with each shard that is bad, input that failed being tried again."""
    found = _failures(pieces, source)
    passing = {path for path, error in found.items() if _may_pass(error)}
    if not passing:
        return found
    time.sleep(_RETRY_SECONDS)
    again = _failures([piece for piece in pieces if piece.shard.path in passing], source)
    return {p: again.get(p, e) for p, e in found.items() if p in again or p not in passing}


def _failures(pieces: Iterable[Piece], source: Source) -> dict[str, ShardError]:
    """Reads shards to their ends, keeping nothing but the errors."""
    errors: dict[str, ShardError] = {}
    for piece in pieces:
        try:
            deque(_read_piece(piece, source), maxlen=0)
        except ShardError as error:
            errors[error.path] = error
    return errors


def _may_pass(error: ShardError) -> bool:
    """Tells an I/O error from corrupt data, which Arrow reports as an OSError without a number."""
    cause = error.__cause__
    if cause is None or is_gone(cause):
        return False
    corrupt = isinstance(cause, pa.ArrowException) and not isinstance(cause, MemoryError)
    bare = type(cause) is OSError and cause.errno is None
    return not corrupt and not bare


def is_gone(error: BaseException) -> bool:
    """Tells a file that is not there from an HTTP server that cannot be asked for it."""
    cause = error.__cause__
    unreachable = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    refused = getattr(cause, "status", 404) != 404
    return isinstance(error, FileNotFoundError) and not unreachable and not refused


def _leave_out(unit: Unit, error: ShardError, count: int, allowed: int) -> BadShard:
    if not allowed:
        raise error
    if count >= allowed:
        raise ShardError(
            error.path,
            f"{error.problem}; {counted_were(count, 'shard')} left out of unit {unit.id} before, "
            f"and input.max_bad_shards allows {allowed}",
        ) from error
    rows = sum(piece.rows for piece in unit.pieces if piece.shard.path == error.path)
    return BadShard(error.path, rows, error.problem)


def _read_once(unit: Unit, source: Source, bad: Mapping[str, BadShard]) -> Iterator[Block]:
    counts = {"read": 0, "blocks": 0, "kept": 0}
    start = time.perf_counter()
    for rows, batch in _cut(_kept_rows(unit, source, bad, counts), source.batch_rows):
        spent = time.perf_counter() - start
        yield Block(unit, counts["blocks"], rows, batch, seconds={"read": spent})
        counts["blocks"] += 1
        counts["kept"] += batch.num_rows
        start = time.perf_counter()
    spent = time.perf_counter() - start
    read, blocks = counts["read"], counts["blocks"]
    end = End(read, read - counts["kept"], blocks, tuple(bad.values()))
    yield replace(_end_block(unit, source, end), seconds={"read": spent})


def done_block(unit: Unit, source: Source) -> Block:
    """Returns the block that replaces those of a unit that was finished before."""
    return _end_block(unit, source, End(0, 0, 0, done=True))


def _end_block(unit: Unit, source: Source, end: End) -> Block:
    # Arrow's own empty table would import pandas.
    batch = make_batch([pa.nulls(0, each.type) for each in source.schema], source.schema, 0)
    return Block(unit, end.blocks, to_arrow(np.empty(0, np.int64)), batch, end=end)


def _kept_rows(
    unit: Unit, source: Source, bad: Collection[str], counts: dict[str, int]
) -> Iterator[_Numbered]:
    condition = filter_expression(source.filters, source.schema) if source.filters else None
    starts = accumulate((piece.rows for piece in unit.pieces), initial=0)
    batches = _read_pieces([p for p in unit.pieces if p.shard.path not in bad], source)
    for piece, first in zip(unit.pieces, starts, strict=False):
        if piece.shard.path in bad:
            continue
        for batch, most in next(batches):
            counts["read"] += batch.num_rows
            rows = to_arrow(np.arange(first, first + batch.num_rows, dtype=np.int64))
            first += batch.num_rows
            if condition is not None:
                numbered = batch.append_column("", rows).filter(condition)
                rows, batch = numbered.columns[-1], numbered.select(range(batch.num_columns))
            yield rows, batch, most


def _read_pieces(pieces: Sequence[Piece], source: Source) -> Iterator[Iterable[_Sized]]:
    """Yields each piece's batches, in order; pieces of up to a block are read side by side."""
    one = replace(source, threads=1)
    waiting: deque[Callable[[], Iterable[_Sized]]] = deque()
    with ThreadPoolExecutor(source.threads, thread_name_prefix="shard") as pool:
        try:
            for piece in pieces:
                if source.threads > 1 and piece.rows <= source.batch_rows:
                    waiting.append(pool.submit(lambda p: _begin(_read_piece(p, one)), piece).result)
                else:
                    waiting.append(partial(_read_piece, piece, source))
                if len(waiting) > source.threads:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(batches: Iterator[_Sized]) -> Iterable[_Sized]:
    """Reads batches of up to a quarter of a block's bytes, and returns them before the others."""
    taken, held = list[_Sized](), 0
    for batch, most in batches:
        taken.append((batch, most))
        held += batch.nbytes
        if held > sizing.MOST_BYTES // 4:
            break
    return chain(taken, batches)


def _read_piece(piece: Piece, source: Source) -> Iterator[_Sized]:
    place = source.places.get(piece.shard.path, "")
    check_unchanged(piece.shard, place)
    try:
        yield from _decode(piece, source, place)
    except ShardError:
        # That it is being rewritten is the better reason.
        check_unchanged(piece.shard, place)
        raise
    check_unchanged(piece.shard, place)


def _decode(piece: Piece, source: Source, place: str) -> Iterator[_Sized]:
    path, keys = piece.shard.path, dict(piece.shard.keys)
    columns = [name for name in source.schema.names if name not in keys]
    rows = 0
    with open_shard(path, source.int96, place=place, terms=source.terms) as file:
        check_footer(file.metadata, piece)
        try:
            for batch, most in _batches(file, piece, columns, source):
                rows += batch.num_rows
                if rows > piece.rows:
                    break
                yield conform(batch, source.schema, keys), most
            if rows == piece.rows:
                check_values(file, piece, columns, source.terms)
        except ShardError:
            raise
        except Exception as error:  # a store's client raises errors of its own
            problem = unreadable(error, "cannot be read to its end")
            raise ShardError(path, f"{problem}; {source.terms.write_again}") from error
    if rows != piece.rows:
        promised = f"{counted_were(rows, 'row')} read, but its footer counts {piece.rows:,}"
        raise ShardError(path, f"{promised}; {source.terms.write_again}")


def _batches(
    file: pq.ParquetFile, piece: Piece, columns: list[str], source: Source
) -> Iterator[_Sized]:
    path = piece.shard.path
    schema = source.schema if len(columns) == len(source.schema) else _only(source.schema, columns)
    reopen = partial(open_shard, path, None, place=source.places.get(path, ""))
    shard = sizing.OpenShard(path, file, schema, reopen)
    with _guard(piece, columns, source) as guard:
        for row_groups in _groups(piece, source.batch_rows):
            most = sizing.rows_at_once(shard, row_groups, source.batch_rows)
            batches = file.iter_batches(most, row_groups, columns, use_threads=source.threads > 1)
            if guard is not None:
                guard.start(most, row_groups)
            for batch in batches:
                if guard is not None:
                    guard.check(batch.num_rows)
                yield batch, most


def _only(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


@contextmanager
def _guard(piece: Piece, columns: list[str], source: Source) -> Iterator[Int96Guard | None]:
    """Opens a shard a second time to compare its INT96 timestamps, where there may be some."""
    if source.int96 is None:
        yield None
        return
    path = piece.shard.path
    with open_shard(path, GUARD, place=source.places.get(path, "")) as file:
        yield Int96Guard(path, file, columns, source.int96)


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


def check_unchanged(shard: Shard, place: str = "") -> None:
    """Raises ShardError when a shard is not the file any more that was planned."""
    try:
        size, mark = size_and_mark(place or shard.path)
    except Exception as error:  # a store's client raises errors of its own
        unseen = f"cannot be looked at ({reason(error.__cause__ or error)}); run again"
        problem = "was removed after planning; run again" if is_gone(error) else unseen
        raise ShardError(shard.path, problem) from error
    if is_linked_mark(shard.mark):
        mark = linked_mark(mark, os.path.realpath(open_filesystem(place or shard.path)[1]))
    if (size, mark) != (shard.size, shard.mark):
        raise ShardError(shard.path, "was rewritten after planning; run again")


def conform(batch: pa.RecordBatch, schema: pa.Schema, keys: dict[str, Any]) -> pa.RecordBatch:
    """Orders and casts a shard's columns to the run's schema; hive keys become constants.

    Raises:
        ArrowTypeError: A column that was planned as all null has values of another type.
    """
    if not keys and batch.schema.equals(schema, check_metadata=True):
        return batch
    columns = []
    for wanted in schema:
        if wanted.name in keys:
            columns.append(pa.repeat(pa.scalar(keys[wanted.name], wanted.type), batch.num_rows))
        else:
            column = batch.column(wanted.name)
            columns.append(column if column.type == wanted.type else _cast(column, wanted))
    return make_batch(columns, schema, batch.num_rows)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.null_count == len(column):
        return pa.nulls(len(column), field.type)
    if _family(column.type) != _family(field.type):
        raise pa.ArrowTypeError(
            f"column {field.name!r} has values of type {column.type}, although the footer's "
            f"statistics say that all are null; expected {field.type}"
        )
    return column.cast(field.type)


def _family(kind: pa.DataType) -> Callable[[pa.DataType], bool] | None:
    """Names the types that a value may be cast among; None for those that Arrow itself checks."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return next((family for family in _FAMILIES if family(kind)), None)


def _cut(parts: Iterable[_Numbered], size: int) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    """Joins and splits batches so that each but the last has exactly `size` rows.

    Rows of which fewer fit into a block make blocks of as many as fit, without rows before them.
    """
    pending: list[tuple[pa.Array, pa.RecordBatch]] = []
    held, fitting = 0, size
    for numbers, part, most in parts:
        if held and min(size, most) != fitting:
            yield _join(pending)
            pending, held = [], 0
        fitting = min(size, most)
        while held + part.num_rows >= fitting:
            # To join copies, so only what fits into the block is joined.
            taken = fitting - held
            yield _join([*pending, (numbers[:taken], part[:taken])])
            numbers, part = numbers[taken:], part[taken:]
            pending, held = [], 0
        if part.num_rows:
            pending.append((numbers, part))
            held += part.num_rows
    if held:
        yield _join(pending)


def _join(parts: list[tuple[pa.Array, pa.RecordBatch]]) -> tuple[pa.Array, pa.RecordBatch]:
    if len(parts) == 1:
        return parts[0]
    rows, batches = zip(*parts, strict=True)
    return pa.concat_arrays(rows), pa.concat_batches(batches)
