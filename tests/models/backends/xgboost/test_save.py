"""Tests of saving models of XGBoost that lie in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchscore as bs
from batchscore.errors import ArgumentError, InputError, ModelError
from tests import factory
from tests.boosters import TRAINED, for_training, make_frame
from tests.models.backends.xgboost.test_jobs import job_of, own_scores, require_same, scores

pytestmark = pytest.mark.slow


def wrapper(models: Path, kind: str, name: str, **options: Any) -> Any:
    import xgboost

    model = getattr(xgboost, kind)(**options)
    model.load_model(models / f"{name}.ubj")
    return model


def test_a_wrapper_becomes_a_folder_that_scores_as_it_does(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """Card, golden rows and reference come from the model and its training rows alone."""
    model = wrapper(xgboost_models, "XGBClassifier", "binary")
    rows = for_training(make_frame()[:TRAINED])
    saved = bs.save_model(tmp_path / "model", model, rows)
    card = yaml.safe_load((tmp_path / "model/model.yaml").read_text())
    best = int(np.load(xgboost_models / "scores.npz")["rounds"][0])
    assert card["call"] == {"returns": "probability", "positive": 1, "iterations": [0, best]}
    golden = pq.read_table(tmp_path / "model/golden.parquet")
    assert saved.golden_rows == golden.num_rows > 200
    frame = for_training(golden.to_pandas())
    require_same(golden["score"].to_numpy(), model.predict_proba(frame)[:, 1])
    done = factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    assert "golden_rows" in {each["name"] for each in done["checks"]}
    assert done["drift"] is not None
    require_same(scores(tmp_path), own_scores(xgboost_models, "binary_probability"))


def test_a_booster_of_arrays_takes_names_and_gaps_from_the_caller(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """`columns` names what the file does not, and the wrapper's `missing` is in the card."""
    model = wrapper(xgboost_models, "XGBRegressor", "unnamed", missing=-999.0)
    rows = make_frame()[:TRAINED].fillna({"size": -999.0})
    columns = {"features": ["size", "count"]}
    bs.save_model(tmp_path / "model", model, rows, columns=columns, outputs=["amount"])
    assert '"missing": -999.0' in (tmp_path / "model/preprocessing.json").read_text()
    factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    found = factory.published(tmp_path / "out")["amount"].to_numpy()
    require_same(found, own_scores(xgboost_models, "unnamed_value"))


def test_classes_of_several_are_integers(tmp_path: Path, xgboost_models: Path) -> None:
    """`call` chooses the class in place of the probabilities, for a Booster as well."""
    model = wrapper(xgboost_models, "XGBClassifier", "many").get_booster()
    rows = for_training(make_frame()[:TRAINED])
    saved = bs.save_model(tmp_path / "model", model, rows, call={"returns": "class"})
    assert saved.outputs == {"score": "int64 []"}
    factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    expected = own_scores(xgboost_models, "many_class").astype(np.int64)
    require_same(scores(tmp_path), expected)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"args": {"a": 1}}, ArgumentError, "args: means nothing for a model of this kind"),
        ({"call": {"returns": "value"}}, ModelError, "binary:logistic returns probability or"),
        ({"call": {"return": "raw"}}, ModelError, "call is not valid: returns: missing"),
        ({"columns": {"features": ["size"]}}, InputError, "the model reads 5 columns, and 1 are"),
        ({"outputs": ["a", "b"]}, ModelError, "a model of trees has one"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    xgboost_models: Path,
) -> None:
    """The message says what, and no folder is left."""
    model = wrapper(xgboost_models, "XGBClassifier", "binary")
    with pytest.raises(error, match=message):
        bs.save_model(tmp_path / "model", model, for_training(make_frame()[:100]), **given)
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    """The message says to fit it."""
    import xgboost

    with pytest.raises(ModelError, match="model is not fitted; call its fit"):
        bs.save_model(tmp_path / "model", xgboost.XGBClassifier(), make_frame()[:10])


def test_saving_trees_imports_no_torch(tmp_path: Path, xgboost_models: Path) -> None:
    """A process that has trees alone never loads torch."""
    code = f"""
import sys, xgboost, batchscore as bs
from tests.boosters import for_training, make_frame
model = xgboost.Booster(model_file={str(xgboost_models / "counts.ubj")!r})
bs.save_model({str(tmp_path / "model")!r}, model, for_training(make_frame()[:100]))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=True)


@pytest.mark.parametrize("dtype", ["object", "str", "string[pyarrow]"])
def test_categories_beyond_ascii_are_those_of_the_sample(dtype: str, tmp_path: Path) -> None:
    """XGBoost cuts such texts in its file, so its path alone is not enough.

    A wrapper and its Booster become folders with the same scores, whatever type the texts have.
    """
    import pandas as pd
    import xgboost

    rows = make_frame()
    colour = rows["colour"].replace({"green": "grün", "pink": None})
    categories = pd.Index(["blue", "grün", "red"], dtype=dtype)
    rows = rows[["size"]].assign(colour=pd.Categorical(colour, categories))
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True)
    model.fit(rows[:TRAINED], np.arange(TRAINED) % 5 + (colour[:TRAINED] == "red"))
    bs.save_model(tmp_path / "model", model, rows[:TRAINED])
    bs.save_model(tmp_path / "booster", model.get_booster(), rows[:TRAINED])
    own = model.predict(rows)
    for kind in ("model", "booster"):
        job = job_of(tmp_path / kind, tmp_path / kind, drift={"on_fail": "warn"})
        texts = pa.array(colour.where(colour.notna(), None), pa.string())
        table = pa.table({"id": np.arange(len(rows)), "size": rows["size"], "colour": texts})
        pq.write_table(table, tmp_path / kind / "in/rows.parquet")
        factory.run_json("run", job)
        require_same(scores(tmp_path / kind), own)
    other = rows.assign(colour=rows["colour"].cat.reorder_categories(["red", "grün", "blue"]))
    with pytest.raises(InputError, match=r"sample: XGBoost cannot score it .*same categories"):
        bs.save_model(tmp_path / "other", model, other[:TRAINED])
    model.save_model(tmp_path / "model.ubj")
    said = factory.run_cli("run", job_of(tmp_path, tmp_path / "model.ubj")).output
    assert "column 'colour' holds categories, and the file does not list them" in " ".join(
        said.split()
    )
