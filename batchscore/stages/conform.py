"""A shard's columns in the order and the types of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from batchscore.columnar.arrays import make_batch

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
