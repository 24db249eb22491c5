"""The types of scores: a batch whose values do not tell a type gets that of other batches."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from batchscore.columnar.arrays import make_batch

Types = Mapping[str, pa.DataType]


def typed(values: pa.RecordBatch, known: Types) -> pa.RecordBatch:
    """Gives columns the types that are known, where that changes no value.

    If no row of a batch has a text, a boolean, a time or a list, pandas and Arrow make nulls of
    no type, or missing floats. If one row has no integer, pandas makes floats of all. The outcome
    of a row must not depend on either.
    """
    columns = [
        _typed(column, known.get(name, column.type))
        for name, column in zip(values.schema.names, values.columns, strict=True)
    ]
    fields = zip(values.schema.names, columns, strict=True)
    schema = pa.schema([pa.field(name, column.type) for name, column in fields])
    return values if schema == values.schema else make_batch(columns, schema, len(values))


def known_types(values: pa.RecordBatch | None) -> dict[str, pa.DataType]:
    """Returns the types of a batch's columns, without those of which no row tells the type."""
    if values is None or not values.num_rows:
        return {}
    return {field.name: field.type for field in values.schema if not _is_typeless(field.type)}


def _typed(column: pa.Array, known: pa.DataType) -> pa.Array:
    if column.type == known:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), known)
    alike = are_alike(column.type, known)
    if not (_is_typeless(column.type) or alike):
        return column
    try:
        made = column.cast(known)
        # Arrow casts to a narrower float without a word.
        same = not alike or made.cast(column.type).equals(column)
        return made if same else column
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column


def are_alike(kind: pa.DataType, known: pa.DataType) -> bool:
    """Tells whether both types are of numbers, or both of texts."""
    return any(is_one(kind) and is_one(known) for is_one in (_is_number, _is_text))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_typeless(kind: pa.DataType) -> bool:
    """Tells whether a type, or a part of it, is Arrow's null type."""
    if pa.types.is_dictionary(kind):
        return _is_typeless(kind.value_type)
    parts = (kind.field(index).type for index in range(kind.num_fields))
    return pa.types.is_null(kind) or any(map(_is_typeless, parts))
