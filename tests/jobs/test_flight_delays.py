from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

from batchscore.columnar.arrays import to_numpy
from batchscore.models.features import encode, required_columns
from batchscore.models.folder import read_model_folder
from batchscore.models.loadable import localize, read_sources
from batchscore.models.verified import load_verified
from tests.factory import run_cli

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs/flight_delays"
JANUARY = ROOT / "data/samples/flights/month=1"

MEASURED_AFTER_DEPARTURE = {
    "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"
}  # fmt: skip


@pytest.fixture(scope="module")
def some_flights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of every tenth flight of January."""
    table = pq.read_table(JANUARY, partitioning=None)
    path = tmp_path_factory.mktemp("flights") / "some.parquet"
    pq.write_table(table.take(list(range(0, len(table), 10))), path)
    return str(path)


def python(*args: str) -> Any:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def test_the_model_folder_scores_its_golden_rows() -> None:
    """The committed folder is whole, and its network gives the golden logits again."""
    model = read_model_folder(str(JOB / "model"))
    assert model.features is not None
    assert model.golden is not None
    folder = localize(model)
    kind: Any = load_verified(model.architecture, folder, read_sources(model, folder))
    net = kind(**model.architecture_args).eval()
    net.load_state_dict(safetensors.torch.load_file(localize(model) / model.weights))
    golden = pq.read_table(localize(model) / model.golden)
    encoded = encode(model.features, golden.combine_chunks().to_batches()[0])
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(to_numpy(c).copy()) for name, c in encoded.items()}
        logit_b = net(**inputs).numpy()
    expected_b = np.array(golden["logit"].to_pylist(), np.float32)
    assert len(golden) == 200
    assert np.abs(logit_b - expected_b).max() <= model.tolerance


def test_golden_rows_hold_gaps_and_unseen_categories() -> None:
    """Every raw column is missing somewhere in the golden rows, and categories are unseen."""
    golden = pq.read_table(JOB / "model/golden.parquet")
    assert all(column.null_count for column in golden.columns[:-1])
    assert golden["carrier"].to_pylist().count("?") == 4


def test_nothing_measured_after_departure_is_used() -> None:
    """The model reads what is known before departure, and nothing that ties it to a month."""
    features = read_model_folder(str(JOB / "model")).features
    assert features is not None
    assert not {*required_columns(features)} & {*MEASURED_AFTER_DEPARTURE, "year", "month", "day"}


def test_the_model_folder_matches_its_sources() -> None:
    """The folder holds today's network, and the evaluation that let it pass."""
    assert (JOB / "model/net.py").read_bytes() == (JOB / "net.py").read_bytes()
    evaluation = json.loads((JOB / "model/evaluation.json").read_text())
    assert evaluation["passed"]
    assert evaluation["roc_auc"] >= evaluation["threshold"]["min_roc_auc"]
    for figure in ("roc_auc", "log_loss", "log_loss_of_base_rate"):
        assert f"{evaluation[figure]:.4f}" in (JOB / "README.md").read_text()


@pytest.mark.slow
def test_training_twice_gives_the_same_bytes(some_flights: str) -> None:
    """The same data gives the same weights, to the byte."""
    program = f"""
import sys
sys.path.insert(0, {str(JOB)!r})
import pyarrow.parquet as pq, safetensors.torch, train
flights = pq.read_table({some_flights!r}, filters=[("arr_delay", "<", 9999)])
def weights():
    train.make_deterministic()
    return safetensors.torch.save(train.train(train.fit(flights), flights, 1).state_dict())
sys.exit(weights() != weights())
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_below_the_threshold_is_not_written(some_flights: str, tmp_path: Path) -> None:
    """With too little training the script exits 1 and leaves no folder."""
    folder = tmp_path / "model"
    data = ["--data", some_flights, "--epochs", "1"]
    done = python(str(JOB / "train.py"), *data, "--out", str(folder))
    assert (done.returncode, folder.exists()) == (1, False), done.stdout + done.stderr


@pytest.mark.slow
def test_the_committed_folder_comes_from_the_script(tmp_path: Path) -> None:
    """Training passes the threshold and gives the committed card, and a check accepts the folder.

    Bits of weights, and of what is computed with them, differ by kind of processor.
    """
    done = python(str(JOB / "train.py"), "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    for file in ("preprocessing.json", "net.py"):
        assert (tmp_path / "model" / file).read_bytes() == (JOB / "model" / file).read_bytes()
    made, committed = (
        yaml.safe_load((folder / "model.yaml").read_text())
        for folder in (tmp_path / "model", JOB / "model")
    )
    assert made.pop("files").keys() == committed.pop("files").keys()
    assert made == committed
    golden, known = (
        pq.read_table(f / "golden.parquet") for f in (tmp_path / "model", JOB / "model")
    )
    assert golden.drop_columns(["logit"]) == known.drop_columns(["logit"])
    changes = [f"model.path={tmp_path}/model", f"output.path={tmp_path}/out"]
    found = run_cli("check", JOB / "job.yaml", *(f"--set={each}" for each in changes))
    assert found.exit_code == 0, found.output


def test_the_training_imports_nothing_else_of_ours() -> None:
    """Whoever trains a model needs no name but those that `import batchscore` offers."""
    text = (JOB / "train.py").read_text()
    assert re.findall(r"^\s*(?:from|import) (batchscore.*)$", text, re.M) == ["batchscore as bs"]
