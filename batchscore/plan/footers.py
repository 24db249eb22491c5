"""The input's footers, read side by side, and the row groups to read."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from batchscore.columnar.arrays import storage_type
from batchscore.errors import InputError
from batchscore.messages.terms import JOB, Terms
from batchscore.messages.wording import counted
from batchscore.plan.chunks import (
    check_rows,
    encrypted_columns,
    leaves_of,
    open_leaves,
)
from batchscore.plan.hive import KeyRules, Kinds, key_types, key_value
from batchscore.plan.listing import InputFile
from batchscore.plan.logical import (
    NOTHING,
    Logical,
    as_microseconds,
    change_leaves,
    read_logical,
)
from batchscore.plan.pruning import Keys, fragment
from batchscore.stages.filters import decidable, pruning_expression
from batchscore.stages.int96 import int96_columns
from batchscore.stages.read import unreadable
from batchscore.storage.parquet import open_footer
from batchscore.storage.remote import open_tail
from batchscore.units.unit import Piece, Shard

# Decoding a footer holds the interpreter for long: more threads pay where a store takes its time.
_LOCAL_THREADS, _STORE_THREADS = 2, 32
_CHUNK_FILES = 32
_BAD_SHOWN = 3
_ARROW_SCHEMA = b"ARROW:schema"
_DISK = pyarrow.fs.LocalFileSystem()


@dataclass(frozen=True)
class Footer:
    """What a shard's footer says.

    Args:
        shard: The shard that it belongs to.
        schema: Its columns in plain types, hive keys among them; one object where shards are alike.
        row_groups: Rows of each.
        kept: The indices of those that may hold rows the filter keeps.
        bytes: Uncompressed, of all row groups.
        encrypted: Dotted paths of encrypted columns.
        int96: Whether it has INT96 timestamps.
        logical: What its columns' annotations say; one object where shards are alike.
        address: Where it is read from, if that is not the shard's path.
    """

    shard: Shard
    schema: pa.Schema
    row_groups: tuple[int, ...]
    kept: tuple[int, ...]
    bytes: int
    encrypted: frozenset[str] = frozenset()
    int96: bool = False
    logical: Logical = NOTHING
    address: str = ""


@dataclass(frozen=True)
class BadFile:
    """A file of the input that cannot be opened as a shard, and why."""

    path: str
    size: int
    mark: str
    reason: str


@dataclass(frozen=True)
class Footers:
    """The shards of the input, and the files that were left out."""

    good: list[Footer]
    bad: list[BadFile]


def read_footers(
    found: Sequence[InputFile],
    max_bad_shards: int = 0,
    filters: Any = None,
    int96: str = "ns",
    rules: KeyRules | None = None,
    terms: Terms = JOB,
) -> Footers:
    """Opens all shards, some at a time, and reads their footers; hive values become their types.

    Args:
        max_bad_shards: Files that may be empty of bytes, not Parquet, cut off, or gone.
        filters: DNF as in pyarrow, or None; excludes row groups by their statistics.
        int96: The unit that INT96 timestamps are read in.
        rules: How a job's hive keys get their types.
        terms: The user's names, for messages.

    Raises:
        InputError: One file more is so, or every one; hive keys differ, or are not what they
            should be; or a column appears twice.
    """
    footers = Footers([], [])
    with closing(_read_all(found, _Reading(key_types(found, rules), filters, int96))) as read:
        for shard, footer in zip(found, read, strict=True):
            if isinstance(footer, Footer):
                footers.good.append(footer)
            else:
                footers.bad.append(_bad_file(shard, footer))
                _check_count(footers.bad, max_bad_shards, footer, terms)
    if footers.bad and not footers.good:
        problem = f"none of {_listed(footers.bad)} can be read"
        raise InputError(f"{terms.data}: {problem}; {terms.write_again}")
    return footers


@dataclass(frozen=True)
class _Alike:
    """What shards of one schema share.

    Args:
        stored: The schema as it is stored.
        paths: Names of each leaf column, from its top-level column down.
        flat: Whether each leaf is a column of its own.
        arrow: The Arrow schema that is stored next to it; None: none is.
        raw: The schema as Arrow makes it of these.
        schema: Schema in plain types, with the hive keys.
        condition: Condition by which statistics prune row groups; None: they cannot.
        int96: Whether there are INT96 timestamps.
        logical: What the columns' annotations say.
    """

    stored: pq.ParquetSchema
    paths: list[list[str]]
    flat: bool
    arrow: bytes | None
    raw: pa.Schema
    schema: pa.Schema
    condition: Any
    int96: bool
    logical: Logical


class _Reading:
    """What all footers are read by, and the plain schema of the last that was read."""

    def __init__(self, kinds: Kinds, filters: Any, int96: str) -> None:
        self.kinds = kinds
        self.int96 = int96
        self.groups = decidable(filters)
        self.filtered = {condition[0] for group in filters or () for condition in group}
        self._last: _Alike | None = None

    def columns(self, path: str, metadata: pq.FileMetaData, paths: list[list[str]]) -> _Alike:
        """Returns what a schema comes to, the last one's where the shards are alike."""
        last, stored = self._last, metadata.schema
        arrow = (metadata.metadata or {}).get(_ARROW_SCHEMA)
        same = last is not None and (last.paths, last.arrow) == (paths, arrow)
        if last is None or not (same and stored.equals(last.stored) and _is_raw(last, stored)):
            self._last = last = self._columns(path, stored, paths, arrow)
        return last

    def _columns(
        self, path: str, stored: pq.ParquetSchema, paths: list[list[str]], arrow: bytes | None
    ) -> _Alike:
        raw, int96 = stored.to_arrow_schema(), int96_columns(stored)
        _no_duplicates(path, raw)
        read = change_leaves(raw, stored, as_microseconds) if int96 and self.int96 == "us" else raw
        own = [pa.field(f.name, _plain_type(f.type)) for f in read if f.name not in self.kinds]
        hive = [pa.field(name, kind) for name, kind in self.kinds.items()]
        schema = pa.schema(own + hive)
        condition = self._condition(schema, stored, int96)
        logical = read_logical(read, stored, arrow is not None)
        flat = all(len(each) == 1 for each in paths)
        return _Alike(stored, paths, flat, arrow, raw, schema, condition, bool(int96), logical)

    def _condition(self, schema: pa.Schema, stored: pq.ParquetSchema, int96: list[int]) -> Any:
        # The format gives INT96 no order, so what writers call its least and greatest is anything.
        unordered = {stored.column(index).path for index in int96}
        groups = [[each for each in group if each[0] not in unordered] for group in self.groups]
        return pruning_expression(groups, schema) if groups else None


