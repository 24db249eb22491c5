"""Blocks inferred on a thread of their own, a few in flight, with results that come late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from batchscore.errors import StepError
from batchscore.models.backends.calling import Calls
from batchscore.stages.block import Block, Step, stopwatch
from batchscore.stages.infer.step import Sources, begin

_IN_FLIGHT = 2

_Started = tuple[Callable[[], Block], float]


class DeviceThread:
    """The one thread of a worker that calls a model on a device.

    Args:
        model: Called by this thread alone.
        sources: Names columns in the reason of a rejected row.
    """

    def __init__(self, model: Calls, sources: Sources | None = None) -> None:
        self._start = partial(_start, model=model, sources=sources or {})
        self.take_extra_seconds = model.take_extra_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._started: deque[Future[_Started]] = deque()

    def begin(self, block: Block) -> Future[_Started]:
        """Hands a block over; waits while two are before it."""
        if len(self._started) == _IN_FLIGHT:
            wait([self._started.popleft()])
        future = self._pool.submit(self._start, block)
        self._started.append(future)
        return future

    def infer(self, block: Block) -> Block:
        """Infers a block behind those that were handed over, and waits for it."""
        finish, _ = self._pool.submit(self._start, block).result()
        return finish()


def _start(block: Block, model: Calls, sources: Sources) -> _Started:
    start = time.perf_counter()
    finish = begin(block, model, sources)
    return finish, time.perf_counter() - start


def infer_late(block: Block, thread: DeviceThread, recover: Step) -> Block:
    """Hands a block to a device's thread, and returns it with its results still pending.

    The seconds of `infer` are those of the device's thread, or of the model's process; those of
    `wait_infer` are what others waited for it.

    Args:
        recover: Infers a block on which the network failed, when its results are waited for.
    """
    if block.end is not None:
        return block
    waited: dict[str, float] = {}
    with stopwatch(waited, "wait_infer"):
        future = thread.begin(block)
    given = _with_seconds(block, waited)
    pending = partial(_result, given, future, recover, thread.take_extra_seconds)
    return replace(given, values=None, pending=pending)


def _result(
    block: Block, future: Future[_Started], recover: Step, take_extra_seconds: Callable[[], float]
) -> Block:
    seconds: dict[str, float] = {}
    try:
        with stopwatch(seconds, "wait_infer"):
            finish, seconds["infer"] = future.result()
            done = finish()
        seconds["infer"] += take_extra_seconds()
    except StepError:
        return recover(_with_seconds(block, seconds))
    return _with_seconds(replace(done, seconds=block.seconds), seconds)


def _with_seconds(block: Block, more: Mapping[str, float]) -> Block:
    added = {stage: block.seconds.get(stage, 0.0) + spent for stage, spent in more.items()}
    return replace(block, seconds={**block.seconds, **added})
