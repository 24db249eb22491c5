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
from itertools import accumulate, chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import make_batch, to_arrow
from batchscore.errors import ShardError
from batchscore.messages.terms import JOB, Terms
from batchscore.messages.wording import counted_were, one_line, reason
from batchscore.stages import sizing
from batchscore.stages.ahead import read_ahead
from batchscore.stages.as_planned import check_footer, check_values
from batchscore.stages.block import Block, End
from batchscore.stages.conform import conform
from batchscore.stages.filters import filter_expression
from batchscore.stages.int96 import GUARD, Int96Guard
from batchscore.stages.leaves import LeafLookup, Leaves
from batchscore.storage.marks import is_linked_mark, linked_mark, size_and_mark
from batchscore.storage.parquet import LeafReader, is_read_at_once, open_reader
from batchscore.storage.remote import is_object_store
from batchscore.storage.store import open_filesystem
from batchscore.units.record import BadShard
from batchscore.units.unit import Piece, Shard, Unit

# A batch, and how many rows like its own make a block.
_Sized: TypeAlias = tuple[pa.RecordBatch, int]
# Numbers of rows within their unit, the rows, and how many like them make a block.
_Numbered: TypeAlias = tuple[range | pa.Array, pa.RecordBatch, int]
_Numbers: TypeAlias = list[tuple[range | pa.Array, pa.RecordBatch]]
_Placed: TypeAlias = tuple[int, Piece]  # a piece, and the number of its first row in its unit
_BLOCKS_AHEAD = 2
_GROUPS = 4  # parts of a block that a thread reads ahead, by rows or by bytes
_STORE_THREADS = 16  # that wait for an object store, each for as small a part of a block
_LOCAL_BUFFER_BYTES = 1 << 17  # of each column; fresh memory costs more than another read
_RETRY_SECONDS = 1.0
_OPENED_AS = re.compile(r"^Could not open Parquet input source '.*?': ")
_ENCRYPTED = re.compile("no decryption found|Cannot decrypt")


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
    size: int | None = None,
) -> LeafReader:
    """Opens a shard so that a row group is read page by page, not as a whole.

    Pages that carry a checksum are compared with it.

    Args:
        int96: The unit that INT96 timestamps are read in; None: nanoseconds.
        dictionaries: Dotted paths of texts that are read as dictionaries.
        place: Its address, if the path does not tell all of it.
        terms: The user's names, for messages.
        size: Its bytes, if they are known.

    Raises:
        ShardError: It is not there, not Parquet, cut off, or empty.
    """
    try:
        return open_reader(
            *open_filesystem(place or path),
            _LOCAL_BUFFER_BYTES,
            size,
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
    lookup = LeafLookup(source.schema)
    for piece in pieces:
        try:
            deque(_read_piece(piece, source, lookup), maxlen=0)
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
    placed = zip(starts, unit.pieces, strict=False)
    good = [(first, piece) for first, piece in placed if piece.shard.path not in bad]
    for rows, batch, most in chain.from_iterable(_read_pieces(good, source)):
        counts["read"] += batch.num_rows
        if condition is not None:
            numbered = batch.append_column("", _as_array(rows)).filter(condition)
            rows, batch = numbered.columns[-1], numbered.select(range(batch.num_columns))
        yield rows, batch, most


def _read_pieces(pieces: Sequence[_Placed], source: Source) -> Iterator[Iterable[_Numbered]]:
    """Yields the batches of pieces, in order; pieces of up to a block are read side by side."""
    one, lookup = replace(source, threads=1), LeafLookup(source.schema)
    waiting: deque[Callable[[], Iterable[_Numbered]]] = deque()
    stored = any(is_object_store(piece.shard.path) for _, piece in pieces[:1])
    threads, parts = (_STORE_THREADS,) * 2 if stored else (source.threads, _GROUPS)
    with ThreadPoolExecutor(threads, thread_name_prefix="shard") as pool:
        try:
            for group in _group_small(pieces, source.batch_rows // parts):
                if threads > 1 and sum(p.rows for _, p in group) <= source.batch_rows:
                    batches = _read_group(group, one, lookup)
                    begin = partial(_begin, batches, sizing.MOST_BYTES // parts)
                    waiting.append(pool.submit(begin).result)
                else:
                    waiting.append(partial(_read_group, group, source, lookup))
                if len(waiting) > threads:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            pool.shutdown(cancel_futures=True)


def _group_small(pieces: Iterable[_Placed], most: int) -> Iterator[list[_Placed]]:
    """Yields pieces that one thread reads: up to so many rows of small ones, or a larger one.

    To hand a piece to a thread takes as long as to open a small one.
    """
    group, rows = list[_Placed](), 0
    for first, piece in pieces:
        if group and rows + piece.rows > most:
            yield group
            group, rows = [], 0
        group.append((first, piece))
        rows += piece.rows
    if group:
        yield group


def _begin(batches: Iterator[_Numbered], most: int) -> Iterable[_Numbered]:
    """Reads batches of up to so many bytes, and returns them before the others."""
    taken, held = list[_Numbered](), 0
    for rows, batch, most in batches:
        taken.append((rows, batch, most))
        held += batch.get_total_buffer_size()
        if held > most:
            break
    return chain(taken, batches)


def _read_group(
    pieces: Iterable[_Placed], source: Source, lookup: LeafLookup
) -> Iterator[_Numbered]:
    for first, piece in pieces:
        for batch, most in _read_piece(piece, source, lookup):
            yield range(first, first + batch.num_rows), batch, most
            first += batch.num_rows


def _read_piece(piece: Piece, source: Source, lookup: LeafLookup) -> Iterator[_Sized]:
    place = source.places.get(piece.shard.path, "")
    address = place or piece.shard.path
    if address[0] == "/" or not is_read_at_once(address, piece.shard.size):
        check_unchanged(piece.shard, place)
    try:
        yield from _decode(piece, source, lookup, place)
    except ShardError:
        # That it is being rewritten is the better reason.
        check_unchanged(piece.shard, place)
        raise
    check_unchanged(piece.shard, place)


def _decode(piece: Piece, source: Source, lookup: LeafLookup, place: str) -> Iterator[_Sized]:
    path, keys = piece.shard.path, dict(piece.shard.keys)
    columns = [name for name in source.schema.names if name not in keys]
    rows = 0
    with open_shard(path, source.int96, (), place, source.terms, piece.shard.size) as file:
        check_footer(file.metadata, piece)
        try:
            leaves = lookup.leaves(file, columns)
            for batch, most in _batches(file, piece, leaves, source):
                rows += batch.num_rows
                if rows > piece.rows:
                    break
                yield conform(batch, source.schema, keys), most
            if rows == piece.rows:
                check_values(file.metadata, piece, leaves.flat, source.terms)
        except ShardError:
            raise
        except Exception as error:  # a store's client raises errors of its own
            problem = unreadable(error, "cannot be read to its end")
            raise ShardError(path, f"{problem}; {source.terms.write_again}") from error
    if rows != piece.rows:
        promised = f"{counted_were(rows, 'row')} read, but its footer counts {piece.rows:,}"
        raise ShardError(path, f"{promised}; {source.terms.write_again}")


def _batches(file: LeafReader, piece: Piece, leaves: Leaves, source: Source) -> Iterator[_Sized]:
    path, threaded = piece.shard.path, source.threads > 1
    reopen = partial(open_shard, path, None, place=source.places.get(path, ""))
    shard = sizing.OpenShard(path, file, leaves, reopen)
    with _guard(piece, leaves.columns, source) as guard:
        for row_groups in _groups(piece, source.batch_rows):
            most = sizing.rows_at_once(shard, row_groups, source.batch_rows)
            batches = file.iter_batches(most, row_groups, leaves.read, use_threads=threaded)
            if guard is not None:
                guard.start(most, row_groups)
            for batch in batches:
                if guard is not None:
                    guard.check(batch.num_rows)
                yield batch, most


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


def _cut(parts: Iterable[_Numbered], size: int) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    """Joins and splits batches so that each but the last has exactly `size` rows.

    Rows of which fewer fit into a block make blocks of as many as fit, without rows before them.
    """
    pending: _Numbers = []
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


def _join(parts: _Numbers) -> tuple[pa.Array, pa.RecordBatch]:
    rows, batches = zip(*parts, strict=True)
    if len(parts) == 1:
        return _as_array(rows[0]), batches[0]
    return _join_numbers(rows), pa.concat_batches(batches)


def _join_numbers(parts: Sequence[range | pa.Array]) -> pa.Array:
    """Returns the numbers of rows of several batches; most follow each other."""
    ranges = [part for part in parts if isinstance(part, range)]
    gaps = any(a.stop != b.start for a, b in pairwise(ranges))
    if gaps or len(ranges) < len(parts):
        return pa.concat_arrays([_as_array(part) for part in parts])
    return _as_array(range(ranges[0].start, ranges[-1].stop))


def _as_array(rows: range | pa.Array) -> pa.Array:
    if not isinstance(rows, range):
        return rows
    return to_arrow(np.arange(rows.start, rows.stop, dtype=np.int64))
