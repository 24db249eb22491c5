"""What every worker of one run is told: where to read, what to score with, where to write."""

from __future__ import annotations

from dataclasses import dataclass

from batchscore.job import AnyStep, Preprocess
from batchscore.models.folder import Model
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.stages.write import Target
from batchscore.storage import Store


@dataclass(frozen=True)
class RunSpec:
    """One run, as its workers need it; picklable, and small whatever the input's size.

    Args:
        run: names the run.
        slice: the job with its parameters.
        base: folder that user code is relative to.
        output: where it is written.
        source: how units are read.
        model: what scores.
        inputs: how model inputs are stacked, where the model has no features of its own.
        preprocess: a user's function before the model, or None.
        postprocess: steps after the model, in order.
        target: what is written of each block.
        device: cpu or cuda, resolved.
        tile_threads: tiles side by side in one worker.
        max_reject_ratio: of the rows that were not filtered.
        allow_empty: whether no rows to score is a result.
    """

    run: str
    slice: str
    base: str
    output: Store
    source: Source
    model: Model
    inputs: tuple[InputColumns, ...]
    preprocess: Preprocess | None
    postprocess: tuple[AnyStep, ...]
    target: Target
    device: str
    tile_threads: int
    max_reject_ratio: float
    allow_empty: bool
