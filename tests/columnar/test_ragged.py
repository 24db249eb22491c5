"""Test that rows of varying length keep their steps on the way to Arrow and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.arrays import ragged_from_arrow, ragged_to_arrow
from batchscore.columnar.ragged import Ragged, make_ragged, take_steps, truncate

ROWS = st.lists(st.lists(st.integers(-9, 9), max_size=9), max_size=12)


def ragged_of(rows: list[list[int]]) -> Ragged:
    """The rows' numbers one after another, with each row's length."""
    flat = np.array([number for row in rows for number in row], np.int32)
    return make_ragged(flat, np.array([len(row) for row in rows], np.int64))


@given(ROWS, st.integers(0, 5), st.integers(0, 5))
def test_rows_come_back_from_any_slice(rows: list[list[int]], skip: int, kept: int) -> None:
    """Arrow's column and every slice of it hold the rows that were put in."""
    column = ragged_to_arrow(ragged_of(rows))
    assert column.to_pylist() == rows
    part = column[skip : skip + kept]
    back = ragged_from_arrow(part)
    expected = rows[skip : skip + kept]
    assert back.lengths_b.tolist() == [len(row) for row in expected]
    assert back.steps_n.tolist() == [number for row in expected for number in row]


def test_a_column_shares_the_memory_of_its_rows() -> None:
    """Wrapping and viewing copy no step."""
    ragged = ragged_of([[1, 2], [], [3]])
    back = ragged_from_arrow(ragged_to_arrow(ragged))
    assert back.steps_n.ctypes.data == ragged.steps_n.ctypes.data


def test_steps_may_be_vectors() -> None:
    """A row of two vectors comes back as two vectors, of the type it had."""
    steps = np.arange(12, dtype=np.float16).reshape(4, 3)
    column = ragged_to_arrow(make_ragged(steps, np.array([1, 0, 3])))
    assert column.type == pa.large_list(pa.list_(pa.float16(), 3))
    back = ragged_from_arrow(column[1:])
    assert back.steps_n.tolist() == steps[1:].tolist()
    assert back.offsets.tolist() == [0, 0, 3]


@given(ROWS, st.integers(1, 9))
def test_a_row_keeps_its_first_steps(rows: list[list[int]], longest: int) -> None:
    """What is beyond the limit is cut off; no row gives or takes a step of another."""
    cut = truncate(ragged_of(rows), longest)
    assert ragged_to_arrow(cut).to_pylist() == [row[:longest] for row in rows]


@given(ROWS.filter(bool), st.data())
def test_steps_are_taken_in_the_order_asked_for(rows: list[list[int]], data: st.DataObject) -> None:
    """Any rows, in any order and more than once, give their steps one after another."""
    ragged = ragged_of(rows)
    asked = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1))), np.int64)
    taken = take_steps(ragged.steps_n, ragged.offsets[asked], ragged.lengths_b[asked])
    assert taken.tolist() == [number for row in asked for number in rows[row]]
