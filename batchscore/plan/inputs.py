"""The input's shards: found, their footers read side by side, their schemas made one."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from batchscore.errors import InputError
from batchscore.stages.read import is_gone, unreadable
from batchscore.storage import modification_mark, open_filesystem
from batchscore.units import KeyValue, Piece, Shard
from batchscore.wording import nearest, reason

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# Decoding a footer holds the interpreter for long: more threads pay where a store takes its time.
_LOCAL_THREADS, _STORE_THREADS = 2, 16
_CHUNK_FILES = 32
_BAD_SHOWN = 3
_REMEDY = "write it again or take it out of input.path"
Kinds = dict[str, pa.DataType]
Keys = tuple[tuple[str, KeyValue], ...]

_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})$|0[0-9]{1,17}$")


@dataclass(frozen=True)
class Footer:
    """What a shard's footer says.

    Args:
        shard: whose it is.
        schema: its columns in plain types, hive keys among them; one object where shards are alike.
        row_groups: rows of each.
        kept: the indices of those that may hold rows the filter keeps.
        bytes: uncompressed, of all row groups.
    """

    shard: Shard
    schema: pa.Schema
    row_groups: tuple[int, ...]
    kept: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Found:
    """A file that the input names, before it is opened."""

    path: str
    size: int
    mark: str
    keys: tuple[tuple[str, str | None], ...]


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


def find_shards(addresses: Sequence[str], allow_empty: bool = False) -> list[Found]:
    """Lists the files that addresses name: files, globs, and folders with all below them.

    In a folder, names that start with `_` or `.` are left out, as Hive and Spark do; links are
    followed. Sorted by path, each file once, however it is named.

    Raises:
        InputError: an address names no file, unless `allow_empty`, or cannot be listed.
    """
    found: dict[str, Found] = {}
    for address in addresses:
        shards = _find(address)
        if not shards and not allow_empty:
            raise InputError(
                f"input.path {address}: no shard is there; correct the path, or set "
                "input.allow_empty: true where nothing to score is a result"
            )
        found.update({shard.path: shard for shard in shards})
    return [found[path] for path in sorted(found)]


def _find(address: str) -> list[Found]:
    if "::" in address:
        raise InputError(
            f"input.path {address}: a chain of file systems cannot be listed; "
            "unpack it, or copy it to a folder"
        )
    try:
        filesystem, path = open_filesystem(address)
        prefix = address[: -len(path)] if address.endswith(path) else None
        infos = [info for name in _entries(filesystem, path) for info in _files(filesystem, name)]
    except Exception as error:  # a store's client raises errors of its own
        raise InputError(f"input.path {address}: cannot be listed ({reason(error)})") from error
    return [_found(filesystem, info, prefix) for info in infos]


def _entries(filesystem: Any, path: str) -> list[str]:
    """What a path names as it stands, or as a pattern where nothing has that name."""
    if filesystem.exists(path):
        return [path]
    if any(character in path for character in "*?["):
        return sorted(filesystem.glob(path))
    with suppress(FileNotFoundError, NotADirectoryError):
        _ask(filesystem, path)
    return []


def _ask(filesystem: Any, path: str) -> None:
    """Raises what kept a server from answering, which an HTTP one reports as not found."""
    try:
        filesystem.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is not None and not is_gone(error):
            raise OSError(reason(error.__cause__)) from error


def _files(filesystem: Any, path: str) -> list[dict[str, Any]]:
    if not filesystem.isdir(path):
        return [filesystem.info(path)]
    if "file" in filesystem.protocol:
        return [filesystem.info(name) for name in _walk(path)]
    infos = filesystem.find(path, detail=True).values()
    return [info for info in infos if _is_visible(str(info["name"])[len(path) :])]


def _walk(folder: str) -> list[str]:
    """All visible files below a local folder, links followed, but for one that leads back up."""
    names = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        above = f"{os.path.realpath(parent)}/"
        down = [(name, f"{os.path.realpath(os.path.join(parent, name))}/") for name in folders]
        folders[:] = [n for n, real in down if _is_visible(n) and not above.startswith(real)]
        names += [os.path.join(parent, name) for name in files if _is_visible(name)]
    return names


def _is_visible(path: str) -> bool:
    parts = path.strip("/").split("/")
    return not any(part.startswith(("_", ".")) and "=" not in part for part in parts)


def _found(filesystem: Any, info: dict[str, Any], prefix: str | None) -> Found:
    path = str(info["name"])
    if "file" in filesystem.protocol:
        address = os.path.realpath(path)
    elif prefix is not None:
        address = prefix + path
    else:
        address = filesystem.unstrip_protocol(path)
    return Found(address, int(info["size"]), modification_mark(info), hive_keys(path))


def hive_keys(path: str) -> tuple[tuple[str, str | None], ...]:
    """Returns the keys of the unbroken run of `key=value` folders right above a file."""
    keys: list[tuple[str, str | None]] = []
    for part in reversed(posixpath.dirname(path).split("/")):
        name, equals, value = part.partition("=")
        if not (name and equals):
            break
        keys.append((unquote(name), None if value == _HIVE_NULL else unquote(value)))
    return tuple(reversed(keys))


def read_footers(found: Sequence[Found], max_bad_shards: int = 0, filters: Any = None) -> Footers:
    """Opens all shards, some at a time, and reads their footers; hive values become their types.

    Args:
        max_bad_shards: files that may be empty of bytes, not Parquet, cut off, or gone.
        filters: pyarrow's DNF form, or None; excludes row groups by their statistics.

    Raises:
        InputError: one file more is so, or every one; hive keys differ; or a column stands twice.
    """
    footers = Footers([], [])
    with closing(_read_all(found, _Reading(_key_types(found), filters))) as read:
        for shard, footer in zip(found, read, strict=True):
            if isinstance(footer, Footer):
                footers.good.append(footer)
            else:
                footers.bad.append(_bad_file(shard, footer))
                _check_count(footers.bad, max_bad_shards, footer)
    if footers.bad and not footers.good:
        raise InputError(f"input.path: none of {_listed(footers.bad)} can be read; {_REMEDY}")
    return footers


class _Reading:
    """What all footers are read by, and the plain schema of the last that was read."""

    def __init__(self, kinds: Kinds, filters: Any) -> None:
        self.kinds = kinds
        self.condition = _prunable(filters)
        self.filtered = {condition[0] for group in filters or () for condition in group}
        self._last: tuple[pa.Schema, pa.Schema] | None = None

    def plain_schema(self, path: str, raw: pa.Schema) -> pa.Schema:
        """Returns a schema in plain types, the last one's where the shards are alike."""
        last = self._last
        if last is None or not raw.equals(last[0]):
            _no_duplicates(path, raw)
            own = [pa.field(f.name, _plain_type(f.type)) for f in raw if f.name not in self.kinds]
            hive = [pa.field(name, kind) for name, kind in self.kinds.items()]
            self._last = last = raw, pa.schema(own + hive)
        return last[1]


