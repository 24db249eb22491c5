"""The part of the filter that statistics decide: row groups that hold no row it keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.plan.listing import Kinds
from batchscore.units import KeyValue

Keys = tuple[tuple[str, KeyValue], ...]


def fragment(file: pa.NativeFile, keys: Keys, kinds: Kinds) -> Any:
    """Returns a shard as its statistics prune it."""
    # It imports pandas, which takes longer than all else here.
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat().make_fragment(file, partition_expression=_place(keys, kinds))


def check_columns(file: pa.NativeFile, metadata: pq.FileMetaData, names: Collection[str]) -> None:
    """Raises OSError for columns that are encrypted or damaged in the footer.

    Over their statistics Arrow would end the process; its reader, which opens them here without
    reading a row, raises.
    """
    leaves = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    indices = [i for i, path in enumerate(leaves) if path.partition(".")[0] in names]
    reader = pq.ParquetFile(file, metadata=metadata, buffer_size=1, pre_buffer=False).reader
    for group in range(metadata.num_row_groups if indices else 0):
        list(reader.iter_batches(0, [group], indices, use_threads=False))


def _place(keys: Keys, kinds: Kinds) -> Any:
    """The expression that holds for every row of a shard in these hive folders."""
    place = pc.scalar(True)
    for name, value in keys:
        field, kind = pc.field(name), kinds[name]
        place &= field.is_null() if value is None else field == pa.scalar(value, kind)
    return place
