"""Test that arrays go to Arrow and back with their bits, and without a copy where there is none."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchscore.columnar.arrays import (
    binary_array,
    filled,
    finite_rows,
    is_ascii,
    leaf_numbers,
    text_array,
    to_arrow,
    to_numpy,
    valid_values,
)
from batchscore.errors import StepError

DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64"]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)


@given(st.sampled_from(DTYPES).flatmap(lambda kind: hnp.arrays(kind, SHAPES)), st.data())
def test_arrays_come_back_bitwise_from_whole_and_sliced_columns(
    values: np.ndarray[Any, Any], data: st.DataObject
) -> None:
    """An array of any shape equals its column, and a slice of the column a slice of it."""
    column = to_arrow(values)
    assert len(column) == len(values)
    start = data.draw(st.integers(0, len(values)))
    length = data.draw(st.integers(0, len(values) - start))
    back = to_numpy(column.slice(start, length))
    assert back.dtype == values.dtype
    assert back.shape == (length, *values.shape[1:])
    assert back.tobytes() == values[start : start + length].tobytes()


KINDS = [pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64()]
KINDS += [pa.date32(), pa.time64("us"), pa.timestamp("ns"), pa.duration("s")]


@given(st.sampled_from(KINDS), st.lists(st.none() | st.integers(0, 1), max_size=40), st.data())
def test_valid_values_are_those_that_are_not_null(
    kind: pa.DataType, values: list[int | None], data: st.DataObject
) -> None:
    """Any slice of a flat column gives its values without nulls; times are integers."""
    stored = pa.int32() if kind == pa.date32() else pa.int64()
    column = pa.array(values, pa.float32() if kind == pa.float16() else stored).cast(kind)
    start = data.draw(st.integers(0, len(values)))
    length = data.draw(st.integers(0, len(values) - start))
    found = valid_values(column.slice(start, length)).tolist()
    assert found == [value for value in values[start : start + length] if value is not None]


@given(st.lists(st.none() | st.integers(0, 9), max_size=40), st.sampled_from(["int8", "uint64"]))
def test_nulls_are_filled_as_arrow_fills_them(values: list[int | None], kind: str) -> None:
    """Any slice of numbers has the value in the place of its nulls, and keeps its type."""
    column = pa.array(values, kind)[len(values) // 3 :]
    found = to_arrow(filled(column, 5))
    assert found.equals(pc.fill_null(column, 5))


@given(st.lists(st.text(max_size=4)))
def test_texts_become_a_column(values: list[str]) -> None:
    """A column of texts is the one that Arrow makes."""
    assert text_array(values).equals(pa.array(values, pa.string()))


@given(st.lists(st.binary(max_size=4)), st.sampled_from([pa.binary(), pa.large_binary()]))
def test_byte_strings_become_a_column(values: list[bytes], kind: pa.DataType) -> None:
    """A column of byte strings equals the one that Arrow's own function makes."""
    assert binary_array(values, kind).equals(pa.array(values, kind))


@given(st.lists(st.none() | st.text("aé", max_size=3)), st.integers(0, 4), st.booleans())
def test_texts_of_ascii_alone_are_known_from_others(
    values: list[str | None], skip: int, large: bool
) -> None:
    """A text's other characters count, and those of rows outside a slice do not."""
    array = pa.array(values, pa.large_string() if large else pa.string()).slice(skip)
    assert is_ascii(array) == all(each.isascii() for each in values[skip:] if each is not None)


@pytest.mark.parametrize("kind", DTYPES)
def test_no_rows_keep_type_and_shape(kind: str) -> None:
    """An empty array comes back empty, with its type and the shape of a row."""
    back = to_numpy(to_arrow(np.empty((0, 3, 2), kind)))
    assert back.dtype == np.dtype(kind)
    assert back.shape == (0, 3, 2)


def test_numbers_share_memory() -> None:
    """A column points at its array's bytes, and the array taken from it at the same."""
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    column = to_arrow(values)
    shared = pc.list_flatten(column).buffers()[1]
    assert shared is not None
    assert shared.address == values.ctypes.data
    assert to_numpy(column).ctypes.data == values.ctypes.data


def test_a_strided_array_is_laid_out_again() -> None:
    """A view that skips and turns round gives a column of the values that it shows."""
    values = np.arange(12).reshape(3, 4)[::-1, ::2]
    assert to_arrow(values).to_pylist() == [[8, 10], [4, 6], [0, 2]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, None]),
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, None]], pa.list_(pa.float32(), 2)),
        pa.array(["a"]),
        pa.array([[1.0]], pa.list_(pa.float32())),
        pa.array([0], pa.timestamp("s")),
    ],
    ids=["null", "null list", "null in a list", "text", "list", "time"],
)
def test_what_is_not_plain_numbers_is_refused(column: pa.Array) -> None:
    """Nulls and types that are not numbers are ValueErrors, never zeros or garbage."""
    with pytest.raises(ValueError, match="column of type"):
        to_numpy(column)


