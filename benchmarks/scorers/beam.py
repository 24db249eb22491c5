"""Beam as its documentation scores: rows as dicts, one by one, through `RunInference`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.scorers.harness import SCORE, Task, main
from benchmarks.scorers.network import Mlp

BATCH_ROWS = 4_096


def prepare(task: Task) -> Callable[[], None]:
    """Returns what reads, scores and writes on the direct runner."""
    torch.set_num_threads(task.threads)
    handler = PytorchModelHandlerTensor(
        state_dict_path=str(Path(task.weights).with_suffix(".pt")),
        model_class=Mlp,
        model_params=task.network,
        max_batch_size=BATCH_ROWS,
    )
    schema = pq.read_schema(task.shards[0]).append(pa.field(SCORE, pa.float32()))

    def keyed(row: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
        return row, torch.tensor([row[name] for name in task.features])

    def scored(result: tuple[dict[str, Any], Any]) -> dict[str, Any]:
        row, prediction = result
        return {**row, SCORE: torch.sigmoid(prediction.inference).item()}

    def score() -> None:
        with beam.Pipeline("FnApiRunner", PipelineOptions([])) as pipeline:
            (
                pipeline
                | beam.io.ReadFromParquet(f"{task.source}/*.parquet")
                | beam.Map(keyed)
                | RunInference(KeyedModelHandler(handler))
                | beam.Map(scored)
                | beam.io.WriteToParquet(f"{task.target}/", schema, file_name_suffix=".parquet")
            )

    return score


if __name__ == "__main__":
    main("apache-beam", prepare)