def _read_all(
    found: Sequence[Found], reading: _Reading
) -> Generator[Footer | Exception, None, None]:
    local = all(_is_local(shard.path) for shard in found)
    threads = _LOCAL_THREADS if local else _STORE_THREADS
    size = max(1, min(_CHUNK_FILES, len(found) // threads))
    chunks = [found[start : start + size] for start in range(0, len(found), size)]
    with ThreadPoolExecutor(threads) as pool:
        for read in pool.map(lambda chunk: [_read_footer(s, reading) for s in chunk], chunks):
            yield from read


def _read_footer(found: Found, reading: _Reading) -> Footer | Exception:
    """Returns what a footer says, or the error that kept it from being read.

    Arrow's own form of it takes some ten times the memory of its bytes and is let go.
    """
    keys = tuple((name, _key_value(value, reading.kinds[name])) for name, value in found.keys)
    try:
        filesystem, inner = _arrow_filesystem(found.path)
        with filesystem.open_input_file(inner) as file:
            return _footer(found, keys, file, reading)
    except InputError:
        raise
    except Exception as error:  # a store's client raises errors of its own
        return error


def _footer(found: Found, keys: Keys, file: pa.NativeFile, reading: _Reading) -> Footer:
    fragment = _fragment(file, keys, reading) if reading.condition is not None else None
    metadata = (pq.ParquetFile(file, pre_buffer=False) if fragment is None else fragment).metadata
    # A column's part of the footer is not looked at: Arrow ends the process if it is encrypted.
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    sizes = tuple(group.num_rows for group in groups)
    _check_rows(metadata.num_rows, sizes)
    # A reader's own schema has extension types for JSON and UUID.
    schema = reading.plain_schema(found.path, metadata.schema.to_arrow_schema())
    kept = tuple(range(len(sizes)))
    if fragment is not None:
        # What statistics cannot tell, damaged or of another type, the reader's filter does.
        with suppress(pa.ArrowException, OSError):
            _check_columns(file, metadata, reading.filtered)
            subset = fragment.subset(filter=reading.condition, schema=schema)
            kept = tuple(group.id for group in subset.row_groups)
    shard = Shard(found.path, found.size, found.mark, sum(sizes), keys)
    return Footer(shard, schema, sizes, kept, sum(group.total_byte_size for group in groups))


def _fragment(file: pa.NativeFile, keys: Keys, reading: _Reading) -> Any:
    """Returns a shard as its statistics prune it."""
    # It imports pandas, which takes longer than all else here.
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat().make_fragment(file, partition_expression=_place(keys, reading))


def _check_columns(file: pa.NativeFile, metadata: pq.FileMetaData, names: Collection[str]) -> None:
    """Raises OSError for columns that are encrypted or damaged in the footer.

    Over their statistics Arrow would end the process; its reader, which opens them here without
    reading a row, raises.
    """
    leaves = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    indices = [i for i, path in enumerate(leaves) if path.partition(".")[0] in names]
    reader = pq.ParquetFile(file, metadata=metadata, buffer_size=1, pre_buffer=False).reader
    for group in range(metadata.num_row_groups if indices else 0):
        list(reader.iter_batches(0, [group], indices, use_threads=False))


def _place(keys: Keys, reading: _Reading) -> Any:
    """The expression that holds for every row of a shard in these hive folders."""
    place = pc.scalar(True)
    for name, value in keys:
        field, kind = pc.field(name), reading.kinds[name]
        place &= field.is_null() if value is None else field == pa.scalar(value, kind)
    return place


def _check_rows(rows: int, sizes: Sequence[int]) -> None:
    """Raises ValueError where a footer contradicts itself."""
    if sum(sizes) != rows or min(sizes, default=0) < 0:
        raise ValueError(f"its footer counts {rows:,} rows, its row groups {sum(sizes):,}")


def _bad_file(found: Found, error: Exception) -> BadFile:
    problem = unreadable(error)
    if found.size == 0:
        problem = "is empty of bytes, expected a Parquet file"
    return BadFile(found.path, found.size, found.mark, problem)


def _check_count(bad: Sequence[BadFile], allowed: int, cause: Exception) -> None:
    if len(bad) <= allowed:
        return
    if not allowed:
        raise InputError(f"shard {bad[0].path}: {bad[0].reason}; {_REMEDY}") from cause
    raise InputError(
        f"input.path: {_listed(bad)} cannot be read, and input.max_bad_shards allows {allowed}; "
        "write them again, or take them out"
    ) from cause


def _listed(bad: Sequence[BadFile]) -> str:
    shown = "; ".join(f"{each.path}: {each.reason}" for each in bad[:_BAD_SHOWN])
    more = "; …" if len(bad) > _BAD_SHOWN else ""
    return f"{len(bad):,} shards ({shown}{more})"


def _key_types(found: Sequence[Found]) -> Kinds:
    """An int64 where every value of a key is a whole number, else a string."""
    names = [name for name, _ in found[0].keys] if found else []
    for shard in found:
        if [name for name, _ in shard.keys] != names:
            raise InputError(
                f"shard {shard.path}: has hive keys {[n for n, _ in shard.keys]}, expected {names} "
                f"as in {found[0].path}; lay all shards out alike, or name the folders you mean"
            )
    values = {name: {dict(shard.keys)[name] for shard in found} for name in names}
    return {
        name: pa.int64() if all(v is None or _WHOLE_NUMBER.match(v) for v in texts) else pa.string()
        for name, texts in values.items()
    }


def _key_value(text: str | None, kind: pa.DataType) -> KeyValue:
    return int(text) if text is not None and pa.types.is_integer(kind) else text


def _is_local(path: str) -> bool:
    return path.startswith("/")


def _arrow_filesystem(path: str) -> tuple[Any, str]:
    # Taking an address apart takes as long as reading a local footer.
    if _is_local(path):
        return pyarrow.fs.LocalFileSystem(), path
    filesystem, inner = open_filesystem(path)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), inner


def _no_duplicates(path: str, schema: pa.Schema) -> None:
    if len(set(schema.names)) < len(schema.names):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        raise InputError(f"shard {path}: column {twice[0]!r} stands twice; rename one")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == pa.string_view():
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind


def unify_schemas(footers: Sequence[Footer], wanted: Iterable[str] | None) -> pa.Schema:
    """Returns one type for each wanted column that holds every shard's values.

    Shards may differ in column order, in plain and dictionary strings, and in the width of
    integers, floats, strings and timestamps; a column that is all null has any type.

    Args:
        wanted: column names; None: all of the first shard's.

    Raises:
        InputError: a shard lacks a column, or has another type of it.
    """
    names = list(dict.fromkeys(footers[0].schema.names if wanted is None else wanted))
    kinds: Kinds = {}
    distinct = _first_of_each_schema(footers)
    for footer in distinct:
        for name in names:
            found = _column_type(footer, name, wanted is None)
            expected = kinds.setdefault(name, found)
            if expected == found:
                continue
            kinds[name] = _widest(expected, found) or _conflict(footer, name, expected, found)
    if wanted is None:
        _no_extra_columns(distinct, names)
    return pa.schema([pa.field(name, kinds[name]) for name in names])


def _first_of_each_schema(footers: Sequence[Footer]) -> list[Footer]:
    first: dict[int, Footer] = {}
    for footer in footers:
        first.setdefault(id(footer.schema), footer)
    return list(first.values())


def _column_type(footer: Footer, name: str, all_columns: bool) -> pa.DataType:
    index = footer.schema.get_field_index(name)
    if index >= 0:
        return footer.schema.field(index).type
    remedy = ", or, where it is not needed, name those to keep in output.columns"
    raise InputError(
        f"shard {footer.shard.path}: has no column {name!r} as the shards before it; "
        f"{nearest(name, footer.schema.names)}; write it again or take it out of input.path"
        f"{remedy if all_columns else ''}"
    )


def _no_extra_columns(footers: Sequence[Footer], names: Sequence[str]) -> None:
    for footer in footers:
        extra = [name for name in footer.schema.names if name not in names]
        if extra:
            raise InputError(
                f"shard {footer.shard.path}: has a column {extra[0]!r} that "
                f"{footers[0].shard.path} has not; name the columns to keep in output.columns"
            )


def _conflict(footer: Footer, name: str, expected: pa.DataType, found: pa.DataType) -> pa.DataType:
    raise InputError(
        f"shard {footer.shard.path}: column {name!r} is {found}, expected {expected} as in the "
        "shards before it; write it again with that type, or leave the shard out of input.path"
    )


def _widest(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Returns the type that holds both without loss, or None."""
    types = pa.types
    if types.is_null(first) or types.is_null(second):
        return second if types.is_null(first) else first
    for family in (types.is_signed_integer, types.is_unsigned_integer, types.is_floating):
        if family(first) and family(second):
            return max(first, second, key=lambda kind: kind.bit_width)
    for pair in ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())):
        if first in pair and second in pair:
            return pair[1]
    if types.is_timestamp(first) and types.is_timestamp(second) and first.tz == second.tz:
        units = ("s", "ms", "us", "ns")
        return pa.timestamp(units[max(units.index(first.unit), units.index(second.unit))], first.tz)
    return None


def keep_row_groups(footers: Sequence[Footer]) -> list[Piece]:
    """Returns the row groups of each shard that may hold rows the filter keeps."""
    return [_piece(footer) for footer in footers if footer.kept]


def _prunable(filters: Any) -> Any:
    """The part of a filter that statistics can decide: they know of no NaN, which `!=` keeps.

    Returns None where there is no such part, or the filter misfits, as `filter_condition` tells.
    """
    groups = [[c for c in group if c[1] not in ("!=", "not in")] for group in filters or ()]
    with suppress(pa.ArrowException, NotImplementedError):
        return pq.filters_to_expression(groups) if groups and all(groups) else None
    return None


def filter_condition(filters: Any, schema: pa.Schema) -> Any:
    """Returns the Arrow expression of a filter, tried on the schema; InputError if it misfits."""
    condition: Any = filters
    try:
        condition = pq.filters_to_expression(filters)
        schema.empty_table().filter(condition)
    except (pa.ArrowException, NotImplementedError) as error:
        raise InputError(
            f"input.filters {condition}: does not fit the columns' types ({reason(error)}); "
            f"they are {', '.join(f'{f.name} {f.type}' for f in schema)}"
        ) from error
    return condition


def _piece(footer: Footer) -> Piece:
    starts = tuple(accumulate(footer.row_groups, initial=0))
    kept = footer.kept
    sizes = tuple(footer.row_groups[i] for i in kept)
    return Piece(footer.shard, kept, tuple(starts[i] for i in kept), sizes)
