"""Test that keys keep order and values, and that octaves are what buckets need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.keys import FLOAT, OCTAVES, SIGNED, UNSIGNED, KeySpace, bit_length

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SIGNED_INTS = st.integers(-(2**63), 2**63 - 1)
UNSIGNED_INTS = st.integers(0, 2**64 - 1)
SPACES = st.one_of(
    st.tuples(st.just(FLOAT), st.lists(FLOATS, min_size=1)),
    st.tuples(st.just(SIGNED), st.lists(SIGNED_INTS, min_size=1)),
    st.tuples(st.just(UNSIGNED), st.lists(UNSIGNED_INTS, min_size=1)),
)


@given(SPACES)
def test_keys_keep_order_and_values(case: tuple[KeySpace, list[float]]) -> None:
    """Encoding then decoding gives the value back, and keys sort as the values do."""
    space, values = case
    values_n = np.array(values, space.dtype)
    keys_n = space.encode(values_n)
    np.testing.assert_array_equal(space.decode(keys_n), values_n)
    np.testing.assert_array_equal(space.decode(np.sort(keys_n)), np.sort(values_n))


def test_both_zeros_have_one_key() -> None:
    """Minus zero and zero are one value."""
    keys_n = FLOAT.encode(np.array([0.0, -0.0]))
    assert keys_n[0] == keys_n[1]


@given(SPACES)
def test_octaves_are_contiguous(case: tuple[KeySpace, list[float]]) -> None:
    """Along ascending keys no octave comes back, and its number stays below the table's size."""
    space, values = case
    octaves_n = space.octave(np.sort(space.encode(np.array(values, space.dtype))))
    assert 0 <= octaves_n.min() <= octaves_n.max() < OCTAVES
    changes = np.count_nonzero(np.diff(octaves_n))
    assert changes == np.unique(octaves_n).size - 1


@given(st.lists(UNSIGNED_INTS))
def test_bit_length_is_exact(values: list[int]) -> None:
    """Bit lengths equal Python's, also where a float would round up to the next power of two."""
    lengths = bit_length(np.array(values, np.uint64)).tolist()
    assert lengths == [value.bit_length() for value in values]


@pytest.mark.parametrize("power", [52, 53, 54, 62, 63])
def test_bit_length_holds_around_powers_of_two(power: int) -> None:
    """Both neighbours of a large power of two have their own bit length."""
    lengths = bit_length(np.array([2**power - 1, 2**power], np.uint64)).tolist()
    assert lengths == [power, power + 1]
