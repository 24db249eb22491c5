"""What a footer says of the chunks of its columns: encrypted, all null, how many values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.messages.wording import counted
from batchscore.stages.read import open_shard
from batchscore.storage.parquet import LeafReader

_DECODED_ROWS = 65_536
_END_BYTES = 8  # of every Parquet file: the footer's length, and four letters


def encrypted_columns(file: pa.NativeFile, size: int, reader: LeafReader) -> frozenset[str]:
    """Returns the paths of a shard's encrypted columns, whose footer itself is plain.

    Such a footer is signed: it is longer than what Arrow parsed. Of other files no column is
    looked at, since that takes as long as reading the footer.
    """
    file.seek(size - _END_BYTES)
    length = int.from_bytes(file.read(4), "little")
    if length == reader.metadata.serialized_size:
        return frozenset()
    paths = leaf_paths(reader.metadata)
    return frozenset(path for leaf, path in enumerate(paths) if not _opens(reader, leaf))


def leaf_paths(metadata: pq.FileMetaData) -> list[str]:
    """Returns the dotted path of each leaf column, in the footer's order."""
    return [metadata.schema.column(index).path for index in range(metadata.num_columns)]


def leaves_of(metadata: pq.FileMetaData, names: Collection[str]) -> list[int]:
    """Returns the indices of the leaf columns that columns of these names consist of."""
    paths = leaf_paths(metadata)
    return [index for index, path in enumerate(paths) if _belongs(path, names)]


def named_by(paths: Iterable[str], names: Collection[str]) -> list[str]:
    """Returns those of the names that have a leaf among the paths."""
    leaves = list(paths)
    return [name for name in names if any(_belongs(path, (name,)) for path in leaves)]


def _belongs(path: str, names: Collection[str]) -> bool:
    # A column's own name may have dots.
    return path in names or any(path.startswith(f"{name}.") for name in names)


def open_leaves(reader: LeafReader, leaves: list[int]) -> None:
    """Raises OSError for leaf columns that are encrypted, or damaged in the footer.

    Over their part of the footer Arrow would end the process; its reader, which opens them here
    without reading a row, raises.
    """
    for group in range(reader.num_row_groups if leaves else 0):
        list(reader.iter_batches(0, [group], leaves, use_threads=False))


def _opens(reader: LeafReader, leaf: int) -> bool:
    try:
        open_leaves(reader, [leaf])
    except OSError as error:
        return "decrypt" not in str(error)
    return True


def check_rows(reader: LeafReader, sizes: Sequence[int]) -> None:
    """Raises ValueError where a footer contradicts itself; the rows of its row groups count.

    The file's own count is not needed to read it, and other readers do not look at it. Where it
    differs, the columns of each row group must confirm the row group's count.
    """
    metadata, fewest, rows = reader.metadata, min(sizes, default=0), sum(sizes)
    if fewest >= 0 and rows == metadata.num_rows:
        return
    footer = counted(metadata.num_rows, "row")
    wrong = ValueError(f"its footer counts {footer}, its row groups {rows:,}")
    if fewest < 0:
        raise wrong
    leaves = list(range(metadata.num_columns))
    open_leaves(reader, leaves)
    repeated = [metadata.schema.column(leaf).max_repetition_level > 0 for leaf in leaves]
    for group, size in enumerate(sizes):
        for leaf in leaves:
            values = metadata.row_group(group).column(leaf).num_values
            if values < size if repeated[leaf] else values != size:
                raise wrong


def is_all_null(path: str, name: str) -> bool:
    """Tells whether a shard's column has nulls alone; of a flat one, by its statistics.

    Statistics do not tell a null from an empty list or from a struct of nulls, so such a column is
    decoded, up to its first value.

    Raises:
        ShardError: The shard cannot be opened any more.
    """
    with open_shard(path) as file:
        paths, groups = file.column_paths, [*range(file.metadata.num_row_groups)]
        leaves = [leaf for leaf, (top, *_) in enumerate(paths) if top == name]
        try:
            if [paths[leaf] for leaf in leaves] != [[name]]:
                return bool(leaves) and _decodes_to_nulls(file, groups, leaves)
            list(file.iter_batches(0, groups, leaves))
        except (OSError, pa.ArrowException):
            return False
        return all(has_nulls_alone(file.metadata.row_group(g).column(*leaves)) for g in groups)


def _decodes_to_nulls(file: LeafReader, groups: list[int], leaves: list[int]) -> bool:
    batches = file.iter_batches(_DECODED_ROWS, groups, leaves, use_threads=False)
    return all(batch.column(0).null_count == batch.num_rows for batch in batches)


def has_nulls_alone(chunk: pq.ColumnChunkMetaData) -> bool:
    """Tells whether a flat column has nulls alone in a row group, as far as its statistics say."""
    # A flat column has as many values as rows, nulls among them.
    found = chunk.statistics
    return found is not None and found.has_null_count and found.null_count == chunk.num_values
