"""Columns of texts, and of whole numbers as texts, to what a model gets of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import Array, binary_array, raw_values, to_arrow, to_numpy
from batchscore.columnar.ragged import Ragged
from batchscore.columnar.texts import MISSING_TEXT, Texts

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_EXPECTED = (*_TEXTS, pa.types.is_integer)

TEXT_OR_INTEGER = ("text or integer", _EXPECTED)
"""What can become a text, in words and as tests of a type."""


def is_textual(kind: pa.DataType) -> bool:
    """Tells whether a column of a type, or of a dictionary of it, can become texts."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_null(plain) or any(test(plain) for test in _EXPECTED)


def to_text_column(column: pa.Array) -> pa.DictionaryArray:
    """Returns a column's texts as a dictionary of distinct ones, with int32 places.

    A whole number becomes its decimal digits. What a row becomes does not depend on other rows.
    """
    if not isinstance(column, pa.DictionaryArray) or len(column.dictionary) > len(column):
        return _encoded(_decoded(column))
    values = _encoded(column.dictionary)
    places, indices = values.indices, column.indices.cast(pa.int32())
    # Most dictionaries have each text once, and then its places are the column's own.
    is_same = len(values.dictionary) == len(column.dictionary) and not places.null_count
    return pa.DictionaryArray.from_arrays(
        indices if is_same else places.take(indices), values.dictionary
    )


def _decoded(column: pa.Array) -> pa.Array:
    if not isinstance(column, pa.DictionaryArray):
        return column
    return _plain(column.dictionary).take(column.indices)


def _plain(column: pa.Array) -> pa.Array:
    """Returns texts of a type that Arrow can take from and encode."""
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    if pa.types.is_null(column.type):
        column = column.cast(pa.large_string())
    found = _plain(column).dictionary_encode()
    assert isinstance(found, pa.DictionaryArray)
    texts = found.dictionary.cast(pa.large_string())
    return pa.DictionaryArray.from_arrays(found.indices, texts)


def texts_from_arrow(column: pa.DictionaryArray) -> Texts:
    """Views what `to_text_column` returned, or a slice of it or of several that were joined."""
    indices = column.indices
    place_b = raw_values(indices).astype(np.int32, copy=False)
    if indices.null_count:
        place_b = np.where(to_numpy(indices.is_null()), np.int32(MISSING_TEXT), place_b)
    return Texts(place_b, _bytes_of(column.dictionary))


def _bytes_of(texts: pa.Array) -> Ragged:
    _, offsets, data = texts.buffers()
    if offsets is None or not len(texts):
        return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64))
    ends = np.frombuffer(memoryview(offsets), np.int64, len(texts) + 1, texts.offset * 8)
    first, last = int(ends[0]), int(ends[-1])
    if data is None:
        return Ragged(np.empty(0, np.uint8), ends - first)
    return Ragged(np.frombuffer(memoryview(data), np.uint8, last - first, first), ends - first)


def fill_missing(column: pa.DictionaryArray, text: str) -> pa.DictionaryArray:
    """Returns a column of `to_text_column` with a text in the place of each missing one."""
    if not column.null_count:
        return column
    known = [*column.dictionary.to_pylist()]
    place = known.index(text) if text in known else len(known)
    more = [] if place < len(known) else [text.encode()]
    texts = pa.concat_arrays([column.dictionary, binary_array(more, pa.large_string())])
    place_b = texts_from_arrow(column).place_b
    filled_b = np.where(place_b == MISSING_TEXT, np.int32(place), place_b)
    return pa.DictionaryArray.from_arrays(to_arrow(filled_b), texts)


def missing_texts(column: pa.Array) -> Array:
    """Returns a mask (b,) of the rows without a text."""
    if isinstance(column, pa.DictionaryArray):
        return to_numpy(pc.is_null(_decoded(column)))
    return to_numpy(column.is_null())
