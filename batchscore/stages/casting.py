"""A batch's columns in declared types; rows with values that do not fit are rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    change_parts,
    make_batch,
    storage_type,
    to_arrow,
)
from batchscore.errors import InputError
from batchscore.messages.values import joined_texts
from batchscore.stages.block import Block, Cause, reject_causes
from batchscore.stages.tally import value_texts
from batchscore.stages.typeless import are_alike

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
    types = pa.types
    widens = types.is_integer(found) and (types.is_floating(wanted) or types.is_decimal(wanted))
    both = (types.is_timestamp, types.is_time, types.is_date, types.is_decimal, types.is_duration)
    alike = are_alike(found, wanted) and not (types.is_floating(found) and types.is_integer(wanted))
    if not (
        found == wanted
        or types.is_null(found)
        or widens
        or alike
        or any(is_one(found) and is_one(wanted) for is_one in both)
        or (types.is_nested(found) and types.is_nested(wanted))
        or (types.is_binary(found) and types.is_large_binary(wanted))
    ):
        raise InputError(
            f"column {name!r} of a batch is {found}, and {wanted} is declared in schema; cast it "
            "before bs.Score, or declare its type"
        )


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
    try:
        return column.cast(kind), none_b
    except pa.ArrowInvalid:
        bad_b = _misfits(column, kind)
        kept = pc.if_else(to_arrow(~bad_b), column, pa.nulls(len(column), column.type))
        return kept.cast(kind), bad_b


def _misfits(column: pa.Array, kind: pa.DataType) -> Array:
    """Returns which rows (b,) do not cast alone; only of a column that does not cast as a whole."""

    def fails(start: int, rows: int) -> list[int]:
        try:
            column.slice(start, rows).cast(kind)
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
