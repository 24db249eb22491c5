"""Map numbers to order-preserving 64-bit keys and keys to the octaves that share one resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Octaves = NDArray[np.intp]
Words = NDArray[Any]  # uint32 or uint64

OCTAVES = 4096
_SIGN = np.uint64(1 << 63)
_ONE = np.uint64(1)
_HALF = np.float64(0.5).view(np.uint64)


@dataclass(frozen=True)
class Layout:
    """How values of one dtype are read as words, more cheaply than as keys.

    Words of one sign ascend with their keys, or all against them.

    Args:
        most_shift: The most low bits of a word that may be left out when a bucket is looked for.
        words: Reads finite values as words.
        word_range: Turns first and last keys of buckets into the smallest and largest word that
            belongs into each; the largest is below the smallest where there is none.
    """

    most_shift: int
    words: Callable[[NDArray[Any]], Words]
    word_range: Callable[[Keys, Keys], tuple[Words, Words]]


@dataclass(frozen=True)
class KeySpace:
    """How one family of number types is keyed.

    `encode` and `decode` are inverse and keep the order; `octave` names, as an integer below
    `OCTAVES`, the interval of keys within which all buckets are equally wide. An octave's keys
    are contiguous and every two octaves differ in a bit above those that a bucket may drop.
    `layouts` holds, by the dtype's code, the faster readings of values.
    """

    name: str
    dtype: np.dtype[Any]
    encode: Callable[[NDArray[Any]], Keys]
    decode: Callable[[Keys], NDArray[Any]]
    octave: Callable[[Keys], Octaves]
    layouts: dict[str, Layout] = field(default_factory=dict, compare=False)

    def __reduce__(self) -> str:
        """Copies and pickles as the constant of its name, so that `is` tells spaces apart."""
        return self.name.upper()


def bit_length(values_n: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the number of bits that each unsigned integer needs: 0 for 0, 64 for 2**64 - 1."""
    # Clearing the bit below each leading one keeps the conversion from rounding up to the next
    # power of two, so the exponent is exact.
    floats_n = (values_n & ~(values_n >> _ONE)).astype(np.float64)
    exponents_n = (floats_n.view(np.uint64) >> np.uint64(52)).view(np.intp)
    lengths_n: NDArray[np.intp] = np.maximum(exponents_n - 1022, 0)
    return lengths_n


