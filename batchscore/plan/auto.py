"""What `auto` comes to in the job's runtime section, and why, in a few words."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from batchscore.errors import InvalidError
from batchscore.messages.wording import counted, of_count
from batchscore.models.backends.facts import TILE_ROWS
from batchscore.plan.footers import Footer
from batchscore.processes import count_cores
from batchscore.units.unit import Unit

MANY_ROWS = 4_000_000  # fewer are scored before other workers have started
SHARD_ROWS = 2_000  # that are scored in the time that a unit takes to open a shard
BLOCK_BYTES = 16 << 20
BLOCK_ROWS = (TILE_ROWS, 65_536)


def choose_workers(
    asked: int | str, units: Sequence[Unit], addresses: Sequence[str], gpus: int = 0
) -> tuple[int, str]:
    """Returns how many worker processes a run has; InvalidError if an address forbids it.

    Args:
        gpus: GPUs of this machine that the run may use; 0 where it is on the CPU.
    """
    in_memory = [address for address in addresses if address.startswith("memory:")]
    if in_memory and asked not in ("auto", 1):
        raise InvalidError(
            f"runtime.workers {asked}: {in_memory[0]} is the memory of one process, which others "
            "do not see; set runtime.workers: 1"
        )
    if in_memory:
        return 1, f"1, since {in_memory[0]} is this process's memory"
    if isinstance(asked, int):
        return asked, f"{asked}, as asked for"
    if gpus:
        count = max(1, min(gpus, len(units)))
        return count, f"{count}, for {counted(gpus, 'GPU')} and {counted(len(units), 'unit')}"
    rows = sum(unit.rows for unit in units)
    if rows + SHARD_ROWS * sum(len(unit.pieces) for unit in units) < MANY_ROWS:
        return 1, f"1, since {counted(rows, 'row')} {of_count(rows, 'takes', 'take')} little time"
    count = min(count_cores(), len(units))
    return count, f"{count}, for {counted(count_cores(), 'core')} and {counted(len(units), 'unit')}"


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
    fitting = int(BLOCK_BYTES / row_bytes) // TILE_ROWS * TILE_ROWS
    chosen = min(max(fitting, BLOCK_ROWS[0]), BLOCK_ROWS[1])
    return chosen, f"{chosen:,}, for about {row_bytes:,.0f} bytes a row"
