"""Ray Data: an actor a core, each with the network on one thread, over Arrow batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import ray  # type: ignore[import-not-found]
import ray.data  # type: ignore[import-not-found]
import torch

from benchmarks.scorers.harness import SCORE, Task, main
from benchmarks.scorers.network import load_network, predict_columns

BATCH_ROWS = 65_536


class Scorer:
    """The network, loaded once an actor."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self.features = task.features
        self.network = load_network(task.weights, task.network)
        with _ready(task).open("a") as file:
            file.write(f"{time.time()}\n")

    def __call__(self, table: pa.Table) -> pa.Table:
        """Returns a table with its scores."""
        columns = [table[name].to_numpy() for name in self.features]
        return table.append_column(SCORE, pa.array(predict_columns(self.network, columns)))


def prepare(task: Task) -> Callable[[], float]:
    """Starts Ray; returns what reads, scores and writes, and tells when the actors were ready."""
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        num_cpus=task.cores,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def score() -> float:
        ray.data.read_parquet(task.source, override_num_blocks=4 * task.cores).map_batches(
            Scorer,
            fn_constructor_args=(task,),
            batch_size=task.batch_rows or BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=task.cores),
            num_cpus=0.5,  # with whole ones none would be left to read and write
        ).write_parquet(task.target)
        return min(map(float, _ready(task).read_text().split()))

    return score


def _ready(task: Task) -> Path:
    """Returns the file that actors note in when they are ready; nothing is read before."""
    return Path(task.target) / "ready"


if __name__ == "__main__":
    main("ray", prepare)
