"""Tests of whole jobs of LightGBM: each score is the framework's own, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from tests import factory
from tests.boosters import ROWS, TRAINED, for_training, make_frame
from tests.models.backends.xgboost.test_jobs import job_of, own_scores, require_same, scores

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["binary_probability", "many_probability", "counts_value"])
def test_scores_are_the_frameworks_own(name: str, tmp_path: Path, lightgbm_models: Path) -> None:
    """A path alone is enough; nulls, infinities and unseen categories score as in LightGBM."""
    job = job_of(tmp_path, lightgbm_models / f"{name.partition('_')[0]}.txt")
    assert factory.run_json("run", job)["rows"]["scored"] == ROWS
    require_same(scores(tmp_path), own_scores(lightgbm_models, name))
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_model_in_memory_becomes_a_folder(tmp_path: Path, lightgbm_models: Path) -> None:
    """A Booster with rows of its training scores classes as the sklearn wrapper does."""
    import lightgbm

    booster = lightgbm.Booster(model_file=lightgbm_models / "many.txt")
    rows = for_training(make_frame()[:TRAINED])
    bs.save_model(tmp_path / "model", booster, rows, call={"returns": "class"})
    factory.run_json("run", job_of(tmp_path, tmp_path / "model", drift={"on_fail": "warn"}))
    expected = own_scores(lightgbm_models, "many_class").astype(np.int64)
    require_same(scores(tmp_path), expected)


def test_a_blank_in_a_name_is_found_again(tmp_path: Path) -> None:
    """LightGBM writes `_` for it; the folder reads the column of the sample."""
    import lightgbm

    rows = make_frame()[["size", "count"]].rename(columns={"size": "the size"})
    options = {"verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(rows[:TRAINED], label=rows["count"][:TRAINED] % 2)
    booster = lightgbm.train(options, data, 3)
    saved = bs.save_model(tmp_path / "model", booster, rows[:TRAINED])
    assert '"the size"' in (tmp_path / "model/preprocessing.json").read_text()
    assert saved.outputs == {"score": "float64 []"}


def test_a_path_alone_with_a_blank_in_a_name_says_what_to_write(tmp_path: Path) -> None:
    """The message names the file, for there is no preprocessing, and what is written works."""
    import lightgbm

    rows = make_frame()[["size", "count"]].rename(columns={"size": "the size"})
    data = lightgbm.Dataset(rows[:TRAINED], label=rows["count"][:TRAINED] % 2)
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 3)
    booster.save_model(tmp_path / "spaced.txt")
    job = job_of(tmp_path, tmp_path / "spaced.txt")
    said = " ".join(factory.run_cli("check", job).output.split())
    assert "model spaced.txt: column 'the_size' is not in" in said
    assert "model.inputs may name the columns, in the order of training: {features: [a, b]}" in said
    named = factory.change_job(tmp_path, {"model.inputs": {"features": ["size", "count"]}})
    done = factory.run_cli("check", named)
    assert done.exit_code == 0, done.output


def test_categories_of_booleans_and_whole_floats_score_as_in_lightgbm(tmp_path: Path) -> None:
    """A path alone is enough for booleans; a function may leave floats as pandas has them."""
    import lightgbm

    rng = np.random.default_rng(3)
    flag, level = rng.random(600) > 0.5, rng.choice([1.0, 2.0, 5.0], 600)
    rows = pd.DataFrame({"flag": flag, "level": level}).astype("category")
    label = (flag * 2 + level + rng.normal(size=600) > 3).astype(int)
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(rows, label)
    model.booster_.save_model(tmp_path / "model.txt")
    (tmp_path / "same.py").write_text("def same(batch):\n    return batch\n")
    job = job_of(tmp_path, tmp_path / "model.txt", preprocess={"function": "same.py:same"})
    table = pa.table({"id": np.arange(600), "flag": flag, "level": level})
    pq.write_table(table, tmp_path / "in/rows.parquet")
    factory.run_json("run", job)
    require_same(scores(tmp_path), np.asarray(model.predict_proba(rows))[:, 1])
