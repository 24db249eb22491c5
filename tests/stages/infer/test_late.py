"""Test that blocks whose results come late end as others do, errors and rejects in order."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import StepError
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.staging import Staging
from batchscore.stages.bisect import bisect
from batchscore.stages.block import Block, End, decode_block, encode_block, settled, timed
from batchscore.stages.infer.late import DeviceThread, infer_late
from batchscore.stages.infer.step import infer
from batchscore.stages.trial import Trial
from tests.factory import make_batch, make_block
from tests.waiting import wait_until

Tensors = dict[str, torch.Tensor]


def late(call: Any, rows: int = 8, limit: int = 100) -> partial[Block]:
    """The step that a worker with a device has, over the CPU."""
    begin = MicroBatches(Staging("cpu"), "m", lambda _: None).begin
    thread = DeviceThread(Forward(call, (), "cpu", 1, rows=rows, begin=begin))
    safe = partial(bisect, stage="infer", step=thread.infer, limit=limit, trial=Trial(passed=True))
    return partial(infer_late, thread=thread, recover=partial(timed, "infer", safe))


def block_of(x: Any) -> Block:
    values = make_batch(x=to_arrow(np.asarray(x, np.float32)))
    return make_block(make_batch(id=np.arange(len(x))), values=values)


def poisoned(tensors: Tensors) -> torch.Tensor:
    """Fails where a 13 is among its rows, and makes no number of 7."""
    x = tensors["x"]
    if (x == 13).any():
        raise ValueError("thirteen")
    return torch.where(x == 7, torch.nan, x + 1)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([1.0, 2.0, 7.0, 13.0]), min_size=1, max_size=40))
def test_late_results_are_those_of_the_step(x: list[float]) -> None:
    """Scores, rejects and rows are what bisecting in tiles on the CPU gives, bit for bit."""
    tiles = partial(infer, model=Forward(poisoned, (), "cpu", 1))
    expected = bisect(block_of(x), "infer", tiles, 100, Trial(passed=True))
    found = settled(late(poisoned)(block_of(x)))
    assert found.rows_b.equals(expected.rows_b)
    assert (found.values is None) == (expected.values is None) or not len(found)
    if found.values is not None and expected.values is not None:
        assert found.values.equals(expected.values)
    assert _rejects(found) == _rejects(expected)


def _rejects(block: Block) -> list[tuple[Any, ...]]:
    return sorted(
        (row, r.stage, r.error, r.message) for r in block.rejects for row in r.rows_r.to_pylist()
    )


def test_the_caller_goes_on_while_the_device_works() -> None:
    """A block comes back before the network was even called; its values come when waited for."""
    gate = threading.Event()

    def call(tensors: Tensors) -> torch.Tensor:
        assert gate.wait(10)
        return tensors["x"]

    pending = late(call)(block_of([1, 2, 3]))
    assert pending.pending is not None
    assert pending.values is None
    assert len(pending) == 3
    gate.set()
    done = settled(pending)
    assert done.pending is None
    assert done.values is not None
    assert done.values.column("score").to_pylist() == [1, 2, 3]
    assert {"infer", "wait_infer"} <= set(done.seconds)


@pytest.mark.parametrize("bad", [1, 13], ids=["scored", "recovered"])
@pytest.mark.slow
def test_the_seconds_that_a_block_waited_are_counted(bad: int) -> None:
    """Waiting to hand a block over counts with waiting for its results, also if it failed."""

    called: list[int] = []

    def call(tensors: Tensors) -> torch.Tensor:
        time.sleep(0.1)
        called.append(1)
        return poisoned(tensors)

    step = late(call)
    blocks = [step(block_of([1])) for _ in range(2)]
    start = time.perf_counter()
    third = step(block_of([bad]))
    waited = time.perf_counter() - start
    assert waited > 0.05
    for block in blocks:
        settled(block)
    wait_until(lambda: len(called) >= 3)
    time.sleep(0.3)  # nobody waits meanwhile
    assert waited * 0.9 < settled(third).seconds["wait_infer"] < waited + 0.05


def test_few_blocks_are_in_flight() -> None:
    """A third block waits until the first was given to the device, and a fourth for the second."""
    started, gate = threading.Semaphore(0), threading.Semaphore(0)

    def call(tensors: Tensors) -> torch.Tensor:
        started.release()
        assert gate.acquire(timeout=10)
        return tensors["x"]

    step = late(call)
    blocks = [step(block_of([i])) for i in range(2)]
    assert started.acquire(timeout=10)
    third = threading.Thread(target=lambda: blocks.append(step(block_of([2]))))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    gate.release(3)
    third.join(10)
    assert not third.is_alive()
    values = [settled(block).values for block in blocks]
    assert [v.column("score").to_pylist() for v in values if v is not None] == [[0], [1], [2]]


def test_later_steps_run_when_the_results_are_there() -> None:
    """A step on a pending block waits its turn, and its rejects and seconds count as ever."""

    def step(block: Block) -> Block:
        assert block.values is not None
        return replace(block, values=make_batch(double=[1.0] * len(block)))

    pending = timed("postprocess", step, late(poisoned)(block_of([1, 7, 2])))
    assert pending.pending is not None
    done = settled(pending)
    assert done.values is not None
    assert done.values.schema.names == ["double"]
    assert done.rows_b.to_pylist() == [0, 2]
    assert {"infer", "postprocess"} <= set(done.seconds)


def test_errors_come_with_their_own_block() -> None:
    """A block that fails whole raises when it is waited for, and neither its neighbours do."""
    step = late(poisoned, limit=0)
    blocks = [step(block_of(x)) for x in ([1.0], [13.0], [2.0])]
    assert settled(blocks[0]).rows_b.to_pylist() == [0]
    with pytest.raises(StepError, match=r"thirteen.*in the batch of 1 row "):
        settled(blocks[1])
    assert settled(blocks[2]).rows_b.to_pylist() == [0]


def test_ends_and_empty_blocks_pass() -> None:
    """A unit's end is handed on, and a block without rows never reaches the network."""
    step = late(lambda _: pytest.fail("called"))
    end = replace(block_of([]), values=None, end=End(0, 0, 0))
    assert step(end) is end
    assert len(settled(step(block_of([])))) == 0


def test_a_settled_block_is_itself() -> None:
    """Waiting for a block whose results are there changes nothing."""
    block = block_of([1.0])
    assert settled(block) is block


def test_a_block_that_was_waited_for_can_be_packed() -> None:
    """What is settled is a block like any other."""
    done = settled(late(poisoned)(block_of([1, 7, 2])))
    again = decode_block(encode_block(done))
    assert again.values == done.values
    assert isinstance(again.values, pa.RecordBatch)
