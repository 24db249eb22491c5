"""64-bit hashes of values that do not depend on machine, batch, or Arrow's width of a type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchscore.arrays import Array

_WORD = 8
_WORDS_AT_A_TIME = 16_384  # their temporaries stay in the second-level cache
_PLACE = np.uint64(0xD6E8FEB86659FD93)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


def mix(hash_n: Array, word_n: Array) -> Array:
    """Mixes a 64-bit word into each hash (n,), by SplitMix64's finalizer; order matters."""
    mixed_n = (hash_n ^ word_n) + np.uint64(0x9E3779B97F4A7C15)
    mixed_n = (mixed_n ^ (mixed_n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_n = (mixed_n ^ (mixed_n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes_n: Array = mixed_n ^ (mixed_n >> np.uint64(31))
    return hashes_n


def hash_bytes(values: pa.Array) -> Array:
    """Returns the hashes (n,), uint64, of a large_binary array without nulls.

    A value is cut into little-endian words w₁, w₂, … of eight bytes, the last one filled up with
    zeros. Its hash is mix(Σ mix(i · 0xD6E8FEB86659FD93, wᵢ), its length in bytes), modulo 2⁶⁴.
    Memory grows with the number of values, not with their length.
    """
    if not len(values):
        return np.empty(0, np.uint64)
    _, offsets, data = values.buffers()
    offsets_n = np.frombuffer(offsets, np.int64, len(values) + 1, _WORD * values.offset)
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
    sums_m = np.zeros(starts_m.size, np.uint64)
    words_m = (ends_m - starts_m + _WORD - 1) // _WORD
    until_m = words_m.cumsum()
    from_m = until_m - words_m
    total = int(until_m[-1]) if until_m.size else 0
    for first in range(0, total, _WORDS_AT_A_TIME):
        last = min(first + _WORDS_AT_A_TIME, total)
        low, high = np.searchsorted(until_m, (first + 1, last))
        rows = slice(low, high + 1)
        inside_r = np.minimum(until_m[rows], last) - np.maximum(from_m[rows], first)
        place_w = np.arange(first, last) - np.repeat(from_m[rows], inside_r)
        at_w = np.repeat(starts_m[rows], inside_r) + _WORD * place_w
        words_w = _read_words(data, at_w, np.repeat(ends_m[rows], inside_r) - at_w)
        mixed_w = mix((place_w + 1).view(np.uint64) * _PLACE, words_w)
        sums_m[rows] += np.add.reduceat(mixed_w, inside_r.cumsum() - inside_r)
    return sums_m


def _read_words(data: pa.Buffer, at_w: Array, left_w: Array) -> Array:
    """Returns the words (w,) at byte positions of which `left_w` > 0 bytes belong to the value."""
    words: Array = np.ndarray((data.size - _WORD + 1,), "<u8", data, strides=(1,))
    # A word that would reach beyond the buffer is read further ahead and shifted into place.
    ahead_w = np.maximum(at_w - (words.size - 1), 0)
    words_w: Array = words[at_w - ahead_w].astype(np.uint64, copy=False) >> _bits(ahead_w)
    words_w &= _ALL_BITS >> _bits(_WORD - np.minimum(left_w, _WORD))
    return words_w


def _bits(bytes_w: Array) -> Array:
    return (8 * bytes_w).view(np.uint64)
