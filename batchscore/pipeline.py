"""The Beam graph of a run, on one screen.

units ─► read ─► preprocess ─► infer ─► postprocess ─► write ─► collect ─► finish
         └────────────── one fused stage: blocks of rows ─────┘  addresses of records only
"""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.stages.block import Block
from batchscore.system.beam_import import PCollection, RunInference, ToList, beam
from batchscore.transforms import (
    Finish,
    NetworkHandler,
    PostprocessBlocks,
    PreprocessBlocks,
    ReadUnits,
    TryWorker,
    WriteUnits,
)
from batchscore.units.unit import Unit
from batchscore.worker.inspection import Try
from batchscore.worker.spec import RunSpec


def build(pipeline: beam.Pipeline, spec: RunSpec, units: Sequence[Unit]) -> None:
    """Adds a run to a pipeline; without units the model is not even loaded."""
    addresses = _score(pipeline, spec, units) if units else pipeline | "Nothing" >> beam.Create([])
    (
        addresses
        | "Collect" >> ToList().with_output_types(list[str])
        | "Finish" >> beam.ParDo(Finish(spec))
    )


def build_scoring(pipeline: beam.Pipeline, spec: RunSpec, units: Sequence[Unit]) -> None:
    """Adds a run without its last step, which the launcher does in its turn."""
    _score(pipeline, spec, units)


def build_tries(pipeline: beam.Pipeline, spec: RunSpec, attempt: Try, count: int) -> None:
    """Adds a try of the job on so many workers to a pipeline."""
    (
        pipeline
        | "Tries" >> beam.Create([(number, attempt) for number in range(count)])
        | "Spread" >> beam.Reshuffle()
        | "Try" >> beam.ParDo(TryWorker(spec)).with_output_types(str)
    )


def _score(pipeline: beam.Pipeline, spec: RunSpec, units: Sequence[Unit]) -> PCollection[str]:
    addresses: PCollection[str] = (
        pipeline
        | "Units" >> beam.Create(units)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(ReadUnits(spec)).with_output_types(Block)
        | "Preprocess" >> beam.ParDo(PreprocessBlocks(spec)).with_output_types(Block)
        | "Infer" >> RunInference(NetworkHandler(spec)).with_output_types(Block)
        | "Postprocess" >> beam.ParDo(PostprocessBlocks(spec)).with_output_types(Block)
        | "Write" >> beam.ParDo(WriteUnits(spec)).with_output_types(str)
    )
    return addresses
