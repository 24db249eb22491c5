"""A loop over pyarrow and torch, as a good engineer writes it in an hour; both use all cores.

A model of another framework is called by that in place of torch.

`--encoding default` writes as pyarrow does by default, `--encoding batchscore` as batchscore does.
With `--processes` each core has a process that scores a shard at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import pandas  # noqa: F401  # what Arrow imports at its first to_numpy
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.stages.encoding import choose_encoding
from benchmarks.scorers.harness import SCORE, Task, main
from benchmarks.scorers.models import load_model

BATCH_ROWS = 16_384
Encode: TypeAlias = Callable[[pa.RecordBatch], dict[str, Any]]
"""Takes the first batch to the options that all files are written with."""


class Loop:
    """A network in memory, and the loop that scores a shard with it."""

    def __init__(self, task: Task, encode: Encode, threads: int) -> None:
        self.task, self.encode = task, encode
        self.options: dict[str, Any] | None = None
        self.predict = load_model(task, threads)

    def score(self, shard: Path) -> None:
        """Scores a shard into a file of the same name."""
        file = pq.ParquetFile(shard)
        batches = map(self.scored, file.iter_batches(self.task.batch_rows or BATCH_ROWS))
        first = next(batches)
        if self.options is None:
            self.options = self.encode(first)
        target = Path(self.task.target) / shard.name
        with pq.ParquetWriter(target, first.schema, **self.options) as writer:
            for batch in chain([first], batches):
                writer.write_batch(batch)

    def scored(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns a batch with its scores."""
        columns = [batch.column(name).to_numpy() for name in self.task.features]
        return batch.append_column(SCORE, pa.array(self.predict(columns)))


def alone(loop: Loop) -> None:
    """Scores one shard after the other in this process."""
    for shard in loop.task.shards:
        loop.score(shard)


_loop: Loop


def _begin(task: Task, encode: Encode) -> None:
    global _loop
    pa.set_cpu_count(1)
    _loop = Loop(task, encode, 1)


def _score(shard: Path) -> None:
    _loop.score(shard)


def shared_out(task: Task, encode: Encode) -> Callable[[], None]:
    """Starts a process for each core; returns what scores the shards in them."""
    pool = ProcessPoolExecutor(task.cores, get_context("spawn"), _begin, (task, encode))
    list(pool.map(abs, range(16 * task.cores)))

    def score() -> None:
        list(pool.map(_score, task.shards))
        pool.shutdown()

    return score


def _by_default(batch: pa.RecordBatch) -> dict[str, Any]:
    return {}


def _as_batchscore(batch: pa.RecordBatch) -> dict[str, Any]:
    return choose_encoding(pa.Table.from_batches([batch]))


def _prepare(task: Task) -> Callable[[], None]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoding", choices=["default", "batchscore"], required=True)
    parser.add_argument("--processes", action="store_true")
    given = parser.parse_args(sys.argv[2:])
    encode = _by_default if given.encoding == "default" else _as_batchscore
    if given.processes:
        return shared_out(task, encode)
    loop = Loop(task, encode, task.threads)
    return lambda: alone(loop)


if __name__ == "__main__":
    main("pyarrow", _prepare)
