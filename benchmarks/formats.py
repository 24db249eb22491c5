"""What preprocessing and inference cost next to the framework's own call, for each format.

    python -m benchmarks.formats [--only xgboost,onnx] [--rows 100000] [--rounds 5]

A table of 32 float32 columns is scored by a model of each format, on one thread: by the steps
`preprocess` and `infer` of a run, a block at a time, and by the framework's own call for the whole
table at once. Both take turns in one process. The ratio is of rows per CPU-second, ours to theirs.
`frame` is what people call, with a pandas DataFrame; `matrix` takes a matrix that was made before.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import to_arrow
from batchscore.job import load_job
from batchscore.plan import Plan, make_plan
from batchscore.stages.block import Block
from batchscore.units.unit import pack_units
from batchscore.worker.scoring import BlockStep, infer_step, load, preprocess_step
from benchmarks.format_models import FITS, Fitted, inputs_of, save
from benchmarks.scorers.work import FEATURES, make_table

GOAL = 0.9
STEPS = ("preprocess", "infer")


@dataclass(frozen=True)
class Measured:
    """CPU-seconds of one format, by round.

    Args:
        name: The format's model.
        steps: Ours, by step.
        frame: The framework's for a frame.
        matrix: The framework's for a matrix; empty if it has no such call.
    """

    name: str
    steps: tuple[dict[str, float], ...]
    frame: tuple[float, ...]
    matrix: tuple[float, ...]

    @property
    def ours(self) -> tuple[float, ...]:
        """Both steps together."""
        return tuple(sum(each.values()) for each in self.steps)


def measure(name: str, rows: int, rounds: int, home: Path) -> Measured:
    """Scores a table with a model of a format, alternating with the framework.

    Raises:
        AssertionError: The scores differ.
    """
    fitted = FITS[name]()
    table = make_table(rows, 0, 0)
    (home / "in").mkdir(parents=True)
    pq.write_table(table, home / "in" / "0.parquet")
    save(name, fitted, home / "model")
    plan = make_plan(load_job(str(_write_job(name, home)), (), ()))
    spec = plan.spec
    steps = (preprocess_step(spec), infer_step(spec, load(spec)))
    blocks, frame = _blocks(plan, table), table.select(FEATURES).to_pandas()
    matrix_bf = np.ascontiguousarray(frame.to_numpy(np.float32))
    theirs = _theirs(fitted, frame, matrix_bf)
    ours, others = list[dict[str, float]](), {kind: list[float]() for kind in theirs}
    _compare(_score(blocks, steps)[1], fitted.predict(frame))
    for _ in range(rounds):
        ours.append(_score(blocks, steps)[0])
        for kind, call in theirs.items():
            others[kind].append(_timed(call))
    return Measured(name, tuple(ours), tuple(others["frame"]), tuple(others.get("matrix", ())))


def _write_job(name: str, home: Path) -> Path:
    inputs = inputs_of(name)
    job = {
        "batchscore": 1,
        "name": name,
        "input": {"path": "in"},
        "model": {"path": "model", **({"inputs": inputs} if inputs else {})},
        "output": {"path": "out"},
        "runtime": {"model_process": "off", "device": "cpu"},
    }
    path = home / "job.json"
    path.write_text(json.dumps(job))
    return path


def _theirs(fitted: Fitted, frame: Any, matrix_bf: Any) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"frame": lambda: fitted.predict(frame)}
    if fitted.matrix is not None:
        call = fitted.matrix
        found["matrix"] = lambda: call(matrix_bf)
    return found


def _blocks(plan: Plan, table: pa.Table) -> list[Block]:
    """Returns the table in blocks of as many rows as the run's."""
    unit, size = pack_units(list(plan.pieces), 1 << 40)[0], plan.spec.scoring.source.batch_rows
    batches = table.combine_chunks().to_batches(max_chunksize=size)
    places = [to_arrow(np.arange(each.num_rows, dtype=np.int64)) for each in batches]
    return [Block(unit, n, places[n], batch) for n, batch in enumerate(batches)]


def _score(blocks: Sequence[Block], steps: Sequence[BlockStep]) -> tuple[dict[str, float], Any]:
    """Returns CPU-seconds by step, and the scores (b,)."""
    seconds, scores = dict.fromkeys(STEPS, 0.0), list[Any]()
    for each in blocks:
        block = replace(each)
        for name, step in zip(STEPS, steps, strict=True):
            start = time.process_time()
            block = step(block)
            seconds[name] += time.process_time() - start
        assert block.values is not None
        scores.append(block.values.column(0).to_numpy(zero_copy_only=False))
    return seconds, np.concatenate(scores)


def _timed(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _compare(ours_b: Any, theirs_b: Any) -> None:
    np.testing.assert_allclose(ours_b, theirs_b, rtol=1e-5, atol=1e-6)


def _row(found: Measured, rows: int) -> str:
    pre, infer = (median(each[name] for each in found.steps) for name in STEPS)
    frame, ours = median(found.frame), median(found.ours)
    ratio = f"{frame / ours:.2f}"
    matrix = f"{median(found.matrix) / ours:.2f}" if found.matrix else ""
    met = "yes" if frame / ours >= GOAL else "no"
    parts = [f"{each / rows * 1e6:.2f}" for each in (pre, infer, frame)]
    return " | ".join(("", found.name, *parts, ratio, met, matrix, "")).strip()


def main() -> None:
    """Prints a table of what each format costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*FITS])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{date.today()}; microseconds of CPU a row, by the median of {given.rounds} rounds\n")
    print("| model | preprocess | infer | its own, frame | ratio | >= 0.9 | to matrix |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix="formats-") as home:
            found = measure(name, given.rows, given.rounds, Path(home))
        print(_row(found, given.rows), flush=True)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
