"""64-bit hashes of values that do not depend on machine, batch, or Arrow's width of a type.

Suffixes: `_p` values that are padded to one length, `_w` words of such a value, `_m` words of all
of them, `_t` those of a few, whose places are repeated, `_s` values that are short, ascending.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import Array, to_arrow

_WORD = 8
_WORDS_AT_A_TIME = 32_768  # with their temporaries they fit into the second-level cache
_MOST_PADDED = 1_024  # words of a value; a longer one is hashed alone
_UNEVEN = 8  # words of padding that cost a value as much as sorting all values by length
_TILE = 1_024  # words that one call mixes with their places; short loops cost more
_PLACE = np.uint64(0xD6E8FEB86659FD93)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)


def mix(hash_n: Array, word_n: Array) -> Array:
    """Mixes a 64-bit word into each hash (n,), by SplitMix64's finalizer; order matters."""
    mixed_n: Array = hash_n ^ word_n
    _finalize(mixed_n, np.empty_like(mixed_n))
    return mixed_n


def _finalize(mixed_n: Array, spare_n: Array) -> None:
    """Finalizes words in place, in room of their size, since fresh memory costs as much."""
    np.add(mixed_n, _GAMMA, mixed_n)
    for shift, factor in _ROUNDS:
        np.right_shift(mixed_n, shift, spare_n)
        np.bitwise_xor(mixed_n, spare_n, mixed_n)
        np.multiply(mixed_n, factor, mixed_n)
    np.right_shift(mixed_n, _LAST_SHIFT, spare_n)
    np.bitwise_xor(mixed_n, spare_n, mixed_n)


def hash_bytes(values: pa.Array) -> Array:
    """Returns the hashes (n,), uint64, of a large_binary array without nulls.

    A value is cut into little-endian words w₁, w₂, … of eight bytes, the last one filled up with
    zeros. Its hash is mix(Σ mix(i · 0xD6E8FEB86659FD93, wᵢ), its length in bytes), modulo 2⁶⁴.
    Memory grows with the number of values, not with their length.
    """
    if not len(values):
        return np.empty(0, np.uint64)
    offsets = values.buffers()[1]
    assert offsets is not None
    offsets_n = np.frombuffer(memoryview(offsets), np.int64, len(values) + 1, _WORD * values.offset)
    lengths_n = offsets_n[1:] - offsets_n[:-1]
    counts_n = (lengths_n + (_WORD - 1)) >> 3
    sums_n = np.zeros(len(values), np.uint64)
    most, total = int(counts_n.max()), int(counts_n.sum())
    if most <= _MOST_PADDED and most * counts_n.size - total <= _UNEVEN * counts_n.size:
        _sum_in_order(_as_texts(values), counts_n, sums_n)
    else:
        _sum_by_length(_as_texts(values), counts_n, sums_n)
    return mix(sums_n, lengths_n.view(np.uint64))


def _as_texts(values: pa.Array) -> pa.Array:
    """Views binaries as texts, which Arrow pads; it looks at nothing but their bytes."""
    kind = pa.large_string()
    return pa.Array.from_buffers(kind, len(values), values.buffers(), offset=values.offset)


def _sum_in_order(texts: pa.Array, counts_n: Array, sums_n: Array) -> None:
    """Fills in the sum (n,) of the mixed words of each value, which has so many of them."""
    room = _room(counts_n)
    rows = _WORDS_AT_A_TIME // max(1, int(counts_n.max()))
    for start in range(0, counts_n.size, rows):
        part = slice(start, start + rows)
        sums_n[part] = _sum_padded(texts[part], counts_n[part], room)


def _sum_by_length(texts: pa.Array, counts_n: Array, sums_n: Array) -> None:
    """Does the same where lengths differ so much that padding would cost more than sorting."""
    limited_n = np.minimum(counts_n, _MOST_PADDED + 1).astype(np.uint16)
    order_n = np.argsort(limited_n, kind="stable")
    short = int(np.count_nonzero(limited_n <= _MOST_PADDED))
    counts_s = counts_n[order_n[:short]]
    room, start = _room(counts_s), 0
    while start < short:
        part = slice(start, start + _part_size(counts_s[start:]))
        rows_p = order_n[part]
        sums_n[rows_p] = _sum_padded(texts.take(to_arrow(rows_p)), counts_s[part], room)
        start = part.stop
    for row in order_n[short:].tolist():
        sums_n[row] = _sum_long(texts[row].as_buffer())


def _part_size(counts_s: Array) -> int:
    """Returns how many values, which ascend, fit into the room when padded to the last of them."""
    counts_s = counts_s[: _WORDS_AT_A_TIME // max(1, int(counts_s[0]))]
    padded_s = np.arange(1, counts_s.size + 1) * counts_s
    return int(np.searchsorted(padded_s, _WORDS_AT_A_TIME, "right"))


def _sum_long(value: pa.Buffer) -> int:
    """Returns the sum of the mixed words of one value."""
    total, step = 0, _WORDS_AT_A_TIME * _WORD
    for start in range(0, value.size, step):
        piece = value[start : start + step]
        words_w = np.zeros(-(-piece.size // _WORD), "<u8")
        words_w.view(np.uint8)[: piece.size] = piece
        places_w = np.arange(words_w.size) + (start // _WORD + 1)
        total += int(mix(places_w.view(np.uint64) * _PLACE, words_w).sum())
    return total % 2**64


def _room(counts_n: Array) -> Array:
    """Returns room for mixing the words of a part, and as much to spare."""
    most = max(1, int(counts_n.max(initial=0)))
    return np.empty((2, min(_WORDS_AT_A_TIME, counts_n.size * most)), np.uint64)


def _sum_padded(texts: pa.Array, counts_p: Array, room: Array) -> Array:
    """Returns the sum (p,) of the mixed words of each value, all padded to the longest."""
    width = max(1, int(counts_p.max()))
    data = pc.ascii_rpad(texts, width * _WORD, "\0").buffers()[2]
    assert data is not None
    words_m = np.frombuffer(memoryview(data), "<u8", counts_p.size * width)
    mixed_m, spare_m = room[:, : words_m.size]
    places_t, padding = _places(width)
    _xor_places(words_m, places_t, mixed_m)
    _finalize(mixed_m, spare_m)
    sums_p = mixed_m if width == 1 else np.einsum("ij->i", mixed_m.reshape(-1, width))
    return np.asarray(sums_p - padding[counts_p])


def _xor_places(words_m: Array, places_t: Array, mixed_m: Array) -> None:
    """Fills in words xor their places, which repeat."""
    whole = words_m.size // places_t.size * places_t.size
    if whole:
        shape = (-1, places_t.size)
        np.bitwise_xor(words_m[:whole].reshape(shape), places_t, mixed_m[:whole].reshape(shape))
    np.bitwise_xor(words_m[whole:], places_t[: words_m.size - whole], mixed_m[whole:])


@lru_cache(64)
def _places(width: int) -> tuple[Array, Array]:
    """Returns what words of values so wide are mixed with (t,), and what padding adds to a sum.

    That is, by the number of words before it: the sum of the mixed zeros from there on.
    """
    places_w = np.arange(1, width + 1).view(np.uint64) * _PLACE
    zeros_w = mix(places_w, np.zeros(width, np.uint64))
    padding = np.append(zeros_w[::-1].cumsum(dtype=np.uint64)[::-1], np.uint64(0))
    return np.tile(places_w, -(-_TILE // width)), padding