def test_pandas_is_not_imported() -> None:
    """Arrays are converted without loading pandas, which takes a second."""
    code = (
        "import sys, numpy as np;"
        "from batchscore.columnar.arrays import to_arrow, to_numpy, finite_rows;"
        "import pyarrow as pa; column = to_arrow(np.ones((3, 2), 'f4')); to_numpy(column);"
        "finite_rows(pa.record_batch([column], names=['x'])); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(hnp.arrays("float32", (7, 2)), st.lists(st.booleans(), min_size=7, max_size=7))
def test_finite_rows_are_those_without_nan_infinity_or_null(
    values: np.ndarray[Any, Any], nulls: list[bool]
) -> None:
    """A row is finite if each float of each column is; other types do not matter."""
    column = to_arrow(values)
    single = pa.array([None if null else 1.0 for null in nulls], pa.float64())
    text = pa.array([None, *"abcdef"])
    batch = pa.record_batch([column, single, text], names=["a", "b", "c"])
    expected = np.isfinite(values).all(axis=1) & ~np.array(nulls)
    assert finite_rows(batch).tolist() == expected.tolist()


def test_null_lists_and_nulls_in_lists_are_not_finite() -> None:
    """A null list, or a list that holds a null, is no score."""
    kind = pa.list_(pa.float32(), 2)
    column = pa.array([[1, 2], None, [None, 1], [float("inf"), 1], [3, 4]], kind)
    batch = pa.record_batch([column], names=["a"])
    assert finite_rows(batch).tolist() == [True, False, False, False, True]
    assert finite_rows(batch[3:]).tolist() == [False, True]
    assert finite_rows(batch[:0]).tolist() == []


NAN = float("nan")
FLOATS = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None]), pa.array([1.0, NAN, None]))
TEXTS = pa.array(["a", None, "b", "c"])


@pytest.mark.parametrize(
    ("column", "finite"),
    [
        (FLOATS, "1000"),
        (pa.ListArray.from_arrays([0, 1, 1, 2, 4], FLOATS), "1100"),
        (pa.DictionaryArray.from_arrays([0, 1, 0, 0], pa.array([[2.0], [NAN]])), "1011"),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1], [NAN], [2], [3]])), "1011"),
        (pa.array([1, None, 3, 4], pa.int16()), "1011"),
        (pa.array([[1], None, [None], []], pa.list_(pa.int64())), "1001"),
        (pa.array([Decimal(1), None, Decimal(3), None], pa.decimal128(3, 1)), "1010"),
        (pa.nulls(4), "0000"),
        (TEXTS, "1111"),
        (TEXTS.dictionary_encode(), "1111"),
        (pa.array([True, None, False, None]), "1111"),
        (pa.array([1, None, 3, 4], pa.timestamp("s")), "1111"),
        (pa.array([["a"], None, [None], []], pa.list_(pa.string())), "1111"),
    ],
    ids=str,
)
def test_each_arrow_type_has_its_finite_rows(column: pa.Array, finite: str) -> None:
    """Dictionaries count by their values; a null is no number, but a text, flag or time."""
    batch = pa.record_batch([column], names=["s"])
    for start in range(4):
        assert finite_rows(batch[start:]).tolist() == [each == "1" for each in finite[start:]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": NAN}]),
        pa.array([[(1, NAN)]], pa.map_(pa.int8(), pa.float32())),
        pa.array([[NAN]], pa.list_view(pa.float32())),
        pa.array([[NAN]], pa.large_list_view(pa.float32())),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([NAN])]),
        pa.RunEndEncodedArray.from_arrays([1], [NAN]),
        pa.array([[{"a": NAN}]]),
    ],
    ids=str,
)
def test_scores_that_cannot_be_checked_are_refused(column: pa.Array) -> None:
    """A type that may hide a NaN is an error that names the column, its type and the remedy."""
    with pytest.raises(StepError) as caught:
        finite_rows(pa.record_batch([column], names=["s"]))
    assert f"'s' is {column.type}; return numbers, texts" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pa.array([Decimal("0.5"), None, Decimal(-3)]), [0.5, -3]),
        (pa.array([7, None, 9]).dictionary_encode(), [7, 9]),
        (pa.array([[Decimal(2)], None, [None, Decimal(1)]]), [2, 1]),
        (pa.array([[1], None, [None, 2]], pa.list_(pa.float16())), [1, 2]),
        (pa.array([[], None], pa.list_(pa.int8())), []),
        (pa.array([True]), None),
        (TEXTS.dictionary_encode(), None),
        (pa.nulls(2), None),
    ],
    ids=str,
)
def test_the_numbers_of_a_column(column: pa.Array, numbers: list[float] | None) -> None:
    """Decimals, dictionaries and lists give their numbers without nulls; what has none, None."""
    found = leaf_numbers(column)
    assert (None if found is None else found.tolist()) == numbers
