"""Values of a column for people: exact, times and durations as text, dates of any year."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.messages.wording import of_count

_SHOWN = 80
_SHOWN_SCALAR = pa.Array.from_buffers(pa.int32(), 1, [None, pa.py_buffer(np.int32(_SHOWN))])[0]
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAY = 86_400


def clock_text(value: int, unit: str) -> str:
    """Returns a time of day, or a duration below a day, as `09:30:00.5`.

    Args:
        value: How many of the unit.
        unit: Arrow's name of it: s, ms, us or ns.
    """
    digits = _DIGITS[unit]
    seconds, fraction = divmod(abs(value), 10**digits)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    decimals = f".{fraction:0{digits}d}".rstrip("0") if fraction else ""
    return f"{'-' if value < 0 else ''}{clock}{decimals}"


def duration_text(value: int, unit: str) -> str:
    """Returns a duration as DuckDB and PostgreSQL read an interval: `2 days 09:30:00.5`.

    Days and the rest have the same sign.

    Args:
        value: How many of the unit.
        unit: Arrow's name of it: s, ms, us or ns.
    """
    days, rest = divmod(abs(value), _DAY * 10 ** _DIGITS[unit])
    sign = -1 if value < 0 else 1
    if not days:
        return clock_text(value, unit)
    head = f"{sign * days} {of_count(days, 'day', 'days')}"
    return f"{head} {clock_text(sign * rest, unit)}" if rest else head


def date_text(value: pa.Scalar) -> str:
    """Returns a date or timestamp of any year as ISO 8601 text, with `Z` where it has a zone."""
    assert isinstance(value, pa.Date32Scalar | pa.Date64Scalar | pa.TimestampScalar)
    kind = value.type
    unit = kind.unit if pa.types.is_timestamp(kind) else "D" if kind.bit_width == 32 else "ms"
    moment = np.array(value.value, np.int64).view(f"M8[{unit}]")
    if np.isnat(moment):  # the smallest int64, which is a value in Arrow
        return str(value.value)
    text = str(moment)
    if pa.types.is_timestamp(kind):
        return text + ("Z" if kind.tz else "")
    return text.partition("T")[0]


def plain_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Returns a column's values as Python's, at any depth.

    Times of day and durations are texts, and so are dates and timestamps of years that Python
    does not have.
    """
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in plain_values(chunk)]
    kind = column.type
    if not _holds_span(kind):
        return _python_values(column)
    if isinstance(column, pa.DictionaryArray):
        return plain_values(column.dictionary_decode())
    if not (pa.types.is_duration(kind) or pa.types.is_time(kind)):
        return _plain_parts(column)
    text = duration_text if pa.types.is_duration(kind) else clock_text
    whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
    numbers = column.cast(whole).to_pylist()
    return [None if each is None else text(each, kind.unit) for each in numbers]


def _python_values(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
    if isinstance(column, pa.ExtensionArray):
        return plain_values(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return plain_values(column.dictionary_decode())
    if pa.types.is_nested(column.type):
        return _plain_parts(column)
    return [_date(each) for each in column]


def _date(value: pa.Scalar) -> Any:
    """Returns a date or timestamp as Python's, or as text where Python has no such year."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return date_text(value)


def _plain_parts(column: pa.Array) -> list[Any]:
    """Returns the values of structs as dicts, of lists as lists, of maps as lists of pairs."""
    kind, valid = column.type, column.is_valid().to_pylist()
    if isinstance(column, pa.StructArray):
        parts = zip(*map(plain_values, column.flatten()), strict=True)
        names = [field.name for field in column.type]
        rows = [dict(zip(names, row, strict=True)) for row in parts]
        return [row if known else None for row, known in zip(rows, valid, strict=True)]
    if pa.types.is_map(kind):
        pairs = plain_values(column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
        return [each and [tuple(pair.values()) for pair in each] for each in pairs]
    items = iter(plain_values(pc.list_flatten(column)))
    lengths = pc.list_value_length(column).to_pylist()
    return [
        list(islice(items, length)) if known else None
        for length, known in zip(lengths, valid, strict=True)
    ]


def plain_value(value: pa.Scalar) -> Any:
    """Returns a value as Python's, a time of day or a duration as text."""
    return plain_values(pa.repeat(value, 1))[0]


def _holds_span(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _holds_span(kind.value_type)
    if not types.is_nested(kind):
        return _is_span(kind)
    return any(_holds_span(kind.field(place).type) for place in range(kind.num_fields))


def _is_span(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind) or pa.types.is_time(kind))


def number_texts(column: pa.Array) -> pa.Array:
    """Returns numbers or booleans (b,) as texts of at most 80 characters; a null is `null`."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return bounded(pc.fill_null(column.cast(pa.string()), text_scalar("null")))


def bounded(texts: pa.Array) -> pa.Array:
    """Returns texts (b,) cut to 80 characters."""
    long_b = pc.greater(pc.utf8_length(texts), _SHOWN_SCALAR)
    cut = joined_texts([pc.utf8_slice_codeunits(texts, 0, _SHOWN - 1), "…"])
    return pc.if_else(long_b, cut, texts)


def joined_texts(parts: Sequence[pa.Array | str]) -> pa.Array:
    """Returns texts (b,) that are put together from columns of texts and from fixed texts."""
    columns = [text_scalar(part) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*columns, text_scalar(""))


@lru_cache(256)
def text_scalar(text: str) -> pa.Scalar:
    """Returns a text as a scalar; Arrow imports pandas for one that it is given by Python."""
    data = text.encode()
    ends = pa.py_buffer(np.array([0, len(data)], np.int32))
    return pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(data)])[0]
