"""The types of a shard's columns, leaf by leaf, as its Parquet schema annotates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

Change = Callable[[pa.DataType, pq.ColumnSchema], pa.DataType]


def change_leaves(schema: pa.Schema, stored: pq.ParquetSchema, change: Change) -> pa.Schema:
    """Returns a shard's Arrow schema with another type in place of each leaf's.

    Args:
        schema: as Arrow makes it of `stored`, and of the Arrow schema beside it.
        stored: the shard's own.
        change: is called with a leaf's type and its column of `stored`.
    """
    leaves = (stored.column(index) for index in range(len(stored)))
    return pa.schema([field.with_type(_changed(field.type, leaves, change)) for field in schema])


def _changed(kind: pa.DataType, leaves: Iterator[pq.ColumnSchema], change: Change) -> pa.DataType:
    types = pa.types

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_changed(field.type, leaves, change))

    if isinstance(kind, pa.BaseExtensionType):
        # Its type says more than the annotations of what it is stored as.
        _changed(kind.storage_type, leaves, change)
        return kind
    if types.is_struct(kind):
        return pa.struct([inner(field) for field in kind])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    return pa.list_(inner(kind.value_field)) if types.is_list(kind) else change(kind, next(leaves))


def as_microseconds(kind: pa.DataType, column: pq.ColumnSchema) -> pa.DataType:
    """Returns an INT96 timestamp's type in microseconds, and any other leaf's as it is."""
    return pa.timestamp("us") if column.physical_type == "INT96" else kind
