"""Test that a job whose weights are cast says so, and that it alone is scored again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from batchscore.job import load_job
from batchscore.plan import make_plan, plan
from tests.factory import NET, STATE, published, run_cli, run_json, write_job, write_model

LINE = "2 of 2 tensors cast to the architecture's types: 2 from bfloat16 to float32"
FACT = "types of weights"
# As earlier versions called it, a network may take up the type of its weights.
ADAPTING = NET.replace("self.linear(x)", "self.linear(x.to(self.linear.weight.dtype)).float()")
STORED = {name: (tensor / 3).bfloat16() for name, tensor in STATE.items()}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job whose weights are stored as bfloat16."""
    path = write_job(tmp_path, {"postprocess": None})
    write_model(tmp_path / "model", ADAPTING, STORED)
    return path


def expected(table: Any) -> torch.Tensor:
    """Return what torch makes of published rows with float32 copies of the stored weights."""
    module = torch.nn.Linear(2, 1)
    module.load_state_dict({name.partition(".")[2]: each for name, each in STORED.items()})
    x = torch.stack([torch.tensor(table[name].to_pylist()) for name in ("a", "b")], 1).float()
    with torch.inference_mode():
        logits: torch.Tensor = module(x)
    return logits[:, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_scores_are_of_the_cast_weights(job: Path, workers: int) -> None:
    """A run scores in float32, and `check`, the manifest and `show` say what was cast."""
    assert LINE in run_cli("check", job).output
    done = run_json("run", job, "--set", f"runtime.workers={workers}")
    assert done["inference"]["weights"] == LINE
    assert f"weights   {LINE}" in run_cli("show", job).output
    table = published(job.parent / "out")
    assert torch.allclose(torch.tensor(table["logit"].to_pylist()), expected(table), atol=1e-6)


def test_what_an_earlier_version_published_is_scored_again_once(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows published without the fact are replaced and the run says why; then nothing is to do."""
    with monkeypatch.context() as earlier:
        earlier.setattr(plan, "weights_facts", lambda model: {})
        assert run_json("run", job)["status"] == "published"
    again = run_json("run", job)
    assert (again["status"], again["rows"]["reused"]) == ("published", 0)
    assert again["changed"] == [FACT]
    assert run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize(
    ("kind", "net"),
    [
        (torch.float32, NET),
        (torch.bfloat16, ADAPTING.replace("nn.Linear(2, 1)", "nn.Linear(2, 1).bfloat16()")),
    ],
    ids=["as usual", "of the network's own type"],
)
def test_no_other_model_is_scored_again(tmp_path: Path, kind: torch.dtype, net: str) -> None:
    """Where nothing is cast, what decides scores is what it was."""
    path = write_job(tmp_path)
    write_model(tmp_path / "model", net, {name: each.to(kind) for name, each in STATE.items()})
    assert FACT not in make_plan(load_job(str(path))).score_facts
    assert "cast" not in run_cli("check", path).output
