"""How many threads quick and slow tiles are put through the network on."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from batchscore.models.backends.facts import TILE_ROWS
from batchscore.models.backends.pace import Pace
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.tiles import run_tiles


@pytest.mark.parametrize(
    ("tile_s", "threads"), [(0.0003, 1), (0.0009, 1), (0.0011, 2), (0.0016, 3), (0.5, 8)]
)
def test_a_thread_more_for_each_half_millisecond(tile_s: float, threads: int) -> None:
    """Tiles under a millisecond stay on the caller's thread, slow ones take all that there are."""
    assert Pace(0.0005).threads(tile_s, 8) == threads


def test_without_a_worth_all_threads_are_used() -> None:
    """Who does not ask for a pace gets the threads that were asked for."""
    assert Pace().threads(0.0, 8) == 8


def test_the_quickest_tile_counts() -> None:
    """The first tile warms up, and any may have waited: neither makes quick tiles slow."""
    pace = Pace(0.0005)
    assert [pace.threads(tile_s, 4) for tile_s in (0.1, 0.0004, 0.1)] == [4, 1, 1]


@pytest.mark.parametrize(("seconds", "threads"), [(0.0, 1), (0.01, 4)])
def test_only_slow_tiles_leave_the_callers_thread(seconds: float, threads: int) -> None:
    """A network of microseconds stays on one thread, one of ten milliseconds takes all four."""
    seen = set()

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.add(threading.get_ident())
        if seconds:
            time.sleep(seconds)
        return tensors["x"]

    forward = Forward(call, (), "cpu", 4, pace=Pace(0.002))
    x = np.arange(9 * TILE_ROWS, dtype=np.float32)
    run_tiles({"x": x}, len(x), forward)
    seen.clear()
    found = run_tiles({"x": x}, len(x), forward)
    assert np.array_equal(found["score"], x)
    assert len(seen - {threading.get_ident()}) == (threads if threads > 1 else 0)
    assert (forward.pace.take_others_s() > 0) == (threads > 1)
    assert forward.pace.take_others_s() == 0


def test_threads_without_a_tile_do_not_count() -> None:
    """Of three tiles two are left behind the first: two threads work at the same time."""

    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        time.sleep(0.05)
        return tensors["x"]

    forward = Forward(call, (), "cpu", 8)
    x = np.arange(3 * TILE_ROWS, dtype=np.float32)
    began = time.perf_counter()
    run_tiles({"x": x}, len(x), forward)
    assert 0.05 <= forward.pace.take_others_s() <= time.perf_counter() - began
