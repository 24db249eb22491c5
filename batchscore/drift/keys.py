"""Map numbers to order-preserving 64-bit keys and keys to the octaves that share one resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Octaves = NDArray[np.intp]

OCTAVES = 4096
_SIGN = np.uint64(1 << 63)
_ONE = np.uint64(1)


@dataclass(frozen=True)
class KeySpace:
    """How one family of number types is keyed.

    `encode` and `decode` are inverse and keep the order; `octave` names, as an integer below
    `OCTAVES`, the interval of keys within which all buckets are equally wide. An octave's keys
    are contiguous and every two octaves differ in a bit above those that a bucket may drop.
    """

    name: str
    dtype: np.dtype[Any]
    encode: Callable[[NDArray[Any]], Keys]
    decode: Callable[[Keys], NDArray[Any]]
    octave: Callable[[Keys], Octaves]


def bit_length(values_n: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the number of bits that each unsigned integer needs: 0 for 0, 64 for 2**64 - 1."""
    # Clearing the bit below each leading one keeps the conversion from rounding up to the next
    # power of two, so the exponent is exact.
    floats_n = (values_n & ~(values_n >> _ONE)).astype(np.float64)
    exponents_n = (floats_n.view(np.uint64) >> np.uint64(52)).view(np.intp)
    lengths_n: NDArray[np.intp] = np.maximum(exponents_n - 1022, 0)
    return lengths_n


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


FLOAT = KeySpace("float", np.dtype(np.float64), _float_keys, _float_values, _float_octaves)
SIGNED = KeySpace("signed", np.dtype(np.int64), _signed_keys, _signed_values, _signed_octaves)
UNSIGNED = KeySpace("unsigned", np.dtype(np.uint64), _unsigned_keys, _unsigned_keys, bit_length)
