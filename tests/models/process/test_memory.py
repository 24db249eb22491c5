"""Tests of arrays in memory that two processes share."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchscore.columnar.arrays import Array
from batchscore.columnar.ragged import Ragged, make_ragged
from batchscore.columnar.texts import Texts, make_texts
from batchscore.models.process.memory import (
    ArrayPlace,
    SharedMemory,
    UnreadableError,
    inputs_from,
    look,
    new_memory,
    parts_of,
    put,
    read_place,
)

ARRAYS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.datetime64_dtypes(),
        hnp.byte_string_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)


def other_side(memory: SharedMemory) -> SharedMemory:
    """The memory as another process has it."""
    return SharedMemory(os.dup(memory.descriptor))


@given(st.lists(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4), max_size=5))
@pytest.mark.slow
def test_arrays_come_back_as_they_went_in(batches: list[dict[str, Array]]) -> None:
    """Whatever their types and shapes, and whatever was in the memory before."""
    ours = new_memory()
    theirs = other_side(ours)
    for arrays in batches:
        places, size = put(parts_of(arrays), ours)
        fields = [read_place(each.to_json()) for each in places]
        found = inputs_from(look(fields, size, theirs))
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            seen = found[name]
            assert isinstance(seen, np.ndarray)
            assert (seen.dtype, seen.shape) == (array.dtype, array.shape)
            assert seen.tobytes() == array.tobytes()


@given(st.lists(st.none() | st.text(max_size=3).map(str.encode), max_size=8))
def test_texts_come_back(rows: list[bytes | None]) -> None:
    """They consist of three arrays, and become one input again."""
    ours = new_memory()
    places, size = put(parts_of({"x": make_texts(rows)}), ours)
    seen = inputs_from(look(places, size, other_side(ours)))["x"]
    assert isinstance(seen, Texts)
    assert [*seen.spelled()] == [None if row is None else row.decode() for row in rows]


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 2))
def test_rows_of_varying_length_come_back(lengths: list[int], width: int) -> None:
    """They consist of two arrays, and become one input again."""
    steps_n = np.arange(sum(lengths) * width, dtype=np.float32).reshape(-1, width or 1)[
        : sum(lengths)
    ]
    steps_n = np.resize(steps_n, (sum(lengths), width))
    ragged = make_ragged(steps_n, np.array(lengths, np.int64))
    memory = new_memory()
    places, size = put(parts_of({"x": ragged, "y": np.arange(3)}), memory)
    found = inputs_from(look(places, size, other_side(memory)))
    seen = found["x"]
    assert isinstance(seen, Ragged)
    np.testing.assert_array_equal(seen.steps_n, ragged.steps_n)
    np.testing.assert_array_equal(seen.offsets, ragged.offsets)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        ["x", "", "no type", [1], 0],
        ["x", "", "O", [1], 0],
        ["x", "", "<f4", [-1], 0],
        ["x", "", "<f4", [1], -4],
        ["x", "", "<f4", "one", 0],
    ],
)
def test_what_describes_no_array_is_refused(fields: Any) -> None:
    """Objects, and sizes that are no sizes, are not read from memory."""
    with pytest.raises(UnreadableError):
        read_place(fields)


def test_nothing_beyond_what_was_written_is_read() -> None:
    """Neither beyond the bytes of the message, nor beyond the memory itself."""
    memory = new_memory()
    _, size = put([("x", "", np.arange(8))], memory)
    with pytest.raises(UnreadableError, match="ends at byte"):
        look([ArrayPlace("x", "", "<i8", (9,), 0)], size, memory)
    with pytest.raises(UnreadableError, match="are there"):
        look([ArrayPlace("x", "", "<i8", (1,), 0)], 1 << 40, other_side(memory))
