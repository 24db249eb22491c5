"""A few of the rows that a run is to score, read before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from batchscore.errors import FailedError
from batchscore.stages.block import Block
from batchscore.stages.read import Source, read_unit
from batchscore.units.unit import Unit, pack_units

# If shards are small, so many are opened for a sample. If the filter keeps few rows, so many parts
# of about a block are read for one, all over the input.
_SHARDS = 16
_PARTS = 16
# Rows that will do.
_ENOUGH = 64

_Item = TypeVar("_Item")


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