def run_starts(values_n: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of equal values begins."""
    new_n = np.ones(values_n.size, np.bool_)
    np.not_equal(values_n[1:], values_n[:-1], out=new_n[1:])
    return np.flatnonzero(new_n)


def _float_keys(values_n: NDArray[np.float64]) -> Keys:
    bits_n = (values_n + 0.0).view(np.int64)  # adding zero turns -0.0 into +0.0
    flip_n: Keys = (bits_n >> np.int64(63)).view(np.uint64)
    flip_n |= _SIGN
    flip_n ^= bits_n.view(np.uint64)
    return flip_n


def _float_values(keys_n: Keys) -> NDArray[np.float64]:
    return np.where(keys_n & _SIGN, keys_n ^ _SIGN, ~keys_n).view(np.float64)


def _float_octaves(keys_n: Keys) -> Octaves:
    octaves_n: Octaves = (keys_n >> np.uint64(52)).view(np.intp)
    return octaves_n


def _signed_keys(values_n: NDArray[np.int64]) -> Keys:
    keys_n: Keys = values_n.view(np.uint64) ^ _SIGN
    return keys_n


def _signed_values(keys_n: Keys) -> NDArray[np.int64]:
    values_n: NDArray[np.int64] = (keys_n ^ _SIGN).view(np.int64)
    return values_n


def _signed_octaves(keys_n: Keys) -> Octaves:
    # key >> 52 would put every integer below 2**52 into one octave: of values spread over many
    # magnitudes all but the largest would then share a bucket. The bit length does not.
    values_n = _signed_values(keys_n)
    magnitudes_n = (values_n ^ (values_n >> np.int64(63))).view(np.uint64)
    octaves_n: Octaves = bit_length(magnitudes_n) | ((values_n < 0).astype(np.intp) << 7)
    return octaves_n


def _unsigned_keys(values_n: NDArray[np.uint64]) -> Keys:
    return values_n


def _probability_keys(values_n: NDArray[np.float64]) -> Keys:
    # What is above one half is seen by its distance from 1, which is exact (Sterbenz).
    values_n = values_n + 0.0
    low_n = values_n <= 0.5
    keys_n: Keys = np.where(low_n, values_n, 1.0 - values_n).view(np.uint64)
    return np.where(low_n, keys_n, _HALF + _HALF - keys_n)


def _probability_values(keys_n: Keys) -> NDArray[np.float64]:
    low_n = keys_n <= _HALF
    values_n = np.where(low_n, keys_n, _HALF + _HALF - keys_n).view(np.float64)
    return np.where(low_n, values_n, 1.0 - values_n)


def _words32(values_n: NDArray[np.float32]) -> Words:
    return values_n.view(np.uint32)


def _words64(values_n: NDArray[np.float64]) -> Words:
    return values_n.view(np.uint64)


def _magnitude_range(first_keys_b: Keys, last_keys_b: Keys) -> tuple[Words, Words]:
    positive_b = (first_keys_b & _SIGN) != 0
    near_b = _float_values(np.where(positive_b, first_keys_b, last_keys_b)).view(np.uint64)
    far_b = _float_values(np.where(positive_b, last_keys_b, first_keys_b)).view(np.uint64)
    # A bucket of negative numbers may reach to where -0.0 would be, which is counted as +0.0.
    return near_b + (near_b == _SIGN), far_b


def _magnitude_range32(first_keys_b: Keys, last_keys_b: Keys) -> tuple[Words, Words]:
    near_b, far_b = _magnitude_range(first_keys_b, last_keys_b)
    return _inside32(near_b.view(np.float64), far_b.view(np.float64))


def _inside32(near_b: NDArray[np.float64], far_b: NDArray[np.float64]) -> tuple[Words, Words]:
    """Returns the words of the first and the last float32 between two magnitudes of one sign."""
    with np.errstate(over="ignore", under="ignore"):
        lows_b, highs_b = near_b.astype(np.float32), far_b.astype(np.float32)
    # Conversion rounds to the nearest; these must not leave the bucket.
    below_b, above_b = np.abs(lows_b) < np.abs(near_b), np.abs(highs_b) > np.abs(far_b)
    return _words32(lows_b) + below_b, _words32(highs_b) - above_b


def _probability_words32(values_n: NDArray[np.float32]) -> Words:
    # Up to one half the number itself, as a negative float; above, one less than the bits of its
    # distance from 1: there keys descend, and so first words of buckets are as even as first keys.
    halves_n = np.rint(values_n)
    near_n = values_n - halves_n
    halves_n -= np.float32(0.5)
    words_n = np.copysign(near_n, halves_n, out=near_n).view(np.uint32)
    words_n += np.right_shift(words_n, np.uint32(31), out=halves_n.view(np.uint32))
    words_n -= np.uint32(1)
    return words_n


def _probability_range32(first_keys_b: Keys, last_keys_b: Keys) -> tuple[Words, Words]:
    low_b = last_keys_b <= _HALF
    # The bucket that begins with one half leads from what is above it alone.
    first_keys_b = np.where(low_b, first_keys_b, np.maximum(first_keys_b, _HALF + _ONE))
    near_b = np.where(low_b, first_keys_b, _HALF + _HALF - last_keys_b)
    far_b = np.where(low_b, last_keys_b, _HALF + _HALF - first_keys_b)
    lows_b, highs_b = _inside32(near_b.view(np.float64), far_b.view(np.float64))
    return _signed_low(lows_b, low_b), _signed_low(highs_b, low_b)


def _signed_low(words_b: Words, low_b: NDArray[np.bool_]) -> Words:
    # Of 1 the word wraps around, and no table leads from it: no float32 is nearer to 1 than 2**-24.
    return np.where(low_b, words_b | np.uint32(1 << 31), np.maximum(words_b, 1) - np.uint32(1))


def _key_range(first_keys_b: Keys, last_keys_b: Keys) -> tuple[Words, Words]:
    return first_keys_b, last_keys_b


# One bit of the mantissa at least is kept.
_FLOAT32 = Layout(22, _words32, _magnitude_range32)
_FLOAT64 = Layout(51, _words64, _magnitude_range)
_PROBABILITY32 = Layout(22, _probability_words32, _probability_range32)
_PROBABILITY = Layout(51, _probability_keys, _key_range)

FLOAT = KeySpace(
    "float",
    np.dtype(np.float64),
    _float_keys,
    _float_values,
    _float_octaves,
    {"f4": _FLOAT32, "f8": _FLOAT64},
)
# Of numbers from 0 to 1: as fine near 1 as near 0.
PROBABILITY = KeySpace(
    "probability",
    np.dtype(np.float64),
    _probability_keys,
    _probability_values,
    _float_octaves,
    {"f4": _PROBABILITY32, "f8": _PROBABILITY},
)
SIGNED = KeySpace(
    "signed",
    np.dtype(np.int64),
    _signed_keys,
    _signed_values,
    _signed_octaves,
    {"i8": Layout(63, _signed_keys, _key_range)},
)
UNSIGNED = KeySpace(
    "unsigned",
    np.dtype(np.uint64),
    _unsigned_keys,
    _unsigned_keys,
    bit_length,
    {"u8": Layout(63, _unsigned_keys, _key_range)},
)
