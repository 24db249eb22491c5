"""The part of the filter that statistics decide: row groups that hold no row it keeps."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.plan.hive import Kinds
from batchscore.units.unit import KeyValue

Keys = tuple[tuple[str, KeyValue], ...]


def fragment(file: pa.NativeFile, keys: Keys, kinds: Kinds) -> Any:
    """Returns a shard as its statistics prune it."""
    # It imports pandas, which takes longer than all else here.
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat().make_fragment(file, partition_expression=_place(keys, kinds))


def _place(keys: Keys, kinds: Kinds) -> Any:
    """The expression that holds for every row of a shard in these hive folders."""
    place = pc.scalar(True)
    for name, value in keys:
        field, kind = pc.field(name), kinds[name]
        place &= field.is_null() if value is None else field == pa.scalar(value, kind)
    return place
