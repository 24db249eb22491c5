"""Test that a job whose weights are cast says so, and that it alone is scored again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscore.job import load_job
from batchscore.models.backends.torch import load
from batchscore.models.backends.torch.building import Blueprint, Filled
from batchscore.models.backends.torch.weights import State
from batchscore.models.loadable import Model
from batchscore.plan import fingerprint, make_plan, settle
from tests.factory import (
    NET,
    STATE,
    make_rows,
    published,
    run_cli,
    run_json,
    write_job,
    write_model,
    write_shard,
)

pytestmark = pytest.mark.slow

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


BF16 = ADAPTING.replace("nn.Linear(2, 1)", "nn.Linear(2, 1).bfloat16()")
ODD = {name: tensor / 3 for name, tensor in STATE.items()}
CAST = {"stored as bfloat16": (ADAPTING, STORED), "computed in bfloat16": (BF16, ODD)}
USED_AS_IS = {
    "as usual": (NET, ODD),
    "of the network's own type": (BF16, STORED),
    "cast by the network": (
        NET.replace(
            "self.linear(x)",
            "nn.functional.linear(x, self.linear.weight.float(), self.linear.bias.float())",
        ),
        STORED,
    ),
}


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Runs load weights and spell facts as commit 020ad64 did, until it is undone."""

    def fill(blueprint: Blueprint, read: Callable[[], State], model: Model) -> Any:
        state = read()
        return Filled(blueprint.fill_uncast(state)), next(iter(state.values())).dtype

    with monkeypatch.context() as then:
        then.setattr(load, "fill", fill)
        then.setattr(fingerprint, "FACTS_FORMAT", "format 2")
        yield then


@pytest.mark.parametrize(("net", "state"), CAST.values(), ids=CAST.keys())
def test_what_an_earlier_version_published_is_scored_again_once(
    tmp_path: Path, earlier: pytest.MonkeyPatch, net: str, state: dict[str, torch.Tensor]
) -> None:
    """Rows of other scores are replaced and the run says why; then nothing is to do."""
    job = write_job(tmp_path, {"postprocess": None})
    write_model(tmp_path / "model", net, state)
    done = run_json("run", job)
    assert done["status"] == "published", done
    before = published(tmp_path / "out")["logit"]
    earlier.undo()
    assert f"{FACT}: cast to the architecture's" in run_cli("check", job).output
    again = run_json("run", job)
    assert (again["status"], again["rows"]["reused"]) == ("published", 0)
    assert again["changed"] == [FACT]
    assert published(tmp_path / "out")["logit"] != before
    assert run_json("run", job)["status"] == "unchanged"


@pytest.mark.parametrize(("net", "state"), USED_AS_IS.values(), ids=USED_AS_IS.keys())
def test_no_other_model_is_scored_again(
    tmp_path: Path, earlier: pytest.MonkeyPatch, net: str, state: dict[str, torch.Tensor]
) -> None:
    """What an earlier version published with the scores of today stays, and is extended."""
    job = write_job(tmp_path, {"postprocess": None})
    write_model(tmp_path / "model", net, state)
    assert run_json("run", job)["status"] == "published"
    earlier.undo()
    assert run_json("run", job)["status"] == "unchanged"
    write_shard(tmp_path / "in/more.parquet", make_rows(20, 1000))
    more = run_json("run", job)
    assert (more["status"], more["changed"]) == ("published", [])
    assert more["rows"]["reused"] == more["rows"]["input"] - 20


@pytest.mark.parametrize("name", ["stored as bfloat16", "cast by the network"])
def test_an_earlier_version_that_published_nothing_is_resumed(
    tmp_path: Path, earlier: pytest.MonkeyPatch, name: str
) -> None:
    """Units that its held run finished are published, unless their weights are cast today."""
    held = {"checks.score_range": [0, 0.001], "postprocess": None}
    job = write_job(tmp_path, held)
    write_model(tmp_path / "model", *{**CAST, **USED_AS_IS}[name])
    assert run_json("run", job)["status"] == "held"
    earlier.undo()
    work = settle(make_plan(load_job(str(job))))
    assert (bool(work.units), bool(work.resumed)) == (name in CAST, name in USED_AS_IS)
