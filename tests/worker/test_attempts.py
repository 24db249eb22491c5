"""Blocks to records: a unit ends during the next, late results come in order, errors are raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from batchscore.errors import StepError, StoppedError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.runs import layout
from batchscore.stages.block import Block, End
from batchscore.stages.write import UnitWriter
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit
from batchscore.worker import attempts
from batchscore.worker.attempts import Attempts
from batchscore.worker.spec import RunSpec
from tests import factory


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run's spec, whose slice is held."""
    job = factory.write_job(tmp_path)
    factory.write_shard(tmp_path / "in/0.parquet")
    factory.write_model(tmp_path / "model")
    monkeypatch.setattr(attempts, "holds", lambda *_: True)
    spec = factory.run_spec(make_plan(load_job(str(job))))
    spec.output.write_json(layout.plan_file(spec.identity.run), {})
    return spec


@pytest.fixture
def made(spec: RunSpec) -> Iterator[Attempts]:
    """Attempts that are closed whatever happens."""
    made = Attempts(spec)
    yield made
    made.close()


def _unit(name: str) -> Unit:
    return replace(factory.make_unit(4, f"{name}.parquet"), id=name)


def _block(unit: Unit, sequence: int) -> Block:
    batch = factory.make_rows(2).combine_chunks().to_batches()[0]
    values = factory.make_batch(score=[0.25, 0.5])
    return replace(factory.make_block(batch, values=values), unit=unit, sequence=sequence)


def _end(unit: Unit) -> Block:
    empty = factory.make_rows(0).schema.empty_table().to_batches(max_chunksize=1)
    batch = empty[0] if empty else factory.make_batch(a=[])
    return replace(factory.make_block(batch[:0]), unit=unit, sequence=2, end=End(4, 0, 2))


def _address(spec: RunSpec, unit: Unit) -> str:
    return layout.record(spec.slice, spec.identity.score, unit.id)


def test_a_unit_ends_while_the_next_one_is_scored(
    spec: RunSpec, made: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of the next unit are taken before the record of the last is whole."""
    first, second = _unit("a"), _unit("b")
    may_end = threading.Event()
    finish = UnitWriter.finish

    def finish_late(writer: UnitWriter, end: End) -> UnitRecord:
        assert may_end.wait(10)
        return finish(writer, end)

    monkeypatch.setattr(UnitWriter, "finish", finish_late)
    for block in (_block(first, 0), _block(first, 1), _end(first), _block(second, 0)):
        assert made.take(block) == []
    may_end.set()
    found = [*made.take(_block(second, 1)), *made.take(_end(second)), *made.complete()]
    assert found == [_address(spec, first), _address(spec, second)]
    assert all(spec.output.exists(address) for address in found)
    assert made.complete() == []


def test_results_are_waited_for_in_order_and_as_late_as_may_be(
    spec: RunSpec, made: Attempts
) -> None:
    """Two blocks may be on their way; a unit's end waits for all of them."""
    unit, settled = _unit("a"), list[int]()

    def late(sequence: int) -> Block:
        block = _block(unit, sequence)

        def result() -> Block:
            settled.append(sequence)
            return block

        return replace(block, values=None, pending=result)

    for sequence in range(2):
        made.take(late(sequence))
        assert not settled
    made.take(_end(unit))
    assert settled == [0, 1]
    assert made.complete() == [_address(spec, unit)]


def test_an_error_at_a_units_end_is_raised(
    spec: RunSpec, made: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that lost its slice enters no record, and its attempt is closed."""
    monkeypatch.setattr(attempts, "holds", lambda *_: False)
    unit = _unit("a")
    for block in (_block(unit, 0), _block(unit, 1), _end(unit)):
        made.take(block)
    with pytest.raises(StoppedError, match="does not hold its slice"):
        made.complete()
    assert not spec.output.exists(_address(spec, unit))


def test_rows_that_do_not_add_up_fail_the_next_unit_at_the_latest(made: Attempts) -> None:
    """What the end of one unit finds is not lost in the work on another."""
    first, second = _unit("a"), _unit("b")
    for block in (_block(first, 0), _end(first)):
        made.take(block)
    with pytest.raises(StepError, match="blocks were kept"):
        for block in (_block(second, 0), _block(second, 1), _end(second)):
            made.take(block)


def test_a_unit_started_again_counts_once(spec: RunSpec, made: Attempts) -> None:
    """What was written before the first block came again is removed."""
    unit = _unit("a")
    for sequence in (0, 0, 1):
        made.take(_block(unit, sequence))
    made.take(_end(unit))
    assert made.complete() == [_address(spec, unit)]
    staged = Path(spec.output.address) / layout.staging(spec.slice)
    assert len([each for each in staged.iterdir() if any(each.iterdir())]) == 1
