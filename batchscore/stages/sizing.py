"""How many rows of a shard are decoded at a time, so that a block's bytes are bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import ShardError
from batchscore.models.backends.facts import TILE_ROWS
from batchscore.stages.leaves import Leaves
from batchscore.storage.parquet import LeafReader
from batchscore.storage.store import open_filesystem

MOST_BYTES = 32 << 20  # of a block, decoded
MOST_PAGE_BYTES = 512 << 20
MOST_DICTIONARY_BYTES = 256 << 20
_HEADER_BYTES = 32
_REPEATS = 64  # more texts than this seldom share all of a chunk's bytes
_GROWS = 4  # times its encoded bytes: more is no ordinary column of numbers
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}


@dataclass
class _Bytes:
    """Decoded bytes of some rows: those of numbers, and those of texts and whatever grows."""

    numbers: float = 0.0
    texts: float = 0.0


@dataclass(frozen=True)
class OpenShard:
    """A shard that is open to be read.

    Args:
        path: Its address.
        file: As it is read.
        leaves: Its leaf columns that are read.
        reopen: Opens it again, with texts of these columns as dictionaries.
    """

    path: str
    file: LeafReader
    leaves: Leaves
    reopen: Callable[[list[str]], LeafReader]


def rows_at_once(shard: OpenShard, groups: Sequence[int], most: int) -> int:
    """Returns how many rows of some row groups to decode at a time, at most `most`.

    A footer tells how large columns are encoded. A text of a dictionary is decoded as often as it
    is used, so the longest text of the dictionary counts. A block of numbers has a tile's rows at
    least, as the network would see a whole tile anyway.

    Raises:
        ShardError: A page is too large to be decoded.
        OSError: A column is damaged or encrypted.
    """
    sizes = [] if _is_small(shard, groups, most) else [_group_bytes(shard, g) for g in groups]
    numbers = shard.leaves.fixed_bits / 8 + max((each.numbers for each in sizes), default=0.0)
    texts = max((each.texts for each in sizes), default=0.0)
    fitting = max(MOST_BYTES / max(1.0, numbers), TILE_ROWS)
    return max(1, int(min(most, fitting, MOST_BYTES / max(1.0, texts))))


def _is_small(shard: OpenShard, groups: Sequence[int], most: int) -> bool:
    """Tells whether columns fit into a block even if each row has all bytes of the row groups."""
    if not shard.leaves.unsized:
        return True
    found = [shard.file.metadata.row_group(group) for group in groups]
    rows = sum(group.num_rows for group in found)
    encoded = sum(group.total_byte_size for group in found)
    return not shard.leaves.is_nested and min(rows, most) * encoded <= MOST_BYTES


def _group_bytes(shard: OpenShard, group: int) -> _Bytes:
    """Returns the decoded bytes of a mean row of a row group, of columns of no fixed width."""
    metadata = shard.file.metadata
    # Over a damaged or encrypted column's metadata Arrow would end the process; its reader raises.
    list(shard.file.iter_batches(0, [group], shard.leaves.unsized, use_threads=False))
    found, whole = _Bytes(), metadata.row_group(group)
    for leaf in shard.leaves.unsized:
        chunk = whole.column(leaf)
        _check_pages(shard, group, chunk)
        width = _width(chunk.physical_type, metadata.schema.column(leaf).length)
        if width is None:
            found.texts += _text_bytes(shard, group, leaf)
        elif chunk.num_values * width > _GROWS * chunk.total_uncompressed_size:
            found.texts += chunk.num_values * width
        else:
            found.numbers += chunk.num_values * width
    rows = max(1, whole.num_rows)
    return _Bytes(found.numbers / rows, found.texts / rows)


def _width(physical: str, length: int | None) -> int | None:
    if physical == "BYTE_ARRAY":
        return None
    return length if physical == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(physical, 8)


def _text_bytes(shard: OpenShard, group: int, leaf: int) -> float:
    """Returns at most how many bytes a chunk's texts are, decoded."""
    chunk = shard.file.metadata.row_group(group).column(leaf)
    encoded, values = chunk.total_uncompressed_size, chunk.num_values
    if "DELTA_BYTE_ARRAY" in chunk.encodings:
        # Each text may repeat the one before.
        return float(encoded * min(values, _REPEATS))
    if not chunk.has_dictionary_page or values * encoded <= MOST_BYTES:
        return float(encoded + 4 * values)
    return float(encoded + values * (4 + _longest(shard, group, leaf)))


def _longest(shard: OpenShard, group: int, leaf: int) -> int:
    """Returns the bytes of the longest text of a chunk's dictionary, which is decoded for that."""
    path = shard.file.metadata.schema.column(leaf).path
    with shard.reopen([path]) as file:
        for batch in file.iter_batches(1, [group], [leaf], use_threads=False):
            texts = _dictionary(batch.column(0))
            return 0 if texts is None else int(pc.max(pc.binary_length(texts)).as_py() or 0)
    return 0


def _dictionary(column: Any) -> pa.Array | None:
    """Returns the dictionary of the only leaf of a column, at any depth of lists and structs."""
    while pa.types.is_nested(column.type):
        column = column.field(0) if pa.types.is_struct(column.type) else column.values
    return column.dictionary if pa.types.is_dictionary(column.type) else None


def _check_pages(shard: OpenShard, group: int, chunk: pq.ColumnChunkMetaData) -> None:
    """Raises ShardError where a chunk's dictionary, or first page, is too large to be decoded.

    Arrow decodes a page as a whole, and holds a dictionary three times.
    """
    limits = {chunk.data_page_offset: MOST_PAGE_BYTES}
    if chunk.dictionary_page_offset is not None:
        limits[chunk.dictionary_page_offset] = MOST_DICTIONARY_BYTES
    for place, most in limits.items():
        # A page is no larger than its chunk.
        size = _page_bytes(shard.path, place) if chunk.total_uncompressed_size > most else 0
        if size > most:
            raise ShardError(
                shard.path,
                f"column {chunk.path_in_schema!r} has a page of {size / 1e6:,.0f} MB in row group "
                f"{group}, expected at most {most / 1e6:,.0f} MB, as it is decoded as a whole; "
                "write the shard with smaller pages and without large dictionaries",
            )


def _page_bytes(path: str, place: int) -> int:
    """Returns a page's bytes without compression, by its header: the second number in it."""
    filesystem, inner = open_filesystem(path)
    with filesystem.open(inner, "rb") as file:
        file.seek(place)
        header = file.read(_HEADER_BYTES)
    _, start = _varint(header, 1)
    size, _ = _varint(header, start + 1)
    return size


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Returns a number of Thrift's compact protocol, and where the next byte is."""
    found, shift = 0, 0
    while start < len(data) and data[start] & 128:
        found |= (data[start] & 127) << shift
        start, shift = start + 1, shift + 7
    found |= (data[start] if start < len(data) else 0) << shift
    return found >> 1, start + 1
