"""Tests of whole jobs with a model of another package's format."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from batchscore.columnar.arrays import Array
from batchscore.models.backends.facts import Inputs, Promises
from tests import factory
from tests.backends.installed import write_linear_model
from tests.backends.linear import LinearBackend, LinearPredictor

pytestmark = pytest.mark.slow

WEIGHTS = np.array([0.5, -0.25], np.float32)

# The worker's step fails where torch is imported, so that rows would be rejected.
GUARD = """
import sys

def keep(batch):
    assert "torch" not in sys.modules
    return batch
"""
LAUNCHER = """
import sys
from batchscore.cli import cli

for workers in (1, 2):
    cli(["run", "--set", f"runtime.workers={workers}", "--rescore", sys.argv[1]],
        standalone_mode=False)
    assert "torch" not in sys.modules, workers
"""


def job_of(folder: Path, changes: dict[str, Any] | None = None, **card: Any) -> Path:
    """Writes a job with a linear model, which reads columns a and b."""
    folder.mkdir()
    factory.write_job(folder, {"model.inputs": {"x": ["a", "b"]}, "postprocess": []})
    write_linear_model(folder / "line", WEIGHTS, 0.125, card)
    return factory.change_job(folder, {"model.path": "line", **(changes or {})})


def test_a_linear_model_scores_as_numpy(tmp_path: Path, linear_format: Path) -> None:
    """Scores are NumPy's own, and a second run finds nothing to do."""
    job = job_of(tmp_path / "job")
    done = factory.run_json("run", job, "--set", "runtime.batch_rows=128")
    assert done["status"] == "published"
    assert done["inference"]["call_rows"] == 128
    table = factory.published(tmp_path / "job/out")
    x = np.column_stack([table["a"].to_numpy(), table["b"].to_numpy().astype(np.float32)])
    np.testing.assert_allclose(table["score"].to_numpy(), x @ WEIGHTS + 0.125, atol=1e-6)
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_scores_that_depend_on_other_rows_are_refused(
    tmp_path: Path, linear_format: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the model, the difference, and a remedy that is not about networks."""

    def centred(self: LinearPredictor, inputs: Inputs) -> dict[str, Array]:
        score_b = np.asarray(inputs[self.name]) @ self.weights_f
        return {"score": score_b - score_b.mean()}

    monkeypatch.setattr(LinearPredictor, "__call__", centred)
    done = factory.run_cli("check", job_of(tmp_path / "job"))
    assert done.exit_code == 2
    reported = " ".join(done.output.split())
    assert "model 'line' returns other values for a row at another place" in reported
    assert "correct the model, or its backend" in reported


def test_rows_with_a_nan_do_not_reach_a_model_that_takes_none(
    tmp_path: Path, linear_format: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rejected with their column, and all others have their scores."""
    promises = Promises(None, True, "reject", "cpu", 1, np.__version__)
    monkeypatch.setattr(LinearPredictor, "promises", promises)
    score = LinearPredictor.__call__

    def guarded(self: LinearPredictor, inputs: Inputs) -> Any:
        assert not np.isnan(np.asarray(inputs[self.name])).any()
        return {"score": np.nan_to_num(score(self, inputs)["score"])}

    monkeypatch.setattr(LinearPredictor, "__call__", guarded)
    job = job_of(tmp_path / "job", {"rejects": {"max_ratio": 1.0}})
    rows = factory.make_rows()
    a_n = np.where(rows["id"].to_numpy() % 3 == 0, np.nan, rows["a"].to_numpy())
    factory.write_shard(tmp_path / "job/in/0.parquet", rows.set_column(1, "a", [a_n]))
    done = factory.run_json("run", job)
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (400, 100)
    (why,) = done["rejects"]["reasons"]
    assert why == "infer: MissingInput: the model takes no missing value"
    found = factory.published(tmp_path / "job/out")
    x = np.column_stack([found["a"].to_numpy(), found["b"].to_numpy().astype(np.float32)])
    np.testing.assert_allclose(found["score"].to_numpy(), x @ WEIGHTS + 0.125, atol=1e-6)


def test_a_job_without_torch_imports_none(tmp_path: Path, linear_format: Path) -> None:
    """Neither the launcher nor a worker imports torch for another format's model."""
    job = job_of(tmp_path / "job", {"postprocess": [{"function": "guard.py:keep"}]})
    (tmp_path / "job/guard.py").write_text(GUARD)
    path = os.pathsep.join([str(linear_format), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(job)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("scored 500") == 2


@pytest.mark.parametrize(
    ("changes", "card", "message"),
    [
        ({}, {"format": "tflite"}, "model format 'tflite': no installed backend reads it"),
        ({}, {"architecture": "net.py:Net"}, "are built without code; leave architecture out"),
        ({}, {"inputs": {"x": {"type": "float32", "shape": [3]}}}, "has shape [3] as declared"),
        ({"runtime.device": "cuda"}, {}, "compute on the CPU alone"),
        ({"runtime.precision": "bf16"}, {}, "set runtime.precision to float32"),
        ({"runtime.compile": True}, {}, "set runtime.compile to false"),
        ({"runtime.micro_batch": 64}, {}, "set runtime.micro_batch to auto"),
    ],
)
def test_what_a_format_does_not_have_is_refused(
    changes: dict[str, Any],
    card: dict[str, Any],
    message: str,
    tmp_path: Path,
    linear_format: Path,
) -> None:
    """The message says what the format takes instead, and nothing is scored."""
    job = job_of(tmp_path / "job", changes)
    text = (tmp_path / "job/line/model.yaml").read_text()
    _change_card(tmp_path / "job/line", text, card)
    if "inputs" in card:
        factory.change_job(tmp_path / "job", {"model.inputs": {"x": ["a", "b", "id"]}})
    done = factory.run_cli("run", job)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_backend_that_fails_is_named(
    tmp_path: Path, linear_format: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises is an error before any work, and no defect of batchscore."""

    def load(*_: Any, **__: Any) -> None:
        raise RuntimeError("no licence")

    monkeypatch.setattr(LinearBackend, "load", load)
    done = factory.run_cli("run", job_of(tmp_path / "job"))
    assert done.exit_code == 2
    reported = " ".join(done.output.split())
    assert "model format 'npz': its backend failed with RuntimeError: no licence" in reported


def _change_card(folder: Path, text: str, changes: dict[str, Any]) -> None:

    card = {**yaml.safe_load(text), **changes}
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
