"""Tests of the 64-bit hashes of values."""

import os
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.hashing import hash_bytes

_MASK = 2**64 - 1
_FROZEN = ["e220a8397b1dcdaf", "8a36b8396517e466", "6d42fec877f090d6"]


def _mixed(hash_: int, word: int) -> int:
    mixed = ((hash_ ^ word) + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def _expected(value: bytes) -> int:
    words = [int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8)]
    places = [(i + 1) * 0xD6E8FEB86659FD93 & _MASK for i in range(len(words))]
    return _mixed(sum(map(_mixed, places, words)) & _MASK, len(value))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 5))
def test_a_hash_is_that_of_the_documented_formula_in_any_slice(
    values: list[bytes], skip: int
) -> None:
    """A hash follows the documented formula, whatever is around the value."""
    array = pa.array(values, pa.large_binary()).slice(skip)
    assert hash_bytes(array).tolist() == [_expected(value) for value in values[skip:]]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([0, 1, 7, 8, 9, 63, 65, 300, 8191, 8192, 8193]), max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_short_and_long_values_next_to_each_other_follow_the_formula(
    sizes: list[int], seed: int
) -> None:
    """A hash follows the formula, whatever the lengths of the values next to it."""
    chance = Random(seed)
    values = [chance.randbytes(size) for size in sizes]
    array = pa.array(values, pa.large_binary())
    assert hash_bytes(array).tolist() == [_expected(value) for value in values]


@pytest.mark.parametrize("longest", [1, 30, 3_000])
def test_many_values_follow_the_formula(longest: int) -> None:
    """Values of more words than are hashed at a time follow the formula, of even lengths or not."""
    chance = Random(longest)
    values = [chance.randbytes(int(longest * chance.random() ** 4)) for _ in range(9_000)]
    values += [chance.randbytes(longest)] * 12_000
    hashes_n = hash_bytes(pa.array(values, pa.large_binary()))
    some = chance.sample(range(len(values)), 300)
    assert hashes_n[some].tolist() == [_expected(values[row]) for row in some]
    assert np.unique(hashes_n[9_000:]).size == 1


def test_values_longer_than_what_is_hashed_at_a_time_follow_the_formula() -> None:
    """Values of more words than are hashed at a time follow the formula too."""
    values = [os.urandom(size) for size in (3, 300_001, 0, 17, 131_072, 500_000)]
    array = pa.array(values, pa.large_binary())
    assert hash_bytes(array).tolist() == [_expected(value) for value in values]


def test_stored_hashes_stay_readable() -> None:
    """The hashes of some values are frozen, since profiles hold them."""
    array = pa.array([b"", b"a", b"New York City"], pa.large_binary())
    assert [f"{each:016x}" for each in hash_bytes(array).tolist()] == _FROZEN


def test_zeros_at_the_end_and_swapped_words_change_the_hash() -> None:
    """Values that differ in zeros at their end or in the order of words hash apart."""
    values = [
        b"a",
        b"a\0",
        b"a\0\0\0\0\0\0\0\0",
        b"",
        b"\0",
        b"12345678abcdefgh",
        b"abcdefgh12345678",
    ]
    assert len(set(hash_bytes(pa.array(values, pa.large_binary())).tolist())) == len(values)
