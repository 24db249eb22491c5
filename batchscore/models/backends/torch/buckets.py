"""Which rows of a block the network sees at once, and how they are padded to one shape.

Rows of varying length are grouped by bucket. A row's bucket goes by its own length alone, and a
tile's shape by the bucket alone, so that a row's bits depend on nothing but its inputs.

Suffixes: `_t` rows of a tile, `_tl` these by padded length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged, Varying, take_steps
from batchscore.models.backends.facts import Inputs

# Buckets are this long, half as much more, twice as long, and so on: padding adds about a fifth.
SHORTEST = 8
# Steps of a tile for each of the rows that it would have without varying length. More leave
# a CPU's caches, and each block pads one tile a bucket; with fewer, long rows come one at a time.
STEPS_A_ROW = 8
# Torch's loops over single numbers take 32 of float32 at a time and 64 of float16, MKL's products
# take rows in groups, and what is left over has other bits. A single row has its place to itself.
FEWEST_ROWS = 64


@dataclass(frozen=True)
class Tile:
    """Rows of a block that the network sees at once.

    Args:
        places: The rows' places in the block: a slice, or int64 (t,).
        kept: Rows of the block in it.
        rows: Rows of its shape; those beyond `kept` repeat one of these.
        length: Steps of each row in inputs of varying length; 0 where there are none.
    """

    places: slice | Array
    kept: int
    rows: int
    length: int = 0


def bucket_lengths(max_length: int) -> Array:
    """Returns the lengths that rows are padded to, ascending; the last is `max_length`."""
    octaves = 2 ** np.arange(max(1, int(max_length).bit_length()), dtype=np.int64) * SHORTEST
    lengths = np.unique(np.concatenate([octaves, octaves[1:] * 3 // 2]))
    return np.append(lengths[lengths < max_length], max_length)


def bucket_rows(length: int, rows: int) -> int:
    """Returns the rows of a bucket's tiles, where tiles without varying length have `rows`.

    A power of two from 64, or a single row.
    """
    fitting = min(rows, STEPS_A_ROW * rows // length)
    return 1 << (fitting.bit_length() - 1) if fitting >= FEWEST_ROWS else 1


def cut_tiles(inputs: Inputs, count: int, rows: int, varying: Mapping[str, Varying]) -> list[Tile]:
    """Returns the tiles of a block of `count` rows; together they hold each row once.

    Args:
        inputs: Inputs by name; those of varying length are equally long in each row.
        count: Rows of the block.
        rows: Rows of a tile without varying length; in others the steps are limited instead.
        varying: The inputs of varying length, with one `max_length`.
    """
    if varying:
        name, declared = next(iter(varying.items()))
        values = inputs[name]
        assert isinstance(values, Ragged)
        return _cut_buckets(values.lengths_b, rows, bucket_lengths(declared.max_length))
    spans = [(start, min(start + rows, count)) for start in range(0, count, rows)]
    return [Tile(slice(start, stop), stop - start, rows) for start, stop in spans]


def _cut_buckets(lengths_b: Array, rows: int, lengths: Array) -> list[Tile]:
    buckets_b = np.searchsorted(lengths, lengths_b)
    order_b = np.argsort(buckets_b, kind="stable")
    stops = np.cumsum(np.bincount(buckets_b, minlength=len(lengths))).tolist()
    tiles = []
    for length, start, stop in zip(lengths.tolist(), [0, *stops[:-1]], stops, strict=True):
        size = bucket_rows(length, rows)
        for begin in range(start, stop, size):
            places = order_b[begin : min(begin + size, stop)]
            tiles.append(Tile(places, len(places), size, length))
    return tiles


def halve_tile(tile: Tile) -> list[Tile]:
    """Returns a tile's rows in one or two tiles of half its rows."""
    rows = (tile.rows + 1) // 2
    first = replace(tile, places=_part(tile.places, 0, rows), kept=min(tile.kept, rows), rows=rows)
    if tile.kept <= rows:
        return [first]
    rest = _part(tile.places, rows, tile.kept)
    return [first, replace(tile, places=rest, kept=tile.kept - rows, rows=rows)]


def _part(places: slice | Array, start: int, stop: int) -> slice | Array:
    if isinstance(places, slice):
        return slice(places.start + start, min(places.start + stop, places.stop))
    return places[start:stop]


def tile_shape(values: Array | Ragged, tile: Tile) -> tuple[int, ...]:
    """Returns the shape of one input in a tile: (rows, …), or (rows, length, …)."""
    if isinstance(values, Ragged):
        return (tile.rows, tile.length, *values.steps_n.shape[1:])
    return (tile.rows, *values.shape[1:])


def tile_array(values: Array | Ragged, tile: Tile, pad: float) -> Array:
    """Returns a copy of one input's rows in a tile's shape, as a network may write to it."""
    made = np.empty(tile_shape(values, tile), values.dtype)
    fill_tile(values, tile, pad, made)
    return made


def fill_tile(values: Array | Ragged, tile: Tile, pad: float, out: Array) -> None:
    """Writes one input's rows into an array of the tile's shape.

    Beyond a row's own steps is `pad`. Beyond the last row it is repeated: a network that takes no
    empty row, or no zeros, is given none that the block does not hold.
    """
    kept = out[: tile.kept]
    if isinstance(values, Ragged):
        starts_t = values.offsets[:-1][tile.places]
        lengths_t = values.offsets[1:][tile.places] - starts_t
        kept[...] = pad
        own_tl = np.arange(tile.length) < lengths_t[:, None]
        kept[own_tl] = take_steps(values.steps_n, starts_t, lengths_t)
    else:
        kept[...] = values[tile.places]
    out[tile.kept :] = kept[-1]
