"""One batch through the whole way of a row, without Beam and without writing to the output."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
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
from batchscore.system.resources import count_cores
from batchscore.telemetry import threads
from batchscore.units.unit import make_unit
from batchscore.worker.golden import measure_golden
from batchscore.worker.scoring import (
    infer_step,
    load,
    open_unit,
    postprocess_step,
    preprocess_step,
)
from batchscore.worker.spec import Spec

_ROUNDS = 2
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
    """

    rows: int
    scored: int
    reject_reasons: dict[str, int]
    seconds: dict[str, float]
    columns: tuple[tuple[str, str], ...]
    example: dict[str, Any]
    golden: tuple[Check, ...]
    checks: tuple[Check, ...] = ()


def rehearse(plan: Plan, work: Work) -> Rehearsal | None:
    """Puts the first batch that the filter keeps through all stages, twice, and times the second.

    The batch is of the rows that a run would score; if there are none, of those scored before.
    Returns None where there is no row at all.

    Raises:
        FailedError: The batch cannot be read, or a stage fails for all of it, as in a run.
    """
    return [_rehearse_once(plan, work) for _ in range(_ROUNDS)][-1]


def _rehearse_once(plan: Plan, work: Work) -> Rehearsal | None:
    left = tuple(piece for unit in work.units for piece in unit.pieces)
    block = first_block(replace(plan, pieces=left))
    if block is None and work.reused:
        block = first_block(plan)
    if block is None:
        return None
    memory = Store(f"memory://batchscore-check-{secrets.token_hex(4)}")
    try:
        # However many rows are rejected: their number is judged later.
        fresh = not work.reused
        execution = replace(plan.spec.execution, max_rejects=len(block), fresh=fresh)
        return _score(replace(plan.spec, output=memory, execution=execution), block)
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
    for step in (preprocess_step(spec), infer_step(spec, predictor), postprocess_step(spec)):
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


def estimate_seconds(plan: Plan, work: Work, rehearsal: Rehearsal | None) -> float | None:
    """Returns about how long scoring will take, by the batch that was rehearsed.

    Threads overlap, and so does a model that computes elsewhere: the busiest thread decides, unless
    all together have more to do than the cores can.

    Returns:
        Seconds; None if nothing was rehearsed or nothing is to be scored.
    """
    if rehearsal is None or not work.units:
        return None
    execution, spent = plan.spec.execution, rehearsal.seconds
    late = {"wait_infer": 0.0} if execution.model_process or execution.device != "cpu" else {}
    loads = [sum(spent.get(stage, 0.0) for stage in stages) for stages in threads(late)]
    busiest = max(max(loads) / plan.workers, _core_seconds(spent, loads, plan) / count_cores())
    return busiest / rehearsal.rows * work.unit_rows


def _core_seconds(spent: Mapping[str, float], loads: Sequence[float], plan: Plan) -> float:
    """Returns the CPU-seconds of a batch, by the seconds of its stages and of its threads."""
    execution, tiles = plan.spec.execution, spent.get("tiles", 0.0)
    if execution.device != "cpu":
        return sum(loads) - spent.get("infer", 0.0)
    # A model's process reports all that it computed, other threads only what they did in addition.
    return sum(loads) + tiles - (spent.get("infer", 0.0) if execution.model_process else 0.0)
