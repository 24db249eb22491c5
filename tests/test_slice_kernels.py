"""Test that all rows of a slice are scored with one choice of kernels, run after run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.job import load_job
from batchscore.models.backends.facts import Call, KernelTrial
from batchscore.models.backends.torch.backend import BACKEND
from batchscore.models.loadable import Model
from batchscore.plan import make_plan
from batchscore.plan.work import _alike_kernels
from batchscore.units.record import UnitRecord
from batchscore.worker.scoring import call_of
from tests import factory
from tests.factory import change_job, make_rows, published, run_json, write_shard

pytestmark = pytest.mark.slow

SLOW, QUICK = {"default": 1e-4, "onednn": 2e-4}, {"default": 2e-4, "onednn": 1e-4}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that asks for the fastest kernels, on a machine where oneDNN is known to be faster."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = factory.write_job(tmp_path, {"runtime.kernels": "fastest", "postprocess": []})
    state = factory.build_net().state_dict()
    factory.write_model(tmp_path / "model", net=factory.LAYERS, state=state)
    remember(path, QUICK)
    return path


def model_of(job: Path) -> tuple[Model, Call]:
    """A job's model, and how a run on the CPU calls it."""
    spec = make_plan(load_job(str(job))).spec
    return spec.scoring.model, replace(call_of(spec), device="cpu")


def remember(job: Path, seconds: Mapping[str, float]) -> None:
    """Writes down what calls of the job's model take on this machine."""
    BACKEND.remember_kernels(*model_of(job), KernelTrial(seconds, 1024))


def kernels(manifest: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The run's kernels, and those of each of its units."""
    units = [unit.get("kernels", "default") for unit in manifest["units"]]
    return manifest["inference"]["kernels"]["chosen"], units


def scored_with(job: Path, name: str) -> pa.Array:
    """The published ids' scores as the loaded model gives them with some kernels."""
    table = published(job.parent / "out")
    x = np.column_stack([table["a"].to_numpy(), table["b"].to_numpy().astype(np.float32)])
    model, call = model_of(job)
    calls = BACKEND.load(model, "cpu").called(replace(call, kernels=name))
    made = calls.predict({"x": x}, len(x))()
    return pa.array(made["logit"])


def test_added_shards_keep_the_choice(job: Path) -> None:
    """Late shards are scored as the others were, whatever is faster today."""
    first = run_json("run", job)
    assert kernels(first) == ("onednn", ["onednn"])
    remember(job, SLOW)
    assert run_json("run", job)["status"] == "unchanged"
    write_shard(job.parent / "in/2.parquet", make_rows(100, 500))
    checked = run_json("check", job)
    assert checked["choices"]["kernels"].startswith("onednn: rows of the slice were scored with")
    second = run_json("run", job)
    assert (second["status"], second["rows"]["reused"]) == ("published", 500)
    assert kernels(second) == ("onednn", ["onednn", "onednn"])
    assert second["score"] == first["score"]
    assert published(job.parent / "out")["logit"].combine_chunks() == scored_with(job, "onednn")
    assert "kernels   onednn: rows of the slice" in factory.run_cli("show", job).stdout


def test_rescoring_chooses_again(job: Path) -> None:
    """With --rescore no row is kept, so that the fastest kernels of today are taken."""
    run_json("run", job)
    remember(job, SLOW)
    found = run_json("run", job, "--rescore")
    assert kernels(found) == ("default", ["default"])
    remember(job, QUICK)
    assert run_json("run", job)["status"] == "unchanged"
    assert published(job.parent / "out")["logit"].combine_chunks() == scored_with(job, "default")


def test_resumed_units_keep_the_choice(job: Path) -> None:
    """Units that a run finished and did not publish decide for the run that resumes them."""
    change_job(job.parent, {"checks": {"score_range": {"logit": [100, 200]}}})
    held = run_json("run", job)
    assert (held["status"], kernels(held)[0]) == ("held", "onednn")
    remember(job, SLOW)
    change_job(job.parent, {"checks": None})
    write_shard(job.parent / "in/2.parquet", make_rows(100, 500))
    found = run_json("run", job)
    assert (found["status"], found["rows"]["reused"]) == ("published", 500)
    assert kernels(found) == ("onednn", ["onednn", "onednn"])


def test_a_choice_that_is_not_possible_ends_the_run(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch without oneDNN adds nothing to rows scored with it; the remedy works there."""
    run_json("run", job)
    before = factory.read_tree(job.parent / "out")
    write_shard(job.parent / "in/2.parquet", make_rows(100, 500))
    missing = "batchscore.models.backends.torch.predictor.missing_onednn"
    monkeypatch.setattr(missing, lambda: "torch 2.15 was built without oneDNN")
    found = run_json("run", job)
    assert found["exit_code"] == 2
    assert "torch 2.15 was built without oneDNN" in found["error"]
    assert found["error"].endswith("or score the whole slice again with --rescore")
    assert factory.read_tree(job.parent / "out") == before
    assert kernels(run_json("run", job, "--rescore"))[0] == "default"


def test_a_job_that_asks_for_nothing_keeps_its_score_hash(job: Path) -> None:
    """`default` is what a job without the key has, and no name of a unit changes by it."""
    given = make_plan(load_job(str(change_job(job.parent, {"runtime.kernels": "default"}))))
    without = make_plan(load_job(str(change_job(job.parent, {"runtime": None}))))
    assert given.score_facts == without.score_facts
    assert not any("kernels" in fact for fact in without.score_facts)


@given(
    kept=st.lists(st.sampled_from(["default", "onednn"]), max_size=3),
    finished=st.lists(st.sampled_from(["default", "onednn"]), max_size=5),
)
def test_units_of_two_choices_are_never_mixed(kept: list[str], finished: list[str]) -> None:
    """Of finished units those count that agree with what is published, else with the first."""
    empty = UnitRecord("u", "u-1", "r", (), 0, 0, 0, 0, {}, None, (), (), {})
    published_units = {f"p{n}": replace(empty, kernels=name) for n, name in enumerate(kept[:1] * 2)}
    heads = {f"h{n}": replace(empty, kernels=name) for n, name in enumerate(finished)}
    found = _alike_kernels(heads, published_units)
    wanted = (kept[:1] or finished[:1] or ["none"])[0]
    assert found == {unit: record for unit, record in heads.items() if record.kernels == wanted}
