"""Tiles of one fixed row count through the network, side by side on threads of the CPU."""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from batchscore.columnar.array_type import Array
from batchscore.models.backends.calling import cast_output
from batchscore.models.backends.facts import Inputs, NumberInputs
from batchscore.models.backends.side_by_side import run_side_by_side
from batchscore.models.backends.torch.buckets import Tile, cut_tiles, tile_array
from batchscore.models.backends.torch.outputs import (
    find_output,
    name_outputs,
    require_alike,
    row_tensor,
)

if TYPE_CHECKING:
    from batchscore.models.backends.torch.forward import Forward

# Left alone, MKL chooses its kernels by a matrix's address and shape, so that a row's bits change
# with its place in a tile. It reads this once, before its first call in the process.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Arrow's buffers are read-only, and torch says so once; what they hold is the stage's own copy.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


def run_tiles(inputs: Inputs, rows: int, forward: Forward) -> dict[str, Array]:
    """Runs all tiles of `rows` rows and returns each output as an array (rows, …).

    Raises:
        StepError: The network raised, or returned another shape, type or name than declared or than
            for other rows.
    """
    tiles = cut_tiles(inputs, rows, forward.rows, forward.varying)
    start = time.perf_counter()
    first = _run_tile(inputs, tiles[0], forward)
    threads = forward.pace.threads(time.perf_counter() - start, forward.threads)
    raw = {name: np.empty((rows, *a.shape[1:]), a.dtype) for name, a in first.items()}
    _place(first, raw, tiles[0])
    _run_on_threads(inputs, tiles[1:], forward, raw, threads)
    return {name: cast_output(a, find_output(name, forward.outputs)) for name, a in raw.items()}


def _run_on_threads(
    inputs: Inputs, tiles: list[Tile], forward: Forward, raw: dict[str, Array], threads: int
) -> None:
    def run(tile: Tile) -> None:
        _place(_run_tile(inputs, tile, forward), raw, tile)

    run_side_by_side(run, tiles, threads, forward.threads, forward.pace)


def _place(found: dict[str, Array], raw: dict[str, Array], tile: Tile) -> None:
    require_alike(raw, found)
    for name, array in found.items():
        raw[name][tile.places] = array[: tile.kept]


def _run_tile(inputs: NumberInputs, tile: Tile, forward: Forward) -> dict[str, Array]:
    _use_one_thread()
    tensors = {
        name: torch.from_numpy(tile_array(values, tile, forward.pad(name)))
        for name, values in inputs.items()
    }
    named = name_outputs(forward.run(tensors), forward.outputs)
    rows = {name: row_tensor(name, t, forward.outputs, tile.rows) for name, t in named.items()}
    return {name: (t if t.is_cpu else t.cpu()).numpy() for name, t in rows.items()}


def _use_one_thread() -> None:
    """Keeps operations to one thread, a setting that torch holds apart for each calling thread."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
