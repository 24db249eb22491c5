"""How long scoring will take, by some blocks that all threads score at once, as in a run.

A unit takes some seconds once, such as those of opening its files. To know how many, one block is
scored, then several.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce

from batchscore.errors import BatchscoreError
from batchscore.models.backends.protocol import Predictor
from batchscore.plan.plan import Plan
from batchscore.plan.rehearsal import Rehearsal, in_memory
from batchscore.plan.work import Work
from batchscore.runs.ledger import encode_record
from batchscore.stages.block import Block, End
from batchscore.stages.read import read_unit_ahead
from batchscore.stages.write import Attempt, UnitWriter
from batchscore.system.resources import count_cores
from batchscore.telemetry import STAGES
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit, make_unit
from batchscore.worker.attempts import Arrivals
from batchscore.worker.explaining import after_steps, infer_steps
from batchscore.worker.scoring import (
    BlockStep,
    load,
    open_unit,
    preprocess_step,
)
from batchscore.worker.spec import Spec

_BUDGET_SECONDS = 1.0
_SHARDS = 64
"""That the first block may take: of tiny shards on a store, a whole one would take minutes."""


@dataclass(frozen=True)
class Stretch:
    """The first rows of a unit, scored as a run scores them.

    Args:
        rows: Rows of the unit up to the last one that was read.
        seconds: From the first read until all files were whole.
        cpu_s: CPU-seconds of all threads, those of a model's process included.
    """

    rows: int
    seconds: float
    cpu_s: float


def estimate_seconds(plan: Plan, work: Work, rehearsal: Rehearsal | None) -> float | None:
    """Returns about how long a run will score; None if there is nothing to score."""
    if rehearsal is None or not work.units:
        return None
    try:
        with in_memory(plan.spec, work.unit_rows, fresh=not work.reused) as spec:
            first, longer = _measure(spec, work.units[0])
    except BatchscoreError:
        # The first batch is judged; a run may pass what failed behind it, such as a bad shard.
        # Next to the stages' seconds are moments, and waits.
        busy = sum(rehearsal.seconds.get(stage.name, 0.0) for stage in STAGES)
        first = longer = Stretch(rehearsal.rows, busy, 0.0)
    return rehearsal.cold_seconds + expected_seconds(first, longer, work.units, plan.workers)


def expected_seconds(first: Stretch, longer: Stretch, units: Sequence[Unit], workers: int) -> float:
    """Returns about how long workers take for units.

    Args:
        first: One block, alone.
        longer: Several blocks; the same as `first` where there are not several.
        units: What is to be scored.
        workers: Processes that share the units and the cores.
    """
    rest = max(0, sum(unit.rows for unit in units) - first.rows)
    # Units are dealt out beforehand; who has the most of them ends last.
    share = math.ceil(len(units) / workers) / len(units)
    row_s = _per_row(longer.seconds, first.seconds, longer, first)
    row_cpu_s = _per_row(longer.cpu_s, first.cpu_s, longer, first)
    return first.seconds + rest * max(row_s * share, row_cpu_s / count_cores())


def _per_row(longer_s: float, first_s: float, longer: Stretch, first: Stretch) -> float:
    """Returns what each further row took; on average, if a busy machine blurs the difference."""
    if longer.rows > first.rows and longer_s > first_s:
        return (longer_s - first_s) / (longer.rows - first.rows)
    return longer_s / longer.rows


def _measure(spec: Spec, unit: Unit) -> tuple[Stretch, Stretch]:
    predictor = load(spec)
    first = _score(spec, _beginning(unit, _SHARDS), predictor, 0.0)
    if first.seconds > _BUDGET_SECONDS or first.rows >= unit.rows:
        return first, first
    # A block is not cut short once it is read, so it gets the shards that the time allows.
    shards = _SHARDS + math.ceil(_SHARDS * _BUDGET_SECONDS / first.seconds)
    return first, _score(spec, _beginning(unit, shards), predictor, _BUDGET_SECONDS)


def _beginning(unit: Unit, shards: int) -> Unit:
    return make_unit(unit.pieces[:shards]) if len(unit.pieces) > shards else unit


def _score(spec: Spec, unit: Unit, predictor: Predictor, budget_s: float) -> Stretch:
    """Scores a unit's blocks, one at least, until some seconds are over, and times that."""
    steps = preprocess_step(spec), infer_steps(spec, predictor, late=True), after_steps(spec)
    output = open_unit(spec, Attempt(unit, "check", "check", "check", "ledger"))
    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        record, rows = _write(output.writer, _read(spec, unit, start + budget_s), steps, unit)
        encode_record(record, output.profile)
    except BaseException:
        output.writer.abort()
        raise
    elsewhere = record.seconds.get("tiles", 0.0) if spec.execution.model_process else 0.0
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    return Stretch(rows, seconds, cpu_s + elsewhere)


def _read(spec: Spec, unit: Unit, until: float) -> Iterator[Block]:
    """Yields a unit's blocks until a moment of the performance counter is over."""
    source, bad = spec.scoring.source, spec.scoring.max_bad_shards
    with closing(read_unit_ahead(unit, source, bad)) as blocks:
        for block in blocks:
            yield block
            if time.perf_counter() >= until:
                return


def _write(
    writer: UnitWriter, blocks: Iterable[Block], steps: Sequence[BlockStep], unit: Unit
) -> tuple[UnitRecord, int]:
    """Returns the record of a unit's first blocks, and how many rows they reach into it."""
    arrivals, kept, count, rows = Arrivals(), 0, 0, unit.rows
    for block in blocks:
        if block.end is not None:
            rows = unit.rows
            break
        kept, count, rows = kept + len(block), count + 1, block.rows_b[-1].as_py() + 1
        for arrived in arrivals.after(reduce(lambda given, step: step(given), steps, block)):
            writer.add(arrived)
    for arrived in arrivals.rest():
        writer.add(arrived)
    # The other rows of the unit count as filtered, so that all are accounted for.
    return writer.finish(End(unit.rows, unit.rows - kept, count)), rows
