"""How many rows a batch has where the job leaves it to `auto`, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from batchscore.models.backends.facts import TILE_ROWS
from batchscore.plan.footers import Footer

BLOCK_BYTES = 16 << 20
BLOCK_ROWS = (TILE_ROWS, 65_536)


def choose_batch_rows(
    asked: int | str, footers: Sequence[Footer], schema: pa.Schema
) -> tuple[int, str]:
    """Returns the rows of a block: of about 16 MB, 65,536 at most, in whole tiles."""
    if isinstance(asked, int):
        return asked, f"{asked:,}, as asked for"
    rows = sum(footer.shard.rows for footer in footers)
    width = sum(footer.bytes for footer in footers) / rows if rows else 0.0
    share = len(schema) / max(1, len(footers[0].schema)) if footers else 0.0
    row_bytes = max(1.0, width * share)
    chosen = fitting_rows(row_bytes)
    return chosen, f"{chosen:,}, for about {row_bytes:,.0f} bytes a row"


def fitting_rows(row_bytes: float) -> int:
    """Returns the rows of a block, for rows of so many bytes each."""
    fitting = int(BLOCK_BYTES / max(1.0, row_bytes)) // TILE_ROWS * TILE_ROWS
    return min(max(fitting, BLOCK_ROWS[0]), BLOCK_ROWS[1])
