"""A spec is complete when it is created: a plan's has no run, and a run's has a whole identity."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from batchscore import pipeline
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.worker.spec import RunSpec
from tests import factory


def test_a_run_is_identified_once_it_holds_its_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What workers get names run, lease and score, and survives pickling; a plan has none."""
    seen: list[RunSpec] = []
    build = pipeline.build

    def note(graph: Any, spec: RunSpec, units: Any) -> None:
        seen.append(spec)
        build(graph, spec, units)

    monkeypatch.setattr(pipeline, "build", note)
    job = factory.write_job(tmp_path)
    plan = make_plan(load_job(str(job)))
    manifest = factory.run_json("run", job)
    (spec,) = seen
    assert (spec.identity.run, spec.identity.score) == (manifest["run"], manifest["score"])
    assert spec.identity.lease == 1
    assert spec.identity.score == plan.score
    assert pickle.loads(pickle.dumps(spec)).identity == spec.identity
    assert "identity" not in {field.name for field in fields(plan.spec)}
