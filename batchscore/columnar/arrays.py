"""NumPy arrays to and from Arrow ones, without a copy and without importing pandas.

Suffixes: `_d` distinct values of a dictionary, `_p` places of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.array_type import Array as Array
from batchscore.columnar.ragged import Ragged
from batchscore.errors import StepError
from batchscore.messages.values import number_texts, plain_values

# What Arrow and NumPy call differently. Arrow's own to_pandas_dtype() imports pandas.
_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}
# Steps of a day, by a timestamp's unit.
_STEPS = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
# From the second to the last but one year that Python has, whatever the zone.
_SAFE_DAYS = (date(2, 1, 1) - date(1970, 1, 1)).days, (date(9998, 12, 31) - date(1970, 1, 1)).days


def to_arrow(values: Array) -> pa.Array:
    """Wraps an array of shape (b,) or (b, …) as a column of b rows.

    The trailing dimensions become nested FixedSizeLists. A bool array is copied, since Arrow packs
    its bits; all else shares memory.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype == np.bool_:
        bits = np.packbits(flat, bitorder="little")
        column = pa.Array.from_buffers(pa.bool_(), len(flat), [None, pa.py_buffer(bits)])
    else:
        kind = pa.from_numpy_dtype(flat.dtype)
        column = pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])
    for width in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, width)
    return column


def to_numpy(column: pa.Array) -> Array:
    """Views a column without nulls as an array: (b,), or (b, …) for FixedSizeLists.

    Raises:
        ValueError: The column holds nulls, or its type is not a number, bool or FixedSizeList.
    """
    if column.null_count:
        raise ValueError(f"column of type {column.type} holds {column.null_count} nulls")
    shape, rows = [], len(column)
    while isinstance(column, pa.FixedSizeListArray):
        shape.append(column.type.list_size)
        column = column.flatten()
    return _flat_numpy(column).reshape(rows, *shape)


def _flat_numpy(column: pa.Array) -> Array:
    if column.null_count:
        raise ValueError(f"column of type {column.type} holds {column.null_count} nulls")
    if not _holds_numbers(column.type):
        raise ValueError(f"column of type {column.type} is not made of numbers")
    return raw_values(column)


def ragged_to_arrow(ragged: Ragged) -> pa.LargeListArray:
    """Wraps rows as a LargeList column that shares their memory, as `to_arrow` does for steps."""
    return pa.LargeListArray.from_arrays(to_arrow(ragged.offsets), to_arrow(ragged.steps_n))


