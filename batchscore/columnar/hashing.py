"""64-bit hashes of values that do not depend on machine, batch, or Arrow's width of a type.

Suffixes: `_m` values that are not empty, `_l` those of several words, `_w` words of some of these,
`_r` the values that they are of.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array

_WORD = 8
_WORDS_AT_A_TIME = 16_384  # their temporaries stay in the second-level cache
_PLACE = np.uint64(0xD6E8FEB86659FD93)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


def mix(hash_n: Array, word_n: Array) -> Array:
    """Mixes a 64-bit word into each hash (n,), by SplitMix64's finalizer; order matters."""
    mixed_n: Array = hash_n ^ word_n
    mixed_n += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed_n ^= mixed_n >> np.uint64(shift)
        mixed_n *= np.uint64(factor)
    mixed_n ^= mixed_n >> np.uint64(31)
    return mixed_n


def hash_bytes(values: pa.Array) -> Array:
    """Returns the hashes (n,), uint64, of a large_binary array without nulls.

    A value is cut into little-endian words w₁, w₂, … of eight bytes, the last one filled up with
    zeros. Its hash is mix(Σ mix(i · 0xD6E8FEB86659FD93, wᵢ), its length in bytes), modulo 2⁶⁴.
    Memory grows with the number of values, not with their length.
    """
    if not len(values):
        return np.empty(0, np.uint64)
    _, offsets, data = values.buffers()
    assert offsets is not None
    offsets_n = np.frombuffer(memoryview(offsets), np.int64, len(values) + 1, _WORD * values.offset)
    lengths_n = np.diff(offsets_n)
    rows_m = np.flatnonzero(lengths_n)
    sums_n = np.zeros(len(values), np.uint64)
    sums_n[rows_m] = _sum_words(_readable(data), offsets_n[rows_m], offsets_n[rows_m + 1])
    return mix(sums_n, lengths_n.view(np.uint64))


def _readable(data: pa.Buffer | None) -> pa.Buffer:
    """Returns a buffer that holds at least one word."""
    if data is not None and data.size >= _WORD:
        return data
    return pa.py_buffer((data.to_pybytes() if data is not None else b"").ljust(_WORD, b"\0"))


def _sum_words(data: pa.Buffer, starts_m: Array, ends_m: Array) -> Array:
    """Returns the sum (m,) of the mixed words of each value, none of which is empty."""
    words = _words(data)
    before_m = (ends_m - starts_m - 1) // _WORD  # whole words before the last
    sums_m = _mixed(before_m, _last_words(words, starts_m + _WORD * before_m, ends_m))
    long_l = np.flatnonzero(before_m)
    if long_l.size:
        sums_m[long_l] += _sum_whole(words, starts_m[long_l], before_m[long_l])
    return sums_m


def _sum_whole(words: Array, starts_l: Array, counts_l: Array) -> Array:
    """Returns the sum (l,) of the first mixed words of values, at least one of each, all whole."""
    sums_l = np.zeros(starts_l.size, np.uint64)
    until_l = counts_l.cumsum()
    from_l = until_l - counts_l
    total = int(until_l[-1])
    for first in range(0, total, _WORDS_AT_A_TIME):
        last = min(first + _WORDS_AT_A_TIME, total)
        low, high = np.searchsorted(until_l, (first + 1, last))
        rows = slice(low, high + 1)
        inside_r = np.minimum(until_l[rows], last) - np.maximum(from_l[rows], first)
        place_w = np.arange(first, last)
        at_w = np.repeat(starts_l[rows] - _WORD * from_l[rows], inside_r) + _WORD * place_w
        place_w -= np.repeat(from_l[rows], inside_r)
        mixed_w = _mixed(place_w, words[at_w].astype(np.uint64, copy=False))
        sums_l[rows] += np.add.reduceat(mixed_w, inside_r.cumsum() - inside_r)
    return sums_l


def _mixed(place_w: Array, words_w: Array) -> Array:
    """Returns words mixed with their places within their values, counted from 0."""
    return mix((place_w + 1).view(np.uint64) * _PLACE, words_w)


def _words(data: pa.Buffer) -> Array:
    """Views a buffer as the little-endian words that begin at each of its bytes but the last."""
    words: Array = np.ndarray((data.size - _WORD + 1,), "<u8", memoryview(data), strides=(1,))
    return words


def _last_words(words: Array, at_m: Array, ends_m: Array) -> Array:
    """Returns the words at byte positions of which up to the end belong to the value."""
    # A word that would reach beyond the buffer is read further ahead and shifted into place.
    ahead_m = np.maximum(at_m - (words.size - 1), 0)
    words_m: Array = words[at_m - ahead_m].astype(np.uint64, copy=False) >> _bits(ahead_m)
    words_m &= _ALL_BITS >> _bits(_WORD - (ends_m - at_m))
    return words_m


def _bits(bytes_m: Array) -> Array:
    return (8 * bytes_m).view(np.uint64)
