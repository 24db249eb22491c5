"""A few of the rows that a run is to score, read before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import FailedError
from batchscore.stages.block import Block
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import Piece, Unit, make_unit, pack_units, split_piece

# If shards are small, so many are opened for a sample. If the filter keeps few rows, so many parts
# of about a block are read for one, all over the input.
_SHARDS = 16
_PARTS = 16
# Rows that will do.
_ENOUGH = 64
# So many other parts give a few rows each.
_FARTHER = 3

_Item = TypeVar("_Item")


def read_spread(
    units: Sequence[Unit], others: Sequence[Unit], source: Source, rows: int, least: int
) -> Block | None:
    """Returns up to so many rows that the filter keeps, of a few parts spread over the input.

    Most are of one part. A column that has one value in a whole part, as its date, has others so.

    Args:
        units: Whose rows they are.
        others: Units of which rows are added if there are not at least `least`.
    """
    found = _spread_blocks(units, source, rows)
    if found and sum(map(len, found)) < least:
        found += _spread_blocks(others, source, least)
    return _joined(found) if found else None


def read_sample(units: Iterable[Unit], source: Source, rows: int) -> Block | None:
    """Returns up to so many rows that the filter keeps, all of one part of the input.

    None where there is no such row. A shard that cannot be read is left to the run, which says so.
    """
    best: Block | None = None
    for part in islice(_parts(units, source.batch_rows), _PARTS):
        found = _first_rows(part, replace(source, batch_rows=rows))
        if found is not None and (best is None or len(found) > len(best)):
            best = found
        if best is not None and len(best) >= min(rows, _ENOUGH):
            break
    return best


def _spread_blocks(units: Sequence[Unit], source: Source, rows: int) -> list[Block]:
    best = read_sample(units, source, rows)
    if best is None:
        return []
    few = replace(source, batch_rows=max(1, rows // (_FARTHER + 1)))
    seen = _groups_of(best)
    farther = [make_unit((group,)) for group in _farther(units) if group not in seen]
    found = [block for part in farther if (block := _first_rows(part, few)) is not None]
    return [_head(best, rows - sum(map(len, found))), *found]


def _farther(units: Sequence[Unit]) -> Sequence[Piece]:
    """Returns row groups spread over the input; the last is among them, for it may be sorted."""
    chosen = _spaced([piece for unit in units for piece in unit.pieces if piece.rows], _FARTHER)
    groups = [_spaced(split_piece(piece, 1), -(-_FARTHER // len(chosen))) for piece in chosen]
    return [group for each in groups for group in each][:_FARTHER]


def _spaced(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """Returns that many items if there are as many, about equally far apart, from the last on."""
    count = min(most, len(items))
    return [items[-1 - place * len(items) // count] for place in range(count)]


def _groups_of(block: Block) -> set[Piece]:
    """Returns the row groups of its unit that a block's rows are of, and those before."""
    groups = [group for piece in block.unit.pieces for group in split_piece(piece, 1)]
    ends = np.cumsum([group.rows for group in groups])
    last = np.searchsorted(ends, block.rows_b[-1].as_py(), side="right")
    return {*groups[: int(last) + 1]}


def _head(block: Block, rows: int) -> Block:
    return replace(block, rows_b=block.rows_b[:rows], batch=block.batch[:rows])


def _joined(blocks: Sequence[Block]) -> Block:
    """Returns one block of blocks of several units, of a unit that has all of their pieces."""
    unit = make_unit(tuple(piece for block in blocks for piece in block.unit.pieces))
    starts = np.cumsum([0, *(block.unit.rows for block in blocks)]).tolist()
    rows = [
        to_arrow(to_numpy(block.rows_b) + start)
        for block, start in zip(blocks, starts, strict=False)
    ]
    return Block(unit, 0, pa.concat_arrays(rows), pa.concat_batches([b.batch for b in blocks]))


def _parts(units: Iterable[Unit], rows: int) -> Iterator[Unit]:
    """Yields parts of about so many rows, the first one first, the others spread over the input."""
    pieces = [piece for unit in units for piece in unit.pieces if piece.rows]
    places = spread(range(len(pieces)), _PARTS)
    for place in places:
        parts = pack_units(pieces[place : place + _SHARDS], rows)
        yield from spread(parts, -(-_PARTS // len(places)))


def spread(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """Returns at most so many items at equal distances, the first one among them."""
    return items[:: max(1, -(-len(items) // most))]


def _first_rows(part: Unit, source: Source) -> Block | None:
    try:
        block = next(read_unit(part, source), None)
    except FailedError:
        return None
    return None if block is None or block.end is not None else block
