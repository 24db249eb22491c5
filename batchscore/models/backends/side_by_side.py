"""Tiles of a block put through a model on several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from batchscore.models.backends.pace import Pace

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def run_side_by_side(
    run: Callable[[T], None], tiles: Sequence[T], threads: int, most: int, pace: Pace
) -> None:
    """Runs each tile, on the caller's thread where one is enough.

    Args:
        run: Puts a tile through the model.
        tiles: The tiles.
        threads: How many threads to use.
        most: The most threads that the model may have.
        pace: Receives the seconds of the other threads.
    """
    threads = min(threads, len(tiles))

    def run_all(some: Sequence[T]) -> None:
        for each in some:
            run(each)

    if threads <= 1:
        run_all(tiles)
        return
    start = time.perf_counter()
    # One hand-over a thread: each wakes a thread, which then waits for the interpreter.
    list(_pool(most).map(run_all, (tiles[first::threads] for first in range(threads))))
    pace.others_s += (threads - 1) * (time.perf_counter() - start)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _pools_lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="tile")
        return _pools[threads]
