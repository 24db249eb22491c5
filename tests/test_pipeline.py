"""The shape of the Beam graph: one fused stage for rows, and none where there is nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from batchscore.job import load_job
from batchscore.pipeline import build
from batchscore.plan import Plan, make_plan, settle
from batchscore.stages.block import Block
from batchscore.transforms import BlockCoder, ReadUnits
from tests import factory

ROWS = {"Read", "Preprocess", "Infer", "Postprocess", "Write"}


def plan_of(folder: Path, changes: dict[str, Any] | None = None) -> Plan:
    """Plan the small job."""
    return make_plan(load_job(str(factory.write_job(folder, changes)), (), ()))


def stages_of(plan: Plan) -> list[set[str]]:
    """The steps of each stage that the runner makes of the graph, by their outermost names."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build(pipeline, factory.run_spec(plan), settle(plan).units)
    _, stages = FnApiRunner().create_stages(pipeline.to_runner_api())
    return [{t.unique_name.partition("/")[0] for t in stage.transforms} for stage in stages]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequence number of each block that a coder packs from now on."""
    seen: list[int] = []
    encode = BlockCoder.encode

    def counted(coder: BlockCoder, value: Block) -> bytes:
        seen.append(value.sequence)
        return encode(coder, value)

    monkeypatch.setattr(BlockCoder, "encode", counted)
    return seen


def test_rows_stay_in_one_stage(tmp_path: Path) -> None:
    """All steps that rows pass through are fused into one stage, and into no other."""
    with_rows = [names & ROWS for names in stages_of(plan_of(tmp_path)) if names & ROWS]
    assert with_rows == [ROWS]


def test_rows_see_no_coder(tmp_path: Path, encoded: list[int]) -> None:
    """A run of many batches packs no block into bytes."""
    job = factory.write_job(tmp_path, {"runtime": {"batch_rows": 10, "workers": 1}})
    assert factory.run_json("run", job)["rows"]["scored"] == 500
    assert encoded == []


def test_a_shuffle_would_pack_blocks(tmp_path: Path, encoded: list[int]) -> None:
    """Where a graph does cut the stage, blocks go through the coder, one by one."""
    plan = plan_of(tmp_path, {"runtime": {"batch_rows": 100}})
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create(settle(plan).units)
            | beam.ParDo(ReadUnits(factory.run_spec(plan))).with_output_types(Block)
            | beam.Reshuffle()
        )
    assert set(encoded) == set(range(6))


def test_nothing_to_score_makes_no_scoring_branch(tmp_path: Path) -> None:
    """A filter that leaves no row group leaves no step for rows."""
    plan = plan_of(tmp_path, {"input.filters": [["id", "<", 0]]})
    assert settle(plan).units == ()
    assert not set().union(*stages_of(plan)) & ROWS


def test_nothing_to_score_loads_no_model_in_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without units the engine publishes an empty result and never asks for the model."""
    loaded: list[Any] = []
    monkeypatch.setattr("batchscore.transforms.load", loaded.append)
    changes = {"input.filters": [["id", "<", 0]], "input.allow_empty": True}
    manifest = factory.run_json("run", factory.write_job(tmp_path, changes))
    assert (manifest["status"], manifest["exit_code"]) == ("empty", 0)
    assert manifest["rows"]["filtered"] == 500
    assert loaded == []
