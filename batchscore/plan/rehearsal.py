"""One batch through the whole way of a row, without Beam and without writing to the output."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from batchscore.columnar.arrays import python_rows
from batchscore.finish.judge import judge_sample
from batchscore.models.backends.protocol import Predictor
from batchscore.plan import Plan, Work
from batchscore.runs.checks import Check, check_golden
from batchscore.runs.ledger import encode_record
from batchscore.stages.block import Block, End
from batchscore.stages.read import read_unit
from batchscore.stages.write import Attempt
from batchscore.storage.store import Store
from batchscore.units.unit import make_unit
from batchscore.worker.explaining import after_steps, infer_steps
from batchscore.worker.golden import measure_golden
from batchscore.worker.scoring import (
    load,
    open_unit,
    preprocess_step,
)
from batchscore.worker.spec import Spec

# Enough for a batch, unless they are tiny; then a smaller batch tells as much.
_SHARDS = 64


@dataclass(frozen=True)
class Rehearsal:
    """What became of one batch.

    Args:
        rows: Rows that went in.
        scored: Rows that got scores.
        reject_reasons: Reasons of the other rows.
        seconds: Seconds by stage, warm.
        columns: Name and type of each output column.
        example: The first row's scores.
        golden: The check of the model's golden rows, where it has some.
        checks: Checks that the batch settles for all rows, such as a duplicate key.
        cold_seconds: Seconds more that the batch took the first time, as it does in a run.
    """

    rows: int
    scored: int
    reject_reasons: dict[str, int]
    seconds: dict[str, float]
    columns: tuple[tuple[str, str], ...]
    example: dict[str, Any]
    golden: tuple[Check, ...]
    checks: tuple[Check, ...] = ()
    cold_seconds: float = 0.0


def rehearse(plan: Plan, work: Work) -> Rehearsal | None:
    """Puts the first batch that the filter keeps through all stages, twice, and times the second.

    The batch is of the rows that a run would score; if there are none, of those scored before.
    Returns None where there is no row at all.

    Raises:
        FailedError: The batch cannot be read, or a stage fails for all of it, as in a run.
    """
    start = time.perf_counter()
    _rehearse_once(plan, work)
    again = time.perf_counter()
    found = _rehearse_once(plan, work)
    cold = (again - start) - (time.perf_counter() - again)
    return None if found is None else replace(found, cold_seconds=max(0.0, cold))


def _rehearse_once(plan: Plan, work: Work) -> Rehearsal | None:
    left = tuple(piece for unit in work.units for piece in unit.pieces)
    block = first_block(replace(plan, pieces=left))
    if block is None and work.reused:
        block = first_block(plan)
    if block is None:
        return None
    with in_memory(plan.spec, len(block), fresh=not work.reused) as spec:
        return _score(spec, block)


@contextmanager
def in_memory(spec: Spec, rows: int, fresh: bool) -> Iterator[Spec]:
    """Gives the spec of a trial that writes to this process's memory, which is freed behind.

    Args:
        spec: The plan's.
        rows: Rows that the trial scores; all of them may be rejected, since a check judges that.
        fresh: Whether no row was scored before.
    """
    memory = Store(f"memory://batchscore-check-{secrets.token_hex(4)}")
    execution = replace(spec.execution, max_rejects=rows, fresh=fresh)
    try:
        yield replace(spec, output=memory, execution=execution)
    finally:
        memory.remove("")


def first_block(plan: Plan) -> Block | None:
    """Returns the first batch that the filter keeps; None where there is no row to score."""
    return next(first_blocks(plan), None)


def first_blocks(plan: Plan) -> Iterator[Block]:
    """Yields the batches that the filter keeps, in order, without their ends."""
    for start in range(0, len(plan.pieces), _SHARDS):
        unit = make_unit(plan.pieces[start : start + _SHARDS])
        blocks = read_unit(unit, plan.spec.scoring.source, plan.spec.scoring.max_bad_shards)
        yield from (block for block in blocks if block.end is None)


def _score(spec: Spec, block: Block) -> Rehearsal:
    predictor = load(spec)
    unit = replace(block.unit, id="check")
    scored = replace(block, unit=unit)
    for step in (preprocess_step(spec), infer_steps(spec, predictor), after_steps(spec)):
        scored = step(scored)
    output = open_unit(spec, Attempt(unit, "check", "check", "check", "ledger"))
    output.writer.add(scored)
    # The other rows of its unit count as filtered, so that rows are found where they lie.
    record = output.writer.finish(End(unit.rows, unit.rows - len(block), 1))
    encode_record(record, output.profile)
    return Rehearsal(
        len(block),
        record.scored,
        record.reject_reasons,
        record.seconds,
        record.columns,
        _first_row(scored),
        _judge_golden(spec, predictor),
        tuple(judge_sample(spec, record)),
    )


def _judge_golden(spec: Spec, predictor: Predictor) -> tuple[Check, ...]:
    found = measure_golden(spec, predictor)
    if found is None:
        return ()
    return tuple(check_golden([found["gaps"]], spec.scoring.model.tolerance, found["rows"]))


def _first_row(block: Block) -> dict[str, Any]:
    if block.values is None or not len(block):
        return {}
    return python_rows(block.values.slice(0, 1))[0]
