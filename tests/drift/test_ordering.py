"""Test that keys keep order and values, and that octaves are what buckets need."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.ordering import (
    FLOAT,
    OCTAVES,
    PROBABILITY,
    SIGNED,
    UNSIGNED,
    KeySpace,
    bit_length,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SIGNED_INTS = st.integers(-(2**63), 2**63 - 1)
UNSIGNED_INTS = st.integers(0, 2**64 - 1)
PROBABILITIES = st.one_of(st.floats(0, 1), st.floats(0, 1e-3).map(lambda distance: 1 - distance))
SPACES = st.one_of(
    st.tuples(st.just(PROBABILITY), st.lists(PROBABILITIES, min_size=1)),
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
    for space in (FLOAT, PROBABILITY):
        keys_n = space.encode(np.array([0.0, -0.0]))
        assert keys_n[0] == keys_n[1]


@given(st.lists(st.integers(0, 2**52), min_size=1))
def test_probabilities_are_as_fine_near_1_as_near_0(steps: list[int]) -> None:
    """x and 1 - x have keys at the same distance from either end, and 1 - x is exact."""
    distances_n = np.array(steps, np.float64) * 2.0**-53
    low_n = PROBABILITY.encode(distances_n)
    high_n = PROBABILITY.encode(1 - distances_n)
    zero, one = PROBABILITY.encode(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(low_n - zero, one - high_n)
    np.testing.assert_array_equal(PROBABILITY.decode(high_n), 1 - distances_n)


@given(st.lists(st.integers(0, 0x7FC << 52), min_size=1))
def test_any_key_of_probabilities_decodes_in_order(keys: list[int]) -> None:
    """Edges of buckets that no probability has still decode into 0 to 1, in order."""
    values_n = PROBABILITY.decode(np.sort(np.array(keys, np.uint64)))
    assert (np.diff(values_n) >= 0).all()
    assert 0 <= values_n[0] <= values_n[-1] <= 1


@pytest.mark.parametrize("space", [FLOAT, PROBABILITY, SIGNED, UNSIGNED], ids=lambda s: s.name)
def test_copies_of_a_space_are_the_space(space: KeySpace) -> None:
    """Copied and pickled, a key space is itself, so that `is` tells spaces apart."""
    assert copy.deepcopy(space) is space
    assert pickle.loads(pickle.dumps(space)) is space


@given(SPACES)
def test_octaves_differ_above_what_a_bucket_drops(case: tuple[KeySpace, list[float]]) -> None:
    """The shift that joins all keys of one octave joins none of them with another's."""
    space, values = case
    keys_n = np.unique(space.encode(np.array(values, space.dtype)))
    octaves_n = space.octave(keys_n)
    lengths_n = bit_length(keys_n[1:] ^ keys_n[:-1])
    same_n = octaves_n[1:] == octaves_n[:-1]
    for octave in np.unique(octaves_n[1:][same_n]):
        inside = lengths_n[same_n & (octaves_n[1:] == octave)].max()
        outside = lengths_n[~same_n & ((octaves_n[1:] == octave) | (octaves_n[:-1] == octave))]
        assert (outside > inside).all()


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
