"""The newest value that a column may have, by the statistics in its shards' footers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow.parquet as pq

from batchscore.errors import ShardError
from batchscore.plan.chunks import has_nulls_alone, leaves_of
from batchscore.stages.read import Source, open_shard
from batchscore.storage.parquet import LeafReader
from batchscore.units.tallies import Tally, merge_tallies
from batchscore.units.unit import Piece

_THREADS = 16
_DAY = 86_400 * 10**9
_NANOSECONDS = {"milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}


def newest_bound(column: str, pieces: Sequence[Piece], source: Source) -> Tally | None:
    """Returns a tally of all rows of some row groups, whose newest value none of them exceeds.

    Rows count that are filtered or rejected later, so the newest scored value may be older. None
    where statistics do not tell, such as of INT96 timestamps and of hive keys.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="newest") as pool:
        found = list(pool.map(partial(_of_piece, column, source), pieces))
    known = [tally for tally in found if tally is not None]
    return merge_tallies(known) if len(known) == len(found) else None


def _of_piece(column: str, source: Source, piece: Piece) -> Tally | None:
    place = source.places.get(piece.shard.path, "")
    try:
        with open_shard(piece.shard.path, place=place) as file:
            return _of_groups(file, piece, column)
    except (ShardError, OSError, LookupError, ValueError):  # the run itself will say what is wrong
        return None


def _of_groups(file: LeafReader, piece: Piece, column: str) -> Tally | None:
    metadata, groups = file.metadata, [*piece.row_groups]
    (leaf,) = leaves_of(metadata, (column,))
    # Of an encrypted column this raises; to look at its statistics would end the process.
    list(file.iter_batches(0, groups, [leaf], use_threads=False))
    step = _nanoseconds(metadata.schema.column(leaf))
    chunks = [metadata.row_group(group).column(leaf) for group in groups]
    newest = [chunk.statistics for chunk in chunks if not has_nulls_alone(chunk)]
    known = [found.max_raw for found in newest if found is not None and found.has_min_max]
    if len(known) < len(newest):
        return None
    return Tally(piece.rows, newest=max((step * largest for largest in known), default=None))


def _nanoseconds(stored: pq.ColumnSchema) -> int:
    """Returns the nanoseconds of one step of a stored type; KeyError if it is of no instants."""
    facts = json.loads(stored.logical_type.to_json())
    return _DAY if facts["Type"] == "Date" else _NANOSECONDS[facts["timeUnit"]]