def _is_raw(last: _Alike, stored: pq.ParquetSchema) -> bool:
    """Tells whether Arrow makes the same schema of two whose leaves are equal.

    Leaves of nested columns do not tell what they are part of. To ask Arrow takes a sixth of the
    time of a small footer.
    """
    return last.flat or stored.to_arrow_schema().equals(last.raw)


def _read_all(
    found: Sequence[InputFile], reading: _Reading
) -> Generator[Footer | Exception, None, None]:
    local = all(_is_local(shard.path) for shard in found)
    threads = _LOCAL_THREADS if local else _STORE_THREADS
    size = max(1, min(_CHUNK_FILES, len(found) // threads))
    chunks = [found[start : start + size] for start in range(0, len(found), size)]
    with ThreadPoolExecutor(threads) as pool:
        for read in pool.map(lambda chunk: [_read_footer(s, reading) for s in chunk], chunks):
            yield from read


def _read_footer(found: InputFile, reading: _Reading) -> Footer | Exception:
    """Returns what a footer says, or the error that kept it from being read.

    Arrow's own form of it takes some ten times the memory of its bytes, so it is released.
    """
    keys = tuple((name, key_value(value, reading.kinds[name])) for name, value in found.keys)
    try:
        with _open_end(found) as file:
            return _footer(found, keys, file, reading)
    except InputError:
        raise
    except Exception as error:  # a store's client raises errors of its own
        return error


def _footer(found: InputFile, keys: Keys, file: pa.NativeFile, reading: _Reading) -> Footer:
    pruned = fragment(file, keys, reading.kinds) if reading.groups else None
    reader = open_footer(file, None if pruned is None else pruned.metadata)
    metadata = reader.metadata
    # A column's part of the footer is not looked at: Arrow ends the process if it is encrypted.
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    sizes = tuple(group.num_rows for group in groups)
    check_rows(reader, sizes)
    encrypted = encrypted_columns(file, found.size, reader)
    # A reader's own schema has extension types for JSON and UUID.
    columns = reading.columns(found.path, metadata, reader.column_paths)
    schema = columns.schema
    kept = tuple(range(len(sizes)))
    if pruned is not None and columns.condition is not None:
        # What statistics cannot tell, damaged or of another type, the reader's filter does.
        with suppress(pa.ArrowException, OSError):
            open_leaves(reader, leaves_of(metadata, reading.filtered))
            subset = pruned.subset(filter=columns.condition, schema=schema)
            kept = tuple(group.id for group in subset.row_groups)
    shard = Shard(found.path, found.size, found.mark, sum(sizes), keys)
    size = sum(group.total_byte_size for group in groups)
    logical, address = columns.logical, found.address if found.address != found.path else ""
    return Footer(shard, schema, sizes, kept, size, encrypted, columns.int96, logical, address)


def places_of(footers: Sequence[Footer]) -> dict[str, str]:
    """Returns the addresses of shards that are read from elsewhere than their paths say."""
    return {footer.shard.path: footer.address for footer in footers if footer.address}


def int96_unit(footers: Sequence[Footer], unit: str) -> str | None:
    """Returns the unit that INT96 timestamps are read in; None where no shard has some."""
    return unit if any(footer.int96 for footer in footers) else None


def _bad_file(found: InputFile, error: Exception) -> BadFile:
    problem = unreadable(error)
    if found.size == 0:
        problem = "is empty; expected a Parquet file"
    return BadFile(found.path, found.size, found.mark, problem)


def _check_count(bad: Sequence[BadFile], allowed: int, cause: Exception, terms: Terms) -> None:
    if len(bad) <= allowed:
        return
    if not allowed:
        raise InputError(f"shard {bad[0].path}: {bad[0].reason}; {terms.write_again}") from cause
    raise InputError(
        f"{terms.data}: {_listed(bad)} cannot be read, and input.max_bad_shards allows {allowed}; "
        "write them again, or take them out"
    ) from cause


def _listed(bad: Sequence[BadFile]) -> str:
    shown = "; ".join(f"{each.path}: {each.reason}" for each in bad[:_BAD_SHOWN])
    more = "; …" if len(bad) > _BAD_SHOWN else ""
    return f"{counted(len(bad), 'shard')} ({shown}{more})"


def _is_local(path: str) -> bool:
    return path.startswith("/")


def _open_end(found: InputFile) -> pa.NativeFile:
    # Taking an address apart takes as long as reading a local footer.
    if _is_local(found.address):
        return _DISK.open_input_file(found.address)
    return pa.PythonFile(open_tail(found.address, found.size), mode="r")


def _no_duplicates(path: str, schema: pa.Schema) -> None:
    if len(set(schema.names)) < len(schema.names):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        raise InputError(f"shard {path}: column {twice[0]!r} appears twice; rename one")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        # Arrow makes no empty column of these, which ends each unit.
        return storage_type(kind)
    if kind == pa.string_view():
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind


def keep_row_groups(footers: Sequence[Footer]) -> list[Piece]:
    """Returns the row groups of each shard that may hold rows the filter keeps."""
    return [_piece(footer) for footer in footers if footer.kept]


def _piece(footer: Footer) -> Piece:
    starts = tuple(accumulate(footer.row_groups, initial=0))
    kept = footer.kept
    sizes = tuple(footer.row_groups[i] for i in kept)
    return Piece(footer.shard, kept, tuple(starts[i] for i in kept), sizes)
