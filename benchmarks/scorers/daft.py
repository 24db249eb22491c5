"""Daft: a batch method of a class with the network in it, on the native runner."""

from __future__ import annotations

from collections.abc import Callable

import daft  # type: ignore[import-not-found]
from daft import DataType, Series

from benchmarks.scorers.harness import SCORE, Task, main
from benchmarks.scorers.models import load_model


@daft.cls
class Scorer:
    """The network, loaded once a process."""

    def __init__(self, task: Task) -> None:
        self.predict = load_model(task, task.threads)

    @daft.method.batch(return_dtype=DataType.float32())  # type: ignore[untyped-decorator]
    def score(self, *columns: Series) -> Series:
        """Returns the scores of feature columns."""
        arrays = [column.to_arrow().to_numpy() for column in columns]
        return Series.from_numpy(self.predict(arrays))


def prepare(task: Task) -> Callable[[], None]:
    """Returns what reads, scores and writes."""
    scorer = Scorer(task)

    def score() -> None:
        table = daft.read_parquet(f"{task.source}/*.parquet")
        scores = scorer.score(*(table[name] for name in task.features))
        table.with_column(SCORE, scores).write_parquet(task.target)

    return score


if __name__ == "__main__":
    main("daft", prepare)
