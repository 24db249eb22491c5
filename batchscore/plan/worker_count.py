"""How a run's work is shared out: how many worker processes, the threads of each, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from batchscore.errors import InvalidError
from batchscore.messages.wording import counted
from batchscore.plan.model_process import may_have_process
from batchscore.plan.plan import Plan
from batchscore.system.resources import count_cores
from batchscore.units.unit import Unit

# All of these were measured with the small network of `benchmarks`. Machines differ; what counts is
# the ratio of what the cores do together to what one thread does alone.
_ROW_CPU = 2.0e-6
"""CPU-seconds of a row, by all threads and processes."""
_SHARD_CPU, _SHARD_ALONE = 1.6e-3, 1.5e-3
"""CPU-seconds of a shard, and those of the busiest thread; small shards mostly keep that busy."""
_START_SECONDS, _MORE_SECONDS = 1.0, 0.1
"""A run with several workers starts so many seconds later than with one, and later by each."""
_WORTH = 1.05
"""A worker more has to make scoring faster by so much, since it takes memory."""

WITHIN, APART = 1.3e-6, 1.0e-6
"""Seconds of a row in a worker's busiest thread: where each worker computes the model, and where
one process does for all. Most of them hold the interpreter."""


def share_out(plan: Plan, units: tuple[Unit, ...]) -> Plan:
    """Returns the plan with its workers chosen for the units that are to be scored.

    Raises:
        InvalidError: An address forbids the number that was asked for.
    """
    job = plan.loaded.job
    addresses = [job.output.path, job.model.path, *job.input.path]
    row_alone = APART if may_have_process(plan) else WITHIN
    workers, why = choose_workers(job.runtime.workers, units, addresses, len(plan.gpus), row_alone)
    return placed(plan, workers, why, max(1, count_cores() // workers))


def placed(plan: Plan, workers: int, why: str, threads: int = 1) -> Plan:
    """Returns the plan with a number of workers, why so many, and the threads of each."""
    source = replace(plan.spec.scoring.source, threads=threads)
    scoring = replace(plan.spec.scoring, source=source)
    execution = replace(plan.spec.execution, tile_threads=threads)
    spec = replace(plan.spec, scoring=scoring, execution=execution)
    return replace(plan, spec=spec, workers=workers, choices={"workers": why, **plan.choices})


def choose_workers(
    asked: int | str,
    units: Sequence[Unit],
    addresses: Sequence[str],
    gpus: int = 0,
    row_alone: float = WITHIN,
) -> tuple[int, str]:
    """Returns how many worker processes a run has, and why.

    Args:
        asked: The job's `runtime.workers`.
        units: What is to be scored.
        addresses: Where the run reads and writes.
        gpus: GPUs of this machine that the run may use; 0 where it is on the CPU.
        row_alone: Seconds of a row in a worker's busiest thread.

    Raises:
        InvalidError: An address forbids the number that was asked for.
    """
    in_memory = [address for address in addresses if address.startswith("memory:")]
    if in_memory and asked not in ("auto", 1):
        raise InvalidError(
            f"runtime.workers {asked}: {in_memory[0]} is the memory of one process, which others "
            "do not see; set runtime.workers: 1"
        )
    if in_memory:
        return 1, f"1, since {in_memory[0]} is this process's memory"
    if isinstance(asked, int):
        return asked, f"{asked}, as asked for"
    if gpus:
        count = max(1, min(gpus, len(units)))
        return count, f"{count}, for {counted(gpus, 'GPU')} and {counted(len(units), 'unit')}"
    return _fastest(units, row_alone)


def _fastest(units: Sequence[Unit], row_alone: float) -> tuple[int, str]:
    """Returns the fewest workers of those that score units about as soon as any number could."""
    cores, rows = count_cores(), sum(unit.rows for unit in units)
    numbers = range(1, max(1, min(cores, len(units))) + 1)
    seconds = {number: _seconds(units, number, cores, row_alone) for number in numbers}
    least = min(seconds.values())
    count = next(number for number in numbers if seconds[number] <= _WORTH * least)
    work = f"{counted(rows, 'row')} in {counted(_shards(units), 'shard')}"
    if count > 1:
        return count, f"{count}, for {counted(cores, 'core')} and {work}"
    return 1, f"1, since more would not score {work} sooner"


def _seconds(units: Sequence[Unit], workers: int, cores: int, row_alone: float) -> float:
    """Returns about how long workers take for units, and how much later they start than one."""
    rows, shards = sum(unit.rows for unit in units), _shards(units)
    # Units are dealt out beforehand; who has the most of them ends last.
    share = math.ceil(len(units) / workers) / max(1, len(units))
    alone = (rows * row_alone + shards * _SHARD_ALONE) * share
    together = (rows * _ROW_CPU + shards * _SHARD_CPU) / cores
    later = _START_SECONDS + _MORE_SECONDS * workers if workers > 1 else 0.0
    return max(alone, together) + later


def _shards(units: Sequence[Unit]) -> int:
    return sum(len(unit.pieces) for unit in units)
