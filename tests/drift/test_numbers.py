"""Test how the numbers of an Arrow array are read."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules
from batchscore.drift.numbers import number_values
from batchscore.drift.table import TableProfile


def prices(type_: pa.DataType) -> pa.Array:
    """Return 0.00 to 199.99, each once."""
    return pa.array([Decimal(cents).scaleb(-2) for cents in range(20_000)], type_)


@pytest.mark.parametrize(
    "type_",
    [pa.decimal32(9, 2), pa.decimal64(15, 2), pa.decimal128(15, 2), pa.decimal256(9, 2),
     pa.decimal128(38, 2), pa.decimal256(76, 4)],
    ids=str,
)  # fmt: skip
def test_prices_are_the_nearest_floats(type_: pa.DataType) -> None:
    """A decimal becomes the float that its text stands for, whatever its width and precision."""
    array = prices(type_)
    expected = [float(str(each)) for each in array.to_pylist()]
    assert number_values(array).tolist() == expected
    assert number_values(array[700:9000]).tolist() == expected[700:9000]


@given(st.data())
def test_decimals_are_the_nearest_floats(data: Any) -> None:
    """So do decimals of any scale, up to what a type can hold, negative ones and nulls among."""
    precision = data.draw(st.integers(1, 38))
    scale = data.draw(st.integers(-10, 38))
    largest = 10**precision - 1
    units = data.draw(st.lists(st.none() | st.integers(-largest, largest), max_size=20))
    type_ = pa.decimal128(precision, scale)
    whole = pa.array(
        [None if each is None else Decimal(each) for each in units], pa.decimal128(precision, 0)
    )
    array = pa.Array.from_buffers(type_, len(whole), whole.buffers())
    expected = [float(f"{each}E{-scale}") for each in units if each is not None]
    assert number_values(array.drop_null()).tolist() == expected
    assert number_values(array).tolist() == expected


def test_a_column_that_became_decimal_did_not_change() -> None:
    """Against the same numbers as floats every distance of a decimal column is 0."""
    sides = [TableProfile.empty(), TableProfile.empty()]
    floats = pa.array([cents / 100 for cents in range(4000)])
    for side, array in zip(sides, (floats, prices(pa.decimal128(9, 2))[:4000]), strict=True):
        side.update(pa.record_batch({"x": array}))
    (aspect,) = compare_profiles(sides[0], sides[1], Rules()).aspects
    assert aspect.verdict == "ok"
    assert {each.name: each.value for each in aspect.measures if each.value} == {}
    assert {"psi", "ks", "w1", "w1_unclipped", "js"} <= {each.name for each in aspect.measures}


def test_empty_decimals_have_no_values() -> None:
    """Neither a decimal column of no rows nor one of nulls has a number."""
    for array in (pa.array([], pa.decimal128(9, 2)), pa.nulls(3, pa.decimal128(9, 2))):
        values = number_values(array)
        assert (values.size, values.dtype.str) == (0, "<f8")
    assert math.isclose(number_values(pa.array([Decimal("1E+70")], pa.decimal256(76, 0)))[0], 1e70)
