"""A stage is called for the same rows elsewhere, again, and from two threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.job import load_job
from batchscore.plan import independence, make_plan
from batchscore.plan.independence import ChangedRow, Dependence, Ways, find_dependence
from batchscore.plan.refusal import describe
from batchscore.stages.block import Block, reject_rows
from tests.factory import make_batch, make_block, write_job

PATIENCE_S = 60.0


def _step(block: Block) -> Block:
    return replace(block, values=make_batch(score=block.batch.column("x")))


def _find(step: Any = _step) -> Dependence | None:
    block = make_block(make_batch(x=np.arange(8) * 0.5))
    ways = Ways(alone=1, enter=lambda: None, afresh=lambda: step)
    return find_dependence(step, block, _step(block), 1e-5, ways)


@contextmanager
def _traced(tracer: Any) -> Iterator[None]:
    before = threading.gettrace()
    threading.settrace(tracer)
    try:
        yield
    finally:
        threading.settrace(before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_as_it_starts_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a tracer ends a thread at its start, the search ends all the same."""
    monkeypatch.setattr(independence, "_START_SECONDS", 0.2)
    started: list[str] = []

    def tracer(*_: Any) -> None:
        if threading.current_thread().name.startswith("alone"):
            started.append("alone")
            if len(started) == 1:
                raise RuntimeError("no tracing here")

    found: Future[Dependence | None] = Future()
    with _traced(tracer):
        threading.Thread(target=lambda: found.set_result(_find()), daemon=True).start()
        assert found.result(PATIENCE_S) is None
    assert started


def test_both_threads_are_in_the_stage_at_the_same_time() -> None:
    """Two calls from threads meet in the stage, and threads are switched often while they do."""
    main, meeting, intervals = threading.get_ident(), threading.Barrier(2), []
    before = sys.getswitchinterval()

    def step(block: Block) -> Block:
        if threading.get_ident() != main:
            meeting.wait(PATIENCE_S)
            intervals.append(sys.getswitchinterval())
        return _step(block)

    assert _find(step) is None
    assert max(intervals) < before == sys.getswitchinterval()


def test_a_defect_of_a_stage_passes_through() -> None:
    """An error that no stage should raise is raised from the thread that met it."""
    main = threading.get_ident()

    def step(block: Block) -> Block:
        if threading.get_ident() != main:
            raise pa.ArrowInvalid("a defect")
        return _step(block)

    with pytest.raises(pa.ArrowInvalid, match="a defect"):
        _find(step)


def test_a_process_that_dies_of_a_row_at_one_time_only_is_named_as_that() -> None:
    """The rows depend on nothing: native code crashes, so other advice is due."""
    calls: list[int] = []

    def step(block: Block) -> Block:
        calls.append(len(block))
        bad_b = to_arrow(np.equal(to_numpy(block.rows_b), 5))
        died = reject_rows(block, bad_b, "infer", "ModelProcessDied", "was killed by signal 11")
        return _step(died)

    found = _find(step)
    assert calls == [8]
    assert found is not None
    assert (found.cause, found.changed) == ("died", 1)
    (example,) = found.examples
    assert example == ChangedRow(5, "not rejected", "rejected (was killed by signal 11)")


def test_a_death_is_described_with_its_own_advice(tmp_path: Path) -> None:
    """The message says that the process ends, and how to find the line that ends it."""
    block = make_block(make_batch(x=np.arange(8) * 0.5))
    example = ChangedRow(5, "not rejected", "rejected (was killed by signal 11)")
    found = Dependence("died", "", None, (example,), 1, 8, 8)
    spec = make_plan(load_job(str(write_job(tmp_path)))).spec
    said = describe(spec, "architecture net.py:Net", "output", block, found)
    assert said.startswith(
        "architecture net.py:Net ends its process at a row that it scored at another time. row 5 "
    )
    assert "not rejected at one time, rejected (was killed by signal 11) at another" in said
    assert "PYTHONFAULTHANDLER=1" in said
    assert "dropout" not in said
