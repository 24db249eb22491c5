"""The input's shards: found, their footers read side by side, their schemas made one."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from batchscore.errors import InputError
from batchscore.storage import modification_mark, open_filesystem
from batchscore.units import KeyValue, Piece, Shard
from batchscore.wording import nearest, reason

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_FOOTER_THREADS = 16
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})$|0[0-9]{1,17}$")


@dataclass(frozen=True)
class Footer:
    """What a shard's footer says: its schema, its row groups' rows, and its uncompressed bytes."""

    shard: Shard
    schema: pa.Schema
    row_groups: tuple[int, ...]
    bytes: int
    fragment: Any


@dataclass(frozen=True)
class Found:
    """A file that the input names, before it is opened."""

    path: str
    size: int
    mark: str
    keys: tuple[tuple[str, str | None], ...]


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
    is_pattern = any(character in path for character in "*?[")
    return sorted(filesystem.glob(path)) if is_pattern else []


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


def read_footers(found: Sequence[Found]) -> list[Footer]:
    """Opens all shards, 16 at a time, and reads their footers; hive values become their types.

    Raises:
        InputError: a shard is empty of bytes, not Parquet, or cut off; or hive keys differ.
    """
    kinds = _key_types(found)
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return list(pool.map(lambda shard: _read_footer(shard, kinds), found))


def _key_types(found: Sequence[Found]) -> dict[str, pa.DataType]:
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


def _read_footer(found: Found, kinds: dict[str, pa.DataType]) -> Footer:
    if found.size == 0:
        raise InputError(
            f"shard {found.path}: is empty of bytes; expected a Parquet file: "
            "write it again or take it out of input.path"
        )
    keys = tuple((name, _key_value(value, kinds[name])) for name, value in found.keys)
    try:
        fragment = _fragment(found.path, keys, kinds)
        metadata, schema = fragment.metadata, fragment.physical_schema
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"shard {found.path}: not a readable Parquet file ({reason(error)}); "
            "write it again or take it out of input.path"
        ) from error
    _no_duplicates(found.path, schema)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    shard = Shard(found.path, found.size, found.mark, metadata.num_rows, keys)
    plain = pa.schema(
        [pa.field(f.name, _plain_type(f.type)) for f in schema if f.name not in kinds]
        + [pa.field(name, kind) for name, kind in kinds.items()]
    )
    sizes = tuple(group.num_rows for group in groups)
    return Footer(shard, plain, sizes, sum(g.total_byte_size for g in groups), fragment)


def _key_value(text: str | None, kind: pa.DataType) -> KeyValue:
    return int(text) if text is not None and pa.types.is_integer(kind) else text


def _fragment(
    path: str, keys: tuple[tuple[str, KeyValue], ...], kinds: dict[str, pa.DataType]
) -> Any:
    filesystem, inner = open_filesystem(path)
    if "file" in filesystem.protocol:
        arrow = pyarrow.fs.LocalFileSystem()
    else:
        arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))
    place = ds.scalar(True)
    for name, value in keys:
        field = ds.field(name)
        place &= field.is_null() if value is None else field == pa.scalar(value, kinds[name])
    fragment = ds.ParquetFileFormat().make_fragment(inner, arrow, partition_expression=place)
    fragment.ensure_complete_metadata()
    return fragment


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
    kinds: dict[str, pa.DataType] = {}
    for footer in footers:
        for name in names:
            found = _column_type(footer, name, wanted is None)
            expected = kinds.setdefault(name, found)
            if expected == found:
                continue
            kinds[name] = _widest(expected, found) or _conflict(footer, name, expected, found)
    if wanted is None:
        _no_extra_columns(footers, names)
    return pa.schema([pa.field(name, kinds[name]) for name in names])


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


def keep_row_groups(footers: Sequence[Footer], schema: pa.Schema, filters: Any) -> list[Piece]:
    """Returns the row groups of each shard that may hold rows the filter keeps.

    Raises:
        InputError: the filter does not fit the columns' types.
    """
    if not filters:
        filled = [footer for footer in footers if footer.row_groups]
        return [_piece(footer, range(len(footer.row_groups))) for footer in filled]
    filter_condition(filters, schema)
    condition = _prunable(filters)
    pieces = []
    for footer in footers:
        fragment = footer.fragment
        if condition is not None:
            fragment = fragment.subset(filter=condition, schema=schema)
        kept = fragment.row_groups
        if kept:
            pieces.append(_piece(footer, [group.id for group in kept]))
    return pieces


def _prunable(filters: Any) -> Any:
    """The part of a filter that statistics can decide: they know of no NaN, which `!=` keeps."""
    groups = [[c for c in group if c[1] not in ("!=", "not in")] for group in filters]
    return pq.filters_to_expression(groups) if all(groups) else None


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


def _piece(footer: Footer, kept: Iterable[int]) -> Piece:
    starts = [0]
    for size in footer.row_groups:
        starts.append(starts[-1] + size)
    ids = tuple(kept)
    return Piece(
        footer.shard,
        ids,
        tuple(starts[i] for i in ids),
        tuple(footer.row_groups[i] for i in ids),
    )