def ragged_from_arrow(column: pa.LargeListArray) -> Ragged:
    """Views a LargeList column, or a slice of one, without nulls at any depth."""
    offsets = to_numpy(column.offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    return Ragged(to_numpy(column.values[first:last]), offsets - first)


def raw_values(column: pa.Array) -> Array:
    """Views the values (b,) of a flat column; the value in the place of a null is arbitrary.

    Dates, times and durations are the integers that Arrow stores.

    Raises:
        ValueError: The column holds neither numbers nor booleans nor times.
    """
    data, dtype = column.buffers()[1], _stored_dtype(column.type)
    if data is None or not len(column):
        return np.empty(0, dtype)
    if dtype == np.bool_:
        return _unpack_bits(data, column.offset, len(column))
    return np.frombuffer(memoryview(data), dtype, len(column), column.offset * dtype.itemsize)


def valid_values(column: pa.Array) -> Array:
    """Returns the values (n,) of a flat column that are not null, a view where all are valid."""
    values_b, valid = raw_values(column), column.buffers()[0]
    if valid is None or not (column.null_count and len(column)):
        return values_b
    return values_b[_unpack_bits(valid, column.offset, len(column))]


@lru_cache  # asked for each column of each block
def _holds_numbers(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


@lru_cache
def _stored_dtype(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_temporal(kind):
        return np.dtype(f"i{kind.bit_width // 8}")
    if not _holds_numbers(kind):
        raise ValueError(f"column of type {kind} is not made of numbers")
    return np.dtype(_DTYPES.get(str(kind), str(kind)))


def _unpack_bits(data: pa.Buffer, offset: int, length: int) -> Array:
    first, skipped = divmod(offset, 8)
    packed = np.frombuffer(memoryview(data), np.uint8, (skipped + length + 7) // 8, first)
    bits = np.unpackbits(packed, count=skipped + length, bitorder="little")
    return bits[skipped:].view(np.bool_)


def binary_array(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Returns byte strings as a column of binaries or texts, large ones or not.

    Arrow's own `pa.array` imports pandas, which takes a second.
    """
    wide = pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64 if wide else np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def text_array(values: Sequence[str]) -> pa.Array:
    """Returns texts as a column, without importing pandas."""
    return binary_array([value.encode() for value in values], pa.string())


def filled(column: pa.Array, value: float) -> Array:
    """Views the numbers (b,) of a flat column; a value is in the place of each null.

    Arrow's own `fill_null` imports pandas.
    """
    values_b = raw_values(column)
    return np.where(to_numpy(column.is_null()), value, values_b) if column.null_count else values_b


def is_ascii(texts: pa.Array) -> bool:
    """Tells whether each byte of texts is a character, those in the place of a null as well."""
    _, offsets, data = texts.buffers()
    if offsets is None or data is None or not len(texts):
        return True
    dtype = np.dtype(np.int64 if pa.types.is_large_string(texts.type) else np.int32)
    ends = np.frombuffer(memoryview(offsets), dtype, len(texts) + 1, texts.offset * dtype.itemsize)
    bytes_n = np.frombuffer(memoryview(data), np.int8)[ends[0] : ends[-1]]
    return not bytes_n.size or bool(bytes_n.min() >= 0)


def make_batch(columns: Sequence[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    """Returns columns as a record batch, which keeps its count of rows where there is no column."""
    if columns:
        return pa.RecordBatch.from_arrays(columns, schema=schema)
    return pa.record_batch([pa.nulls(rows)], names=["rows"]).select([])


def take_rows(batch: pa.RecordBatch, places: pa.Array) -> pa.RecordBatch:
    """Returns the rows of a batch at these places, in their order, of any type of column.

    Arrow itself takes no rows of views, as Polars makes of texts, nor of run lengths.
    """
    if not batch.num_columns:
        return batch[: len(places)]
    try:
        return batch.take(places)
    except pa.ArrowNotImplementedError:
        columns = [_take(column, places) for column in batch.columns]
        return make_batch(columns, batch.schema, len(places))


def filter_rows(batch: pa.RecordBatch, keep_b: pa.Array) -> pa.RecordBatch:
    """Returns the rows of a batch where a mask (b,) is true, of any type of column."""
    try:
        return batch.filter(keep_b)
    except pa.ArrowNotImplementedError:
        return take_rows(batch, to_arrow(np.flatnonzero(to_numpy(keep_b))))


def _take(column: pa.Array, places: pa.Array) -> pa.Array:
    try:
        return column.take(places)
    except pa.ArrowNotImplementedError:
        places_p = to_numpy(places)
        runs = np.split(places_p, np.flatnonzero(np.diff(places_p) != 1) + 1)
        parts = [column.slice(run[0], len(run)) for run in runs if len(run)]
        return pa.concat_arrays(parts) if parts else column[:0]


def python_rows(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Returns rows as Python values; times of day and durations as text.

    Bytes of a text that are not UTF-8 become `\\xff`.
    """
    found: list[dict[str, Any]] = [{} for _ in range(rows.num_rows)]
    for name in rows.schema.names:
        for row, value in zip(found, _python_values(rows.column(name)), strict=True):
            row[name] = value
    return found


def _python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    try:
        return plain_values(column)
    except UnicodeDecodeError:
        return [_shown(value) for value in plain_values(column.cast(_undecoded(column.type)))]


def _undecoded(kind: pa.DataType) -> pa.DataType:
    """Returns a type with binaries in place of its texts, at any depth."""
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return pa.binary() if types.is_string(kind) else pa.large_binary()
    if types.is_list(kind):
        return pa.list_(_undecoded(kind.value_type))
    if types.is_large_list(kind):
        return pa.large_list(_undecoded(kind.value_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_undecoded(kind.value_type), kind.list_size)
    if types.is_map(kind):
        return pa.map_(_undecoded(kind.key_type), _undecoded(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([(field.name, _undecoded(field.type)) for field in kind])
    return kind


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_shown(each) for each in value)
    return value


def undecodable(column: pa.Array) -> Array:
    """Returns a mask (b,) of the texts of a column that are not valid UTF-8; of others, none."""
    none_b = np.zeros(len(column), np.bool_)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return none_b
    try:
        column.validate(full=True)
        return none_b
    except pa.ArrowInvalid:
        # One value is decoded once, however often it is there.
        encoded = column.cast(_undecoded(column.type)).dictionary_encode()
        bad_d = pa.array([_is_undecodable(each) for each in encoded.dictionary.to_pylist()])
        return to_numpy(pc.fill_null(bad_d.take(encoded.indices), False))


def beyond_years(column: pa.Array) -> Array:
    """Returns a mask (b,) of the dates and timestamps of a column whose year Python does not have.

    These are the years from 1 to 9999, in the column's own zone.
    """
    kind, none_b = column.type, np.zeros(len(column), np.bool_)
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return none_b
    whole = column.view(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    low, high = pc.min_max(whole).as_py().values()
    day = 1 if pa.types.is_date32(kind) else _STEPS[stored_unit(kind)]
    if low is None or (_SAFE_DAYS[0] * day <= low and high <= _SAFE_DAYS[1] * day):
        return none_b
    return np.array([_has_no_year(value) for value in column])


def stored_unit(kind: pa.DataType) -> str:
    """Returns the unit of the integers that a date64 or timestamp column stores."""
    return kind.unit if pa.types.is_timestamp(kind) else "ms"


def _has_no_year(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except (OverflowError, ValueError):
        return True
    return False


def _is_undecodable(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False


def has_extension(kind: pa.DataType) -> bool:
    """Tells whether a type is one of Arrow's extension types, or is made of one."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    return any(has_extension(kind.field(index).type) for index in range(kind.num_fields))


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Returns a type with what extension types are stored as in their place, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    return change_parts(kind, storage_type) if has_extension(kind) else kind


def change_parts(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Returns a list, struct or map type with the types of its parts changed, in their order."""
    types = pa.types

    def inner(part: pa.Field) -> pa.Field:
        return part.with_type(change(part.type))

    if types.is_struct(kind):
        return pa.struct([inner(part) for part in kind])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    return pa.list_(inner(kind.value_field)) if types.is_list(kind) else kind


def finite_rows(values: pa.RecordBatch) -> Array:
    """Returns a mask (b,) of the rows whose numbers are all there and finite, at any depth.

    A null in place of a number, or of a list of them, is not finite, and neither is any row of a
    column of Arrow's null type. Nulls of texts, booleans and times do not matter.

    Raises:
        StepError: A column is of structs, maps, list views, unions or run lengths.
    """
    mask_b = np.ones(values.num_rows, np.bool_)
    for name, column in zip(values.schema.names, values.columns, strict=True):
        leaf = _leaf_type(column.type)
        if pa.types.is_nested(leaf) or pa.types.is_run_end_encoded(leaf):
            raise StepError(
                f"postprocess: score column {name!r} is {column.type}; return numbers, texts, "
                "booleans, times, or lists of these"
            )
        if _is_number(leaf) or pa.types.is_null(leaf):
            for rows_n, _, bad_n in _levels(column):
                mask_b[rows_n[bad_n]] = False
    return mask_b


def leaf_numbers(column: pa.Array) -> Array | None:
    """Returns the numbers (n,) of a column, at any depth of lists; decimals become floats.

    Nulls are left out. None: the column is made of something else.
    """
    if not _is_number(_leaf_type(column.type)):
        return None
    column = _decode(column)
    while is_list(column.type):
        column = _decode(pc.list_flatten(column))
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return to_numpy(column.drop_null())


def numbers_by_row(column: pa.Array) -> tuple[Array, Array] | None:
    """Returns the numbers (n,) of a column without nulls, and the row of each.

    Numbers may be at any depth of lists, and decimals become floats. None: there are no numbers.
    """
    if not _is_number(_leaf_type(column.type)):
        return None
    rows_n, numbers, _ = _levels(column)[-1]
    if pa.types.is_decimal(numbers.type):
        numbers = numbers.cast(pa.float64())
    return rows_n, to_numpy(numbers)


def spoiled_values(column: pa.Array) -> tuple[Array, Array, pa.Array]:
    """Returns each null and float that is not finite: row, place in the row, and text (n,).

    Columns of other than numbers, or lists of these, have none.
    """
    nothing = np.empty(0, np.int64)
    rows, places, texts = [nothing], [nothing], [pa.nulls(0, pa.string())]
    leaf = _leaf_type(column.type)
    if _is_number(leaf) or pa.types.is_null(leaf):
        for rows_n, values, bad_n in _levels(column):
            rows.append(rows_n[bad_n])
            places.append(np.flatnonzero(bad_n) - np.searchsorted(rows_n, rows[-1]))
            lists = is_list(values.type)
            bad = pa.nulls(len(rows[-1])) if lists else values.filter(to_arrow(bad_n))
            texts.append(number_texts(bad))
    return np.concatenate(rows), np.concatenate(places), pa.concat_arrays(texts)


def _levels(column: pa.Array) -> list[tuple[Array, pa.Array, Array]]:
    """Returns a column's lists, level by level, then its numbers.

    Each with the row (n,) of each value, and a mask (n,) of those that are null or not finite.
    """
    levels = []
    column, rows_n = _decode(column), np.arange(len(column), dtype=np.int64)
    while is_list(column.type):
        levels.append((rows_n, column, ~to_numpy(column.is_valid())))
        rows_n = rows_n[to_numpy(pc.list_parent_indices(column)).astype(np.int64)]
        column = _decode(pc.list_flatten(column))
    good_n = to_numpy(column.is_valid())
    if pa.types.is_floating(column.type):
        good_n &= np.isfinite(raw_values(column))
    return [*levels, (rows_n, column, ~good_n)]


def escaped_texts(column: pa.Array) -> pa.Array:
    """Returns the texts (b,) of a column; bytes that are not UTF-8 become `\\xff`."""
    encoded = column.cast(_undecoded(column.type)).dictionary_encode()
    return pa.array(map(_shown, encoded.dictionary.to_pylist()), pa.string()).take(encoded.indices)


def _decode(column: pa.Array) -> pa.Array:
    """Takes dictionaries and extension types off a column's outermost level."""
    if isinstance(column, pa.ExtensionArray):
        return _decode(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return _decode(column.dictionary.take(column.indices))
    return column


def _leaf_type(kind: pa.DataType) -> pa.DataType:
    """The type within lists, dictionaries and extension types."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaf_type(kind.storage_type)
    if is_list(kind) or pa.types.is_dictionary(kind):
        return _leaf_type(kind.value_type)
    return kind


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def is_list(
    kind: pa.DataType,
) -> TypeGuard[pa.ListType | pa.LargeListType | pa.FixedSizeListType]:
    """Tells whether a type is a list of any kind but a map."""
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
