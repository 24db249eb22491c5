"""How fast calls of one size are on a device, and how much of its memory they take."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from batchscore.columnar.ragged import Ragged
from batchscore.models.backends.facts import TILE_ROWS, Inputs, NumberInputs
from batchscore.models.backends.torch.buckets import Tile, cut_tiles
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.micro_batch import is_out_of_memory
from batchscore.models.backends.torch.staging import Results, Staging
from batchscore.models.backends.torch.tuning import Speed, search_rows

_FIRST_BYTES = 16 << 20
_SHARE_OF_FREE = 0.5


def find_rows(forward: Forward, inputs: Inputs, rows: int, first: int) -> int:
    """Returns the best rows of a call for batches of so many rows, by a search over them.

    Args:
        inputs: Arrays (rows, …) by name.
        first: Rows of a call to begin with.

    Raises:
        StepError: The network raised.
        DeviceError: Not even one row fits into half of the memory that is free.
    """
    staging = Staging(forward.device)
    limit = memory_limit(forward.device)

    def measure(size: int) -> Speed | None:
        speed = _try_calls(staging, replace(forward, rows=size), inputs, rows)
        staging.clear()
        return speed

    return search_rows(first, rows, measure, limit)


def first_rows(inputs: NumberInputs, rows: int) -> int:
    """Returns the rows of a call to begin a search with: a tile's, fewer where a row is wide."""
    arrays = [v.steps_n if isinstance(v, Ragged) else v for v in inputs.values()]
    row_bytes = max(1, sum(array.nbytes for array in arrays) // max(1, rows))
    fitting = max(1, _FIRST_BYTES // row_bytes)
    return min(TILE_ROWS, 1 << (fitting.bit_length() - 1))


def memory_limit(device: str) -> int:
    """Returns the bytes that may be in use: what is, and half of what is free."""
    if not device.startswith("cuda"):
        return 1 << 62
    free, _ = torch.cuda.mem_get_info(device)
    return int(torch.cuda.memory_allocated(device) + _SHARE_OF_FREE * free)


def release_memory(device: str) -> None:
    """Gives back what nothing of this process uses, so that workers on the device have it."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _try_calls(staging: Staging, forward: Forward, inputs: Inputs, rows: int) -> Speed | None:
    tiles = cut_tiles(inputs, rows, forward.rows, forward.varying)
    try:
        # The first call of a shape chooses kernels, and is not what the others take.
        _run(staging, forward, inputs, list({tile.length: tile for tile in tiles}.values()))
        start = time.perf_counter()
        _run(staging, forward, inputs, tiles)
        spent = time.perf_counter() - start
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
    return Speed(rows / spent, _peak_bytes(forward.device))


def _run(staging: Staging, forward: Forward, inputs: Inputs, tiles: list[Tile]) -> None:
    if forward.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(forward.device)
    results = Results(sum(tile.kept for tile in tiles))
    for tile in tiles:
        staging.run(forward, inputs, tile, results)
    if results.last is not None:
        results.last.synchronize()


def _peak_bytes(device: str) -> int:
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0
