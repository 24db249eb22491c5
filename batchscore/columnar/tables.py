"""A table of any library, or a dict of arrays, as one record batch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow
from batchscore.errors import InputError
from batchscore.messages.wording import reason


def as_batch(data: Any, what: str) -> pa.RecordBatch:
    """Returns rows in memory as one record batch.

    Args:
        data: A table of Arrow, pandas, Polars or another library that speaks Arrow, or a dict of
            NumPy arrays (rows, …) or lists by column.
        what: What messages call it.

    Raises:
        InputError: It is none of these, or its columns differ in length or share a name.
    """
    table = _table(data, what)
    twice = [name for name, times in Counter(table.schema.names).items() if times > 1]
    if twice:
        raise InputError(f"{what}: column {twice[0]!r} appears twice; rename one")
    chunks = table.combine_chunks().to_batches()
    if len(chunks) > 1:
        raise InputError(f"{what}: too large for one batch; give fewer rows")
    return _writable(chunks[0]) if chunks else _no_rows(table.schema)


def _writable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns rows whose categories Arrow can take and write: Polars has them as views."""
    for place, column in enumerate(batch.columns):
        if not isinstance(column, pa.DictionaryArray):
            continue
        if pa.types.is_string_view(column.type.value_type):
            values = column.dictionary.cast(pa.large_string())
            made = pa.DictionaryArray.from_arrays(column.indices, values)
            batch = batch.set_column(place, batch.schema.names[place], made)
    return batch


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)


def _table(data: Any, what: str) -> pa.Table:
    pandas = sys.modules.get("pandas")
    try:
        if pandas is not None and isinstance(data, pandas.DataFrame):
            return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
        if isinstance(data, Mapping):
            return pa.table({str(name): _column(values) for name, values in data.items()})
        if isinstance(data, pa.RecordBatch):
            return pa.Table.from_batches([data])
        if isinstance(data, pa.Table):
            return data
        return stream_of(data).read_all()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"{what} of type {type(data).__name__}: cannot be read as a table ({reason(error)}); "
            "give a pandas DataFrame, an Arrow table, or a dict of NumPy arrays"
        ) from error


def stream_of(data: Any) -> pa.RecordBatchReader:
    """Returns the rows of another library's table; TypeError if it does not speak Arrow."""
    if not hasattr(data, "__arrow_c_stream__"):
        raise TypeError("it has no rows that Arrow can read")
    return pa.RecordBatchReader.from_stream(data)


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    """Returns numbers of any dimensions as (nested) lists of fixed size; anything else as Arrow."""
    if isinstance(values, np.ndarray) and values.ndim and values.dtype.kind in "biuf":
        return to_arrow(_native(values))
    is_arrow = isinstance(values, pa.Array | pa.ChunkedArray)
    return values if is_arrow else pa.array(values)


def _native(values: Array) -> Array:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
