"""What a shard's footer promises, compared with its plan and with what its columns hold."""

from __future__ import annotations

import pyarrow.parquet as pq

from batchscore.errors import ShardError
from batchscore.messages.terms import Terms
from batchscore.messages.wording import counted
from batchscore.units.unit import Piece


def check_footer(metadata: pq.FileMetaData, piece: Piece) -> None:
    """Raises ShardError where row groups have other rows than were planned."""
    count = metadata.num_row_groups
    sizes = tuple(metadata.row_group(i).num_rows for i in piece.row_groups if i < count)
    if sizes != piece.sizes:
        raise ShardError(
            piece.shard.path,
            f"its footer changed after planning: {counted(sum(sizes), 'row')} in "
            f"{counted(len(sizes), 'row group')}, but {piece.rows:,} in {len(piece.sizes)} were "
            "planned; run again",
        )


def check_values(metadata: pq.FileMetaData, piece: Piece, leaf: int | None, terms: Terms) -> None:
    """Raises ShardError where a flat column has more values than its row group has rows.

    Arrow leaves out what is beyond the row group's count.

    Args:
        metadata: The shard's footer.
        piece: What was planned.
        leaf: A leaf column of one value for each row, which was read: Arrow ends the process over
            an encrypted or damaged one. None without one.
        terms: The user's names, for messages.
    """
    if leaf is None:
        return
    for group, rows in zip(piece.row_groups, piece.sizes, strict=True):
        found = metadata.row_group(group).column(leaf).num_values
        if found > rows:
            path = metadata.schema.column(leaf).path
            promised = f"its footer counts {counted(rows, 'row')}"
            values = f"{counted(found, 'value')} in row group {group}, but {promised}"
            problem = f"column {path!r} has {values}; {terms.write_again}"
            raise ShardError(piece.shard.path, problem)
