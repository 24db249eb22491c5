"""Source columns to model inputs: by fitted features, by a user's function, or as they are.

Suffixes: `_bf` rows by features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    filled,
    filter_rows,
    is_list,
    ragged_to_arrow,
    to_arrow,
    to_numpy,
)
from batchscore.columnar.ragged import Varying, make_ragged, truncate
from batchscore.columnar.text_columns import fill_missing, is_textual, to_text_column
from batchscore.columnar.texts import TEXT
from batchscore.errors import InputError, StepError
from batchscore.stages.block import Block, Cause, reject_causes
from batchscore.stages.misfits import (
    input_causes,
    long_cause,
    textless_causes,
    uneven_cause,
    unseen_causes,
)

_STACKED_ROWS = 4_096  # at a time; what they write to stays in the cache
_MANY_COLUMNS = 16  # of fewer, all rows fit


@dataclass(frozen=True)
class InputColumns:
    """A model input and the columns that it is stacked from.

    Args:
        name: The model input.
        dtype: NumPy's name of its type, or `TEXT`.
        shape: Shape of one row; `(len(columns),)`, or of the one list column; of one step, where
            the length varies.
        columns: Names, in order.
        varying: Set where each row has a number of steps of its own; there is one list column.
        missing: The text that takes the place of null, for texts.
        made_of: Columns that a function may return in place of the input; empty: only `columns`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    varying: Varying | None = None
    missing: str | None = None
    made_of: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in one row, or in one step."""
        return int(np.prod(self.shape, dtype=np.int64))


Encode = Callable[[pa.RecordBatch], dict[str, pa.Array]]
FindRows = Callable[[pa.RecordBatch], Mapping[str, Array]]
"""Returns the rows (b,) to reject, by the column for whose value they are rejected."""


def _find_none(batch: pa.RecordBatch) -> Mapping[str, Array]:
    return {}


@dataclass(frozen=True)
class Unfit:
    """Finds the rows that features make no inputs of.

    Args:
        unseen: Those with a category that training never saw.
        textless: Those without a text or number, where the model needs one.
    """

    unseen: FindRows = _find_none
    textless: FindRows = _find_none


def encode_features(block: Block, encode: Encode, unfit: Unfit | None = None) -> Block:
    """Sets a block's values to the model inputs that fitted features make of its columns.

    Args:
        block: Some rows.
        encode: Makes the inputs of the source columns.
        unfit: Finds the rows that are rejected; by default none.
    """
    block, _ = _without_unfit(block, block.batch, unfit or Unfit())
    arrays = encode(block.batch)
    return replace(block, values=pa.record_batch(list(arrays.values()), names=list(arrays)))


def _without_unfit(
    block: Block, made: pa.RecordBatch, unfit: Unfit
) -> tuple[Block, pa.RecordBatch]:
    """Rejects rows for what a batch of them holds; returns the others, and their batch."""
    for causes_of, find, error in (
        (unseen_causes, unfit.unseen, "UnseenCategory"),
        (textless_causes, unfit.textless, "InvalidInput"),
    ):
        causes = causes_of(made, find(made))
        if causes:
            block = reject_causes(block, causes, "preprocess", error)
            made = _without(made, causes)
    return block, made


def _without(made: pa.RecordBatch, causes: Sequence[Cause]) -> pa.RecordBatch:
    bad_b = np.isin(np.arange(made.num_rows), np.concatenate([c.rows_c for c in causes]))
    return filter_rows(made, to_arrow(~bad_b))


@dataclass(frozen=True)
class Named:
    """How the columns that a function makes are encoded by their names.

    Args:
        columns: Those that the model reads.
        select: Returns them of all that a function made; StepError if one is missing.
        encode: Makes the inputs of them.
        unfit: Finds the rows that are rejected.
        counted: Returns those that checks count, or None.
    """

    columns: Sequence[str]
    select: Callable[[pa.RecordBatch], pa.RecordBatch]
    encode: Encode
    unfit: Unfit
    counted: Callable[[pa.RecordBatch], pa.RecordBatch | None]


def stack_columns(
    block: Block,
    inputs: Sequence[InputColumns],
    function: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    hidden: Sequence[str] = (),
    named: Named | None = None,
) -> Block:
    """Sets a block's values to its columns, or a user's function's, stacked to model inputs.

    A single column of the input's type shares its memory with it, and so do inputs of varying
    length, which are LargeLists: the network sees copies of a tile, so what it writes to its inputs
    cannot reach the source columns. The function never sees `hidden` columns.
    A model that names its columns may be given these in place of its inputs.

    A row with a null, a list of another length, or an integer that the input's type cannot hold,
    in one of these columns is rejected; and one that is too long, or whose inputs of varying
    length are not equally long.

    Raises:
        StepError: The function failed, or a column is missing or not made of numbers.
    """
    made = block.batch.drop_columns(list(hidden)) if hidden else block.batch
    made = function(made) if function else made
    if named is not None and not _are_inputs(made.schema, inputs, named.columns):
        return _encode_made(block, made, named)
    inputs = [_as_made(made.schema, each) for each in inputs]
    _check_columns(made, inputs)
    made = _type_nulls(made, inputs)
    _check_sequences(made, inputs)
    for find in (_find_bad, _find_uneven, _find_long):
        causes = find(made, inputs)
        if causes:
            block = reject_causes(block, causes, "preprocess", "InvalidInput")
            made = _without(made, causes)
    arrays = [_column(made, wanted) for wanted in inputs]
    return replace(block, values=pa.record_batch(arrays, names=[i.name for i in inputs]))


def _are_inputs(schema: pa.Schema, inputs: Sequence[InputColumns], columns: Sequence[str]) -> bool:
    """Tells whether a function made the inputs themselves, and not the columns that they are of."""
    return all(_is_input(schema, each, columns) for each in inputs)


def _is_input(schema: pa.Schema, each: InputColumns, columns: Sequence[str]) -> bool:
    return each.name in schema.names and (
        each.name not in columns or each.width == 1 or is_list(schema.field(each.name).type)
    )


def _as_made(schema: pa.Schema, each: InputColumns) -> InputColumns:
    """Returns an input with the columns that a function made of it, or for it."""
    if not each.made_of or _is_input(schema, each, each.made_of):
        return each
    return replace(each, columns=each.made_of)


def _encode_made(block: Block, made: pa.RecordBatch, named: Named) -> Block:
    try:
        made = named.select(made)
        block, made = _without_unfit(block, made, named.unfit)
        arrays = named.encode(made)
    except InputError as error:
        raise StepError(f"what preprocess.function returned does not fit: {error}") from error
    values = pa.record_batch(list(arrays.values()), names=list(arrays))
    return replace(block, values=values, made=named.counted(made))


def _check_columns(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> None:
    columns = [name for wanted in inputs for name in wanted.columns]
    missing = sorted(set(columns) - set(batch.schema.names))
    if missing:
        raise StepError(
            f"preprocess.function returned no column {missing[0]!r}, which the model needs; it "
            f"returned {', '.join(batch.schema.names) or 'none'}: return it, or correct "
            "model.inputs"
        )


def _type_nulls(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> pa.RecordBatch:
    """Gives nulls that a function left without a type that of their input.

    It leaves them so where a batch has nothing but nulls and empty lists, and other batches, cut
    elsewhere, have numbers.
    """
    for wanted in inputs:
        for name in wanted.columns:
            kind = batch.schema.field(name).type
            typed = _typed(kind, wanted, is_sequence=wanted.varying is not None)
            if typed != kind:
                place = batch.schema.get_field_index(name)
                batch = batch.set_column(place, name, batch.column(place).cast(typed))
    return batch


def _typed(kind: pa.DataType, wanted: InputColumns, is_sequence: bool = False) -> pa.DataType:
    value = _arrow_type(wanted.dtype)
    if pa.types.is_null(kind):
        return pa.list_(value) if is_sequence else value
    if is_list(kind) and _typed(kind.value_type, wanted) != kind.value_type:
        return pa.list_(_typed(kind.value_type, wanted))
    return kind


@lru_cache  # asked for each column of each block
def _arrow_type(dtype: str) -> pa.DataType:
    return pa.large_string() if dtype == TEXT else pa.from_numpy_dtype(np.dtype(dtype))


def _check_sequences(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> None:
    for wanted in inputs:
        kind = batch.schema.field(wanted.columns[0]).type
        if wanted.varying and not is_list(kind):
            raise StepError(
                f"model input {wanted.name!r}: column {wanted.columns[0]!r} is {kind}, and the "
                "input takes one list per row, of varying length; make lists in "
                "preprocess.function"
            )


def _find_bad(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> list[Cause]:
    bad_b = np.zeros(batch.num_rows, np.bool_)
    for wanted in inputs:
        for column in map(batch.column, wanted.columns if wanted.missing is None else ()):
            if wanted.varying:
                bad_b |= _bad_sequences(column, wanted)
            elif not _surely_good(column, wanted.dtype):
                bad_b |= _bad_rows(column, wanted)
    return input_causes(batch, inputs) if bad_b.any() else []


def _find_uneven(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> list[Cause]:
    lengths_b = _lengths(batch, inputs)
    first_b = next(iter(lengths_b.values()), None)
    uneven = any((found_b != first_b).any() for found_b in lengths_b.values())
    return [uneven_cause(lengths_b)] if uneven else []


def _find_long(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> list[Cause]:
    causes, known_b = list[Cause](), np.zeros(batch.num_rows, np.bool_)
    for wanted in inputs:
        if wanted.varying and not wanted.varying.truncate:
            length_b, limit = _lengths(batch, [wanted])[wanted.name], wanted.varying.max_length
            long_b = (length_b > limit) & ~known_b
            known_b |= long_b
            if long_b.any():
                causes.append(long_cause(wanted.columns[0], long_b, length_b, limit))
    return causes


def _lengths(batch: pa.RecordBatch, inputs: Sequence[InputColumns]) -> dict[str, Array]:
    """Returns the steps of each row (b,) of each input of varying length."""
    return {
        wanted.name: to_numpy(pc.list_value_length(batch.column(wanted.columns[0])))
        for wanted in inputs
        if wanted.varying
    }


def _bad_sequences(column: pa.Array, wanted: InputColumns) -> Array:
    """Each step is held to what a whole row of another input is held to."""
    bad_b = to_numpy(column.is_null())
    bad_n = _bad_rows(pc.list_flatten(column), wanted)
    if bad_n.any():
        lengths_b = filled(pc.list_value_length(column), 0)
        bad_b[np.repeat(np.arange(len(column)), lengths_b)[bad_n]] = True
    return bad_b


def _bad_rows(column: pa.Array, wanted: InputColumns) -> Array:
    rows = len(column)
    bad_b = to_numpy(column.is_null()) if column.null_count else np.zeros(rows, np.bool_)
    if is_list(column.type):
        bad_b |= _bad_lists(column, wanted)
    elif _may_overflow(column.type, wanted.dtype):
        bad_b |= _out_of_range(column, wanted.dtype)
    return bad_b


def _surely_good(column: pa.Array, dtype: str) -> bool:
    return not (column.null_count or is_list(column.type) or _may_overflow(column.type, dtype))


def _may_overflow(kind: pa.DataType, dtype: str) -> bool:
    if dtype == TEXT or not (pa.types.is_integer(kind) and np.dtype(dtype).kind in "iu"):
        return False
    return not np.can_cast(str(kind), dtype)


def _out_of_range(column: pa.Array, dtype: str) -> Array:
    values_b = filled(column, 0)
    limits = np.iinfo(dtype)
    return np.asarray((values_b < limits.min) | (values_b > limits.max))


def _bad_lists(column: pa.Array, wanted: InputColumns) -> Array:
    bad_b = np.asarray(filled(pc.list_value_length(column), 0) != wanted.width)
    numbers = pc.list_flatten(column.filter(to_arrow(~bad_b)))
    bad_n = _bad_rows(numbers, wanted)
    if bad_n.any():
        bad_b[~bad_b] = bad_n.reshape(-1, wanted.width).any(axis=1)
    return bad_b


def _column(batch: pa.RecordBatch, wanted: InputColumns) -> pa.Array:
    columns = [batch.column(name) for name in wanted.columns]
    for name, column in zip(wanted.columns, columns, strict=True):
        kind = column.type
        step = kind.value_type if wanted.varying and is_list(kind) else kind
        if not check_kind(step, wanted.dtype):
            raise StepError(
                f"model input {wanted.name!r}: column {name!r} is {column.type}, and the input "
                f"takes {wanted.dtype}; cast it in preprocess.function"
            )
    if wanted.dtype == TEXT:
        texts = to_text_column(columns[0])
        return texts if wanted.missing is None else fill_missing(texts, wanted.missing)
    if wanted.varying:
        return _sequences(columns[0], wanted, wanted.varying)
    return to_arrow(_stack(columns, wanted))


def _sequences(column: pa.Array, wanted: InputColumns, varying: Varying) -> pa.Array:
    lengths_b = to_numpy(pc.list_value_length(column))
    ragged = make_ragged(_reshape(pc.list_flatten(column), wanted), lengths_b)
    return ragged_to_arrow(truncate(ragged, varying.max_length))


def _stack(columns: Sequence[pa.Array], wanted: InputColumns) -> Array:
    if len(columns) == 1:
        return _reshape(columns[0], wanted)
    arrays = [_numbers(c, n) for c, n in zip(columns, wanted.columns, strict=True)]
    if not len(columns[0]):
        return np.empty((0, *wanted.shape), wanted.dtype)
    for name, array in zip(wanted.columns, arrays, strict=True):
        if array.ndim > 1:
            raise StepError(
                f"model input {wanted.name!r}: column {name!r} holds lists, and the input is "
                "stacked from several columns; make columns of numbers, or a single one of lists"
            )
    return _side_by_side(arrays, wanted.dtype).reshape(-1, *wanted.shape)


def _side_by_side(arrays: Sequence[Array], dtype: str) -> Array:
    """Returns arrays (b,) as the columns of one (b, f), row by row in memory.

    Each column writes to every cache line of its rows, so many columns take few rows at a time.
    """
    rows = len(arrays[0])
    if len(arrays) < _MANY_COLUMNS or rows <= _STACKED_ROWS:
        return np.asarray(np.stack(arrays, axis=1, dtype=dtype, casting="unsafe"))
    stacked_bf = np.empty((rows, len(arrays)), dtype)
    for start in range(0, rows, _STACKED_ROWS):
        part = slice(start, start + _STACKED_ROWS)
        np.stack([each[part] for each in arrays], axis=1, out=stacked_bf[part], casting="unsafe")
    return stacked_bf


def _reshape(column: pa.Array, wanted: InputColumns) -> Array:
    flat = pc.list_flatten(column) if is_list(column.type) else column
    values = _numbers(flat, wanted.columns[0]).astype(wanted.dtype, copy=False)
    # Lists that are all empty have no type, and no values that could be too few.
    if flat is column and wanted.width != 1 and len(column):
        raise StepError(
            f"model input {wanted.name!r}: takes {wanted.width:,} values per row, and "
            f"column {wanted.columns[0]!r} has one; make a list column, or more columns"
        )
    return np.asarray(values.reshape(len(column), *wanted.shape))


@lru_cache  # asked for each column of each block
def check_kind(kind: pa.DataType, dtype: str) -> bool:
    """Tells whether a column's values can become an input's type: a fraction is no integer."""
    if dtype == TEXT:
        return is_textual(kind)
    inner = kind.value_type if is_list(kind) else kind
    wanted = np.dtype(dtype).kind
    if wanted == "b":
        return bool(pa.types.is_boolean(inner))
    whole = pa.types.is_integer(inner) or pa.types.is_boolean(inner)
    return bool(whole or wanted == "f")


def _numbers(column: pa.Array, name: str) -> Array:
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    try:
        return to_numpy(column)
    except ValueError as error:
        raise StepError(
            f"model input column {name!r}: {error}; expected numbers: encode it in "
            "preprocess.function"
        ) from error
