"""Source columns to model inputs: by fitted features, by a user's function, or as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrays import Array, to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.stages.block import Block, reject_rows

_CACHE_ROWS = 4096


@dataclass(frozen=True)
class InputColumns:
    """A model input and the columns that it is stacked from.

    Args:
        name: the model input.
        dtype: NumPy's name of its type.
        shape: of one row; `(len(columns),)`, or of the one list column.
        columns: names, in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]

    @property
    def width(self) -> int:
        """Numbers in one row."""
        return int(np.prod(self.shape, dtype=np.int64))


Encode = Callable[[pa.RecordBatch], dict[str, pa.Array]]


def encode_features(block: Block, encode: Encode) -> Block:
    """Sets a block's values to the model inputs that fitted features make of its columns."""
    arrays = encode(block.batch)
    return replace(block, values=pa.record_batch(list(arrays.values()), names=list(arrays)))


def stack_columns(
    block: Block,
    inputs: Sequence[InputColumns],
    function: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Block:
    """Sets a block's values to its columns, or a user's function's, stacked to model inputs.

    The values are a copy: a network that writes to its inputs cannot reach the source columns.
    A row with a null, a list of another length, or an integer that the input's type cannot hold,
    in one of these columns is rejected.

    Raises:
        StepError: the function failed, or a column is missing or not made of numbers.
    """
    made = function(block.batch) if function else block.batch
    columns = [name for wanted in inputs for name in wanted.columns]
    missing = sorted(set(columns) - set(made.schema.names))
    if missing:
        raise StepError(
            f"preprocess.function returned no column {missing[0]!r}, which the model needs; it "
            f"returned {', '.join(made.schema.names) or 'none'}: return it, or correct model.inputs"
        )
    bad_b = _bad_rows(made, inputs)
    if bad_b.any():
        mask = to_arrow(bad_b)
        message = (
            "a model input's column holds a null, a list of another length, or a too large integer"
        )
        block = reject_rows(block, mask, "preprocess", "InvalidInput", message)
        made = made.filter(pc.invert(mask))
    arrays = [to_arrow(_stack(made, wanted)) for wanted in inputs]
    return replace(block, values=pa.record_batch(arrays, names=[i.name for i in inputs]))


def _bad_rows(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> Array:
    bad_b = np.zeros(batch.num_rows, np.bool_)
    for wanted in inputs:
        for name in wanted.columns:
            column = batch.column(name)
            if column.null_count:
                bad_b |= to_numpy(column.is_null())
            if is_list(column.type):
                bad_b |= _bad_lists(column, wanted.width)
            elif _may_overflow(column.type, wanted.dtype):
                bad_b |= _out_of_range(column, wanted.dtype)
    return bad_b


def _may_overflow(kind: pa.DataType, dtype: str) -> bool:
    wanted = np.dtype(dtype)
    return (
        pa.types.is_integer(kind) and wanted.kind in "iu" and kind.bit_width > 8 * wanted.itemsize
    )


def _out_of_range(column: pa.Array, dtype: str) -> Array:
    values_b = to_numpy(pc.fill_null(column, 0))
    limits = np.iinfo(dtype)
    return np.asarray((values_b < limits.min) | (values_b > limits.max))


def _bad_lists(column: pa.Array, width: int) -> Array:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    bad_b = np.asarray(to_numpy(lengths) != width)
    numbers = column.filter(to_arrow(~bad_b)).flatten()
    if numbers.null_count:
        bad_b[~bad_b] = to_numpy(numbers.is_null()).reshape(-1, width).any(axis=1)
    return bad_b


def is_list(kind: pa.DataType) -> bool:
    """Tells whether a column holds a list of numbers a row."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _stack(batch: pa.RecordBatch, wanted: InputColumns) -> Array:
    columns = [batch.column(name) for name in wanted.columns]
    rows = batch.num_rows
    for name, column in zip(wanted.columns, columns, strict=True):
        if not check_kind(column.type, wanted.dtype):
            raise StepError(
                f"model input {wanted.name!r}: column {name!r} is {column.type}, and the input "
                f"takes {wanted.dtype}; cast it in preprocess.function"
            )
    if len(columns) == 1:
        column = columns[0]
        flat = column.flatten() if is_list(column.type) else column
        values = _numbers(flat, wanted.dtype, wanted.columns[0])
        return np.asarray(values.reshape(rows, *wanted.shape))
    arrays = [_numbers(c, None, n) for c, n in zip(columns, wanted.columns, strict=True)]
    stacked_bf = np.empty((rows, len(arrays)), wanted.dtype)
    for start in range(0, rows, _CACHE_ROWS):
        part = slice(start, start + _CACHE_ROWS)
        for index, array in enumerate(arrays):
            stacked_bf[part, index] = array[part]
    return stacked_bf.reshape(rows, *wanted.shape)


def check_kind(kind: pa.DataType, dtype: str) -> bool:
    """Tells whether a column's numbers can become an input's type: a fraction is no integer."""
    inner = kind.value_type if is_list(kind) else kind
    wanted = np.dtype(dtype).kind
    if wanted == "b":
        return bool(pa.types.is_boolean(inner))
    whole = pa.types.is_integer(inner) or pa.types.is_boolean(inner)
    return bool(whole or wanted == "f")


def _numbers(column: pa.Array, dtype: str | None, name: str) -> Array:
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    try:
        values = to_numpy(column)
    except ValueError as error:
        raise StepError(
            f"model input column {name!r}: {error}; expected numbers: encode it in "
            "preprocess.function"
        ) from error
    return values if dtype is None else np.asarray(values.astype(dtype))
