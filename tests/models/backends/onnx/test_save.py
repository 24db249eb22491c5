"""Tests of saving ONNX models as model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.errors import ArgumentError, InputError, ModelError
from tests import factory
from tests.models.backends.onnx.test_jobs import job_of, own_scores, require_same, scores
from tests.onnx_models import COLUMNS, network, write_table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["path", "bytes", "proto"])
def test_a_model_becomes_a_folder_with_its_own_scores(
    kind: str, tmp_path: Path, onnx_models: Path
) -> None:
    """Card, golden rows and reference come from the file and some rows."""
    path = onnx_models / "network.onnx"
    given = {"path": path, "bytes": path.read_bytes(), "proto": onnx.load(path)}[kind]
    rows = write_table(tmp_path / "in/rows.parquet")
    saved = bs.save_model(tmp_path / "model", given, rows[:3000], columns={"x": COLUMNS})
    assert (saved.inputs, saved.outputs) == ({"x": "float32 [8]"}, {"logit": "float32 []"})
    golden = pq.read_table(tmp_path / "model/golden.parquet")
    assert saved.golden_rows == golden.num_rows > 200
    model = {"path": "model", "inputs": {"x": COLUMNS}}
    done = factory.run_json("run", job_of(tmp_path, model, drift={"on_fail": "warn"}))
    assert "golden_rows" in {each["name"] for each in done["checks"]}
    assert done["drift"] is not None
    require_same(scores(tmp_path, "logit"), own_scores(onnx_models, "network_logit"))


def test_a_pipeline_for_gaps_has_features_of_its_columns(tmp_path: Path, onnx_models: Path) -> None:
    """The sample's columns are those of training; a null is a gap, which the pipeline fills."""
    rows = write_table(tmp_path / "in/rows.parquet")
    bs.save_model(tmp_path / "model", str(onnx_models / "forest.onnx"), rows.select(COLUMNS[:3]))
    assert '"column": "f01"' in (tmp_path / "model/preprocessing.json").read_text()
    x = rows["f01"].to_numpy()
    gaps = np.where(np.arange(len(x)) % 9 == 0, np.nan, x).astype(np.float32)
    place = rows.schema.get_field_index("f01")
    pq.write_table(rows.set_column(place, "f01", [gaps]), tmp_path / "in/rows.parquet")
    factory.run_json("run", job_of(tmp_path, "model", drift={"on_fail": "warn"}))
    require_same(scores(tmp_path, "probabilities"), own_scores(onnx_models, "forest_probabilities"))


def with_external_data(folder: Path) -> Path:
    path = folder / "source/network.onnx"
    path.parent.mkdir()
    onnx.save(
        network(),
        path,
        save_as_external_data=True,
        location="network.onnx.data",
        size_threshold=0,
    )
    return path


def test_external_data_is_listed_in_the_card(tmp_path: Path, onnx_models: Path) -> None:
    """The second file comes along with its SHA-256; where that differs nothing is loaded."""
    rows = write_table(tmp_path / "in/rows.parquet")
    path = with_external_data(tmp_path)
    saved = bs.save_model(tmp_path / "model", path, rows[:500], columns={"x": COLUMNS})
    data = tmp_path / "model/network.onnx.data"
    assert saved.card["files"]["network.onnx.data"] == factory.sha256(data)
    job = job_of(tmp_path, {"path": "model", "inputs": {"x": COLUMNS}}, drift={"on_fail": "warn"})
    factory.run_json("run", job)
    require_same(scores(tmp_path, "logit"), own_scores(onnx_models, "network_logit"))
    spoilt = bytearray(data.read_bytes())
    spoilt[100] ^= 1
    data.write_bytes(spoilt)
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert "network.onnx.data has SHA-256" in " ".join(done.output.split())


def test_a_link_to_external_data_is_refused(tmp_path: Path) -> None:
    """What a link leads to may lie anywhere."""
    path = with_external_data(tmp_path)
    data = path.with_name("network.onnx.data")
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    rows = {"x": np.zeros((5, 8), np.float32)}
    with pytest.raises(ModelError, match="which is no plain file; copy it"):
        bs.save_model(tmp_path / "model", path, rows)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"args": {"a": 1}}, ArgumentError, "args: means nothing for a model of this kind"),
        ({"columns": {"y": COLUMNS}}, InputError, "the model has no input 'y'"),
        ({"columns": {"x": ["f00"]}}, ModelError, "takes 8 values"),
        ({"outputs": ["score"]}, ModelError, "no output 'score'"),
        ({}, InputError, "input 'x' takes 8 values per row, and the sample has no column"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    onnx_models: Path,
) -> None:
    """The message says what, and no folder is left."""
    rows = write_table(tmp_path / "rows.parquet")[:100]
    with pytest.raises(error, match=message):
        bs.save_model(tmp_path / "model", onnx_models / "network.onnx", rows, **given)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model.pkl", "no such model file; correct the path"),
        ("gone.onnx", "no such model file; correct the path"),
        (b"nothing", "no ONNX model, or damaged"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, message: str, tmp_path: Path) -> None:
    """Paths that lead nowhere, and bytes of anything."""
    rows = {"x": np.zeros((5, 8), np.float32)}
    with pytest.raises((ModelError, ArgumentError), match=message):
        bs.save_model(tmp_path / "model", model, rows)
