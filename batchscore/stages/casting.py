"""A batch's columns in declared types; rows with values that do not fit are rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    change_parts,
    filled,
    is_list,
    make_batch,
    storage_type,
    to_arrow,
)
from batchscore.errors import InputError
from batchscore.messages.values import joined_texts
from batchscore.stages.block import Block, Cause, reject_causes
from batchscore.stages.tally import value_texts

STAGE = "cast"
ERROR = "InvalidValue"


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type that stages see a column in: no dictionary and no extension, at any depth.

    Files are read in these types.
    """
    kind = storage_type(kind)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return change_parts(kind, plain_type) if pa.types.is_nested(kind) else kind


def check_castable(name: str, found: pa.DataType, wanted: pa.DataType) -> None:
    """Raises InputError where values of one type are none of the other, whatever they are."""
    if not _are_of_one_kind(found, wanted):
        raise InputError(
            f"column {name!r} of a batch is {found}, and {wanted} is declared in schema; cast it "
            "before bs.Score, or declare its type"
        )


def _are_of_one_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if is_list(found) and is_list(wanted):
        return _are_of_one_kind(found.value_type, wanted.value_type)
    if types.is_timestamp(found) and types.is_timestamp(wanted):
        return bool(found.tz == wanted.tz)
    if types.is_integer(found):
        return bool(
            types.is_integer(wanted) or types.is_floating(wanted) or types.is_decimal(wanted)
        )
    kinds = (types.is_floating, types.is_decimal, types.is_time, types.is_date, types.is_duration)
    return (
        found == wanted
        or types.is_null(found)
        or any(is_one(found) and is_one(wanted) for is_one in (*kinds, _is_text, _is_binary))
    )


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _is_binary(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view())


def cast_block(block: Block, schema: pa.Schema) -> Block:
    """Returns a block with the schema's columns in its types; rejects rows whose values do not fit.

    In a rejected row such a value is null, and the reason says what it was.
    """
    if block.batch.schema.equals(schema):
        return block
    columns, causes = list[pa.Array](), list[Cause]()
    for field in schema:
        column = block.batch.column(field.name)
        made, bad_b = _cast(column, field.type)
        columns.append(made)
        bad_b &= ~np.isin(np.arange(len(block)), [row for each in causes for row in each.rows_c])
        if bad_b.any():
            causes.append(_cause(field, column, bad_b))
    done = replace(block, batch=make_batch(columns, schema, len(block)))
    return reject_causes(done, causes, STAGE, ERROR) if causes else done


def _cast(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Array]:
    """Returns a column in another type, and which rows (b,) have a value that it cannot hold."""
    none_b = np.zeros(len(column), np.bool_)
    if column.type == kind:
        return column, none_b
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count == len(column):
        return pa.nulls(len(column), kind), none_b
    if pa.types.is_floating(column.type) and pa.types.is_floating(kind):
        return narrowed(column, kind)
    try:
        return column.cast(kind), none_b
    except pa.ArrowInvalid:
        bad_b = _misfits(column, kind)
        kept = pc.if_else(to_arrow(~bad_b), column, pa.nulls(len(column), column.type))
        return kept.cast(kind), bad_b


def narrowed(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Array]:
    """Returns floats in another type, and which rows (b,) are too large for it.

    Arrow makes these infinite without a word. Others are rounded to the nearest float.
    """
    made = column.cast(kind)
    bad_b = np.isfinite(filled(column, 0.0)) & ~np.isfinite(filled(made, 0.0))
    return (pc.if_else(to_arrow(~bad_b), made, pa.nulls(len(made), kind)), bad_b)


def _misfits(column: pa.Array, kind: pa.DataType) -> Array:
    """Returns which rows (b,) do not cast alone; only of a column that does not cast as a whole."""

    def fails(start: int, rows: int) -> list[int]:
        try:
            # A copy: of a slice of lists, Arrow casts all values.
            column.take(to_arrow(np.arange(start, start + rows))).cast(kind)
        except pa.ArrowInvalid:
            if rows == 1:
                return [start]
            half = rows // 2
            return fails(start, half) + fails(start + half, rows - half)
        return []

    bad_b = np.zeros(len(column), np.bool_)
    bad_b[fails(0, len(column))] = True
    return bad_b


def _cause(field: pa.Field, column: pa.Array, bad_b: Array) -> Cause:
    found = value_texts(column.filter(to_arrow(bad_b)))
    details = joined_texts([f"column {field.name!r}: ", found, f", expected {field.type}"])
    message = f"column {field.name!r} has a value that {field.type} cannot hold"
    return Cause(message, np.flatnonzero(bad_b), details)
