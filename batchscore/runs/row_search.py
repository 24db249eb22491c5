"""Rows of an output's Parquet files by the values of their columns, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from batchscore.columnar.arrays import Array, storage_type, to_arrow, to_numpy
from batchscore.errors import InvalidError
from batchscore.messages.wording import one_line
from batchscore.runs.open_table import open_table
from batchscore.storage.store import Store, open_filesystem

_BATCH_ROWS = 16_384
_NULL = "null"
_UUID_STORAGE = pa.binary(16)


@dataclass(frozen=True)
class FoundRows:
    """Rows of one file: their int64 positions (n,) in it, from 0, and their columns (n rows)."""

    positions_n: Array
    rows: pa.Table


def parse_value(column: str, text: str, kind: pa.DataType) -> pa.Scalar:
    """Reads a text as a value of a column's type; `null` is null, and `"null"` the text.

    Raises:
        InvalidError: The text is no value of the type, or no text can give a value of the type.
    """
    kind = _plain_kind(kind)
    if text == _NULL:
        return pa.scalar(None, kind)
    if _is_text(kind) and len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    try:
        return cast_text(text, kind)
    except NotImplementedError as error:
        raise InvalidError(
            f"column {column!r}: is {kind}, whose values cannot be written as a text; search it "
            f"for {column}={_NULL} only"
        ) from error
    except ValueError as error:
        raise InvalidError(
            f"{column}={one_line(text)}: expected {kind}{_example(kind)}, or {_NULL}"
        ) from error


def cast_text(text: str, kind: pa.DataType) -> pa.Scalar:
    """Reads a text as a value of a type.

    Raises:
        ValueError: It is not valid.
        NotImplementedError: No text is.
    """
    if kind == _UUID_STORAGE:
        with suppress(ValueError):
            return pa.scalar(UUID(text).bytes, kind)
    return pa.scalar(text).cast(kind)


def _plain_kind(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _example(kind: pa.DataType) -> str:
    types = pa.types
    examples = (
        (types.is_integer, "7"),
        (types.is_floating, "0.5"),
        (types.is_boolean, "true"),
        (types.is_date, "2026-11-20"),
        (types.is_timestamp, "2026-11-20T09:30:00"),
    )
    text = next((example for is_kind, example in examples if is_kind(kind)), "")
    zone = "+00:00" if types.is_timestamp(kind) and kind.tz else ""
    return f" such as {text}{zone}" if text else ""


def read_kinds(store: Store, path: str) -> dict[str, pa.DataType]:
    """Returns the type of each column of a file; RecordError if it is missing or damaged."""
    with open_table(store, path) as file:
        return {field.name: storage_type(field.type) for field in file.schema_arrow}


def find_rows(
    store: Store,
    path: str,
    wanted: Mapping[str, pa.Scalar],
    limit: int,
    optional: Collection[str] = (),
) -> FoundRows:
    """Returns the first rows of a file whose columns have these values, at most `limit`.

    Row groups that cannot hold them, by their statistics, are not read. With nothing wanted every
    row is found.

    Args:
        optional: Columns that are null in a file that lacks them.

    Raises:
        RecordError: The file is missing or damaged.
    """
    positions = [np.empty(0, np.int64)]
    with open_table(store, path) as file:
        tables = [pa.Table.from_batches([], file.schema_arrow)]
        absent = set(optional) - set(file.schema_arrow.names)
        if any(wanted[column].is_valid for column in absent & wanted.keys()):
            return FoundRows(positions[0], tables[0])
        wanted = {column: value for column, value in wanted.items() if column not in absent}
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        for group in _candidates(store, path, wanted):
            row_n = _matching(file, group, wanted)[:limit]
            positions.append(starts[group] + row_n)
            tables.append(_take(file, group, row_n))
            limit -= len(row_n)
            if not limit:
                break
    return FoundRows(np.concatenate(positions), pa.concat_tables(tables))


def _candidates(store: Store, path: str, wanted: Mapping[str, pa.Scalar]) -> list[int]:
    """Returns the row groups that may hold the wanted rows, ascending."""
    handler = pyarrow.fs.FSSpecHandler(open_filesystem(store.address)[0])
    filesystem = pyarrow.fs.PyFileSystem(handler)
    fragment = ds.ParquetFileFormat().make_fragment(store.path(path), filesystem)
    condition = pc.scalar(True)
    for column, value in wanted.items():
        kind = fragment.physical_schema.field(column).type
        # Arrow compares no extension types.
        if not isinstance(kind, pa.BaseExtensionType):
            condition &= _condition(ds.field(column), value)
    return sorted(
        group.id for part in fragment.split_by_row_group(condition) for group in part.row_groups
    )


def _condition(column: pc.Expression, value: pa.Scalar) -> pc.Expression:
    # Statistics tell nothing of NaN. Arrow does not compare 16-bit floats, and takes a row group of
    # nulls alone, in a dictionary, for one without.
    blind = not value.is_valid or _is_nan(value) or pa.types.is_float16(value.type)
    return pc.scalar(True) if blind else column == value


def _is_nan(value: pa.Scalar) -> bool:
    return bool(pa.types.is_floating(value.type)) and math.isnan(value.as_py())


def _matching(file: pq.ParquetFile, group: int, wanted: Mapping[str, pa.Scalar]) -> Array:
    """Returns the int64 positions (n,) within a row group of the rows with the wanted values."""
    rows = file.metadata.row_group(group).num_rows
    mask_b = np.ones(rows, np.bool_)
    start = 0
    for batch in file.iter_batches(_BATCH_ROWS, [group], list(wanted)) if wanted else ():
        stop = start + batch.num_rows
        for column, value in wanted.items():
            mask_b[start:stop] &= to_numpy(_equal(batch.column(column), value))
        start = stop
    return np.flatnonzero(mask_b)


def _equal(column: pa.Array, value: pa.Scalar) -> pa.Array:
    """Returns where (b,) a column has the value; null equals null, and NaN NaN."""
    if not value.is_valid:
        return pc.is_null(column)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_float16(column.type):  # which Arrow does not compare
        column, value = column.cast(pa.float32()), value.cast(pa.float32())
    equal_b = pc.is_nan(column) if _is_nan(value) else pc.equal(column, value)
    return pc.fill_null(equal_b, False)


def _take(file: pq.ParquetFile, group: int, row_n: Array) -> pa.Table:
    """Returns all columns of rows of a row group at ascending positions (n,) within it."""
    batches, start = [], 0
    for batch in file.iter_batches(_BATCH_ROWS, [group]) if len(row_n) else ():
        here_n = row_n[(row_n >= start) & (row_n < start + batch.num_rows)] - start
        batches.append(batch.take(to_arrow(here_n)))
        start += batch.num_rows
        if start > row_n[-1]:
            break
    return pa.Table.from_batches(batches, file.schema_arrow)
