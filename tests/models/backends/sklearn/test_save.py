"""Tests of fitted pipelines in memory that become model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import batchscore as bs
from batchscore.models.folder import read_model_folder
from batchscore.models.tree_features import Coded, Plain
from tests.pipelines import NUMBERS, TRAINED, fit, labels, make_frame, of_frames, rows_for


def usual() -> tuple[Any, pd.DataFrame]:
    """Returns a fitted pipeline of mixed columns, and rows of its training."""
    frame = make_frame()
    return fit("usual", of_frames()["usual"], frame), rows_for("usual", frame)[:TRAINED]


def numbers() -> pd.DataFrame:
    return make_frame()[NUMBERS].fillna(0)[:200]


def test_a_folder_is_made_of_a_pipeline_alone(tmp_path: Path) -> None:
    """The file names columns, types, categories and policies, so there is no preprocessing."""
    model, rows = usual()
    saved = bs.save_model(tmp_path / "model", model, rows)
    assert saved.outputs == {"score": "float64 [3]"}
    assert "preprocessing" not in saved.card
    assert saved.card["call"] == {"returns": "probability"}
    loaded = read_model_folder(str(tmp_path / "model"))
    assert loaded.features is not None
    assert loaded.features.inputs["features"] == (
        Plain(column="age", type="float64"),
        Plain(column="income", type="float64"),
        Plain(column="visits", type="float64"),
        Coded(column="city", vocabulary=("Köln", "Paris", "Rome"), type="float64", unseen="own"),
        Coded(column="plan", vocabulary=("paid", "free", "trial"), type="float64", unseen="own"),
    )


def test_the_same_pipeline_gives_the_same_file(tmp_path: Path) -> None:
    """skops writes places in memory and the time; the folder has neither."""
    model, rows = usual()
    files = [bs.save_model(tmp_path / name, model, rows).card["files"] for name in "ab"]
    assert files[0] == files[1]


def test_skops_reads_the_file_as_its_own(tmp_path: Path) -> None:
    """What batchscore adds is a member that skops does not look at."""
    import skops.io

    model, rows = usual()
    bs.save_model(tmp_path / "model", model, rows)
    again = skops.io.load(tmp_path / "model/model.skops", trusted=["numpy.dtype"])
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))


def test_a_model_in_memory_is_left_as_it_is(tmp_path: Path) -> None:
    """Its threads are its own."""
    model = RandomForestClassifier(3, n_jobs=2).fit(numbers(), numbers()["visits"] > 20)
    bs.save_model(tmp_path / "model", model, numbers())
    assert model.n_jobs == 2


def test_a_search_saves_its_best_estimator(tmp_path: Path) -> None:
    """GridSearchCV itself is not loaded."""
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2)
    search.fit(numbers(), numbers()["visits"])
    assert bs.save_model(tmp_path / "model", search, numbers()).outputs == {"score": "float64 []"}


def test_a_search_for_a_wrapper_of_another_library_saves_the_wrapper(tmp_path: Path) -> None:
    """Its best estimator is XGBoost's own, and needs no part of scikit-learn to be scored."""
    import xgboost

    search = GridSearchCV(xgboost.XGBRegressor(n_estimators=2), {"max_depth": [1, 2]}, cv=2)
    with pytest.raises(bs.InvalidError, match="no best_estimator_; call its fit"):
        bs.save_model(tmp_path / "model", search, numbers())
    search.fit(numbers(), numbers()["visits"])
    assert bs.save_model(tmp_path / "model", search, numbers()).card["format"] == "xgboost"


@pytest.mark.parametrize("kind", ["calibrated", "log_target", "voting"])
def test_an_estimator_keeps_the_pipeline_it_copied(kind: str, tmp_path: Path) -> None:
    """What was given to be fitted stays unfitted, and knows no values of columns."""
    rows, y = make_frame()[:TRAINED], labels(make_frame())[:TRAINED]
    inner = of_frames()["usual"]
    valued = make_pipeline(inner[0], Ridge())
    made: dict[str, Any] = {
        "calibrated": CalibratedClassifierCV(inner, cv=2),
        "log_target": TransformedTargetRegressor(valued, func=np.log1p, inverse_func=np.expm1),
        "voting": VotingClassifier([("a", inner)], voting="soft"),
    }
    model = made[kind].fit(rows, y)
    bs.save_model(tmp_path / "model", model, rows)
    features = read_model_folder(str(tmp_path / "model")).features
    assert features is not None
    city = next(
        each for each in features.inputs["features"] if getattr(each, "column", "") == "city"
    )
    assert isinstance(city, Coded)
    assert city.vocabulary == ("Köln", "Paris", "Rome")


def test_a_model_of_an_array_takes_the_sample_s_names(tmp_path: Path) -> None:
    """Its file names no columns, so columns are those of the sample, or those that are given."""
    model = LogisticRegression().fit(numbers().to_numpy(), numbers()["visits"] > 20)
    for name, columns in (("a", None), ("b", {"x": NUMBERS})):
        bs.save_model(tmp_path / name, model, numbers(), columns=columns)
        (found,) = read_model_folder(str(tmp_path / name)).inputs
        assert (found.name, found.columns) == (
            "x" if columns else "features",
            tuple(NUMBERS),
        )


@pytest.mark.parametrize(
    ("call", "output"),
    [
        ({"returns": "class"}, "int64 []"),
        ({"returns": "raw"}, "float64 []"),
        ({"returns": "probability", "positive": 0}, "float64 []"),
    ],
)
def test_a_call_may_be_chosen(call: dict[str, Any], output: str, tmp_path: Path) -> None:
    """Golden rows have the results of scikit-learn's own call; texts are places in classes_."""
    rows = numbers()
    y = np.where(rows["visits"] > 20, "yes", "no")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, y)
    saved = bs.save_model(tmp_path / "model", model, rows, call=call)
    assert saved.outputs == {"score": output}
    golden = pd.read_parquet(tmp_path / "model/golden.parquet")
    own = {
        "class": (model.predict(golden[NUMBERS]) == "yes").astype(int),
        "raw": model.decision_function(golden[NUMBERS]),
        "probability": model.predict_proba(golden[NUMBERS])[:, 0],
    }
    np.testing.assert_allclose(golden["score"], own[call["returns"]], rtol=0, atol=1e-14)


class Own(StandardScaler):
    """A transformer of somebody's own."""


def _of(step: Any) -> Any:
    return make_pipeline(step, Ridge()).fit(numbers(), numbers()["visits"])


def _of_two_targets() -> Any:
    flags = (numbers() > 20).to_numpy().astype(int)[:, :2]
    return RandomForestClassifier(2).fit(numbers(), flags)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ridge(), "model is not fitted"),
        (lambda: StandardScaler().fit(numbers()), "its last step predicts nothing"),
        (lambda: _of(Own()), "test_save.Own, which is not among the types that are loaded"),
        (lambda: _of(FunctionTransformer(np.nan_to_num)), "numpy.nan_to_num, which is not among"),
        (lambda: _of_two_targets(), "a classifier of several targets is not scored"),
    ],
)
def test_what_cannot_be_scored_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    """The message names the part, and nothing is written."""
    with pytest.raises(bs.InvalidError, match=message):
        bs.save_model(tmp_path / "model", make(), numbers())
    assert not (tmp_path / "model").exists()


def test_a_wrapper_of_another_library_says_what_to_save(tmp_path: Path) -> None:
    """XGBoost's Booster is no part of scikit-learn; its own format has it."""
    import xgboost

    model = _of(StandardScaler())
    model.steps[-1] = ("last", xgboost.XGBRegressor(n_estimators=2))
    model.fit(numbers(), numbers()["visits"])
    with pytest.raises(bs.InvalidError, match=r"xgboost.*bs.save_model takes pipeline\[-1\]"):
        bs.save_model(tmp_path / "model", model, numbers())
    named = pd.DataFrame(model[:-1].transform(numbers()), columns=NUMBERS)
    bs.save_model(tmp_path / "model", model[-1], named)


def test_a_sample_without_a_column_is_refused(tmp_path: Path) -> None:
    """The message names the nearest; a column that the pipeline drops may be missing."""
    model, rows = usual()
    with pytest.raises(bs.InvalidError, match=r"no column 'city'.*nearest: 'cities'"):
        bs.save_model(tmp_path / "model", model, rows.rename(columns={"city": "cities"}))
    bs.save_model(tmp_path / "model", model, rows.drop(columns=["code", "is_new"]))


def test_an_encoder_that_refuses_gaps_has_such_rows_rejected(tmp_path: Path) -> None:
    """A trial of a single row shows what scikit-learn refuses, by column."""
    rows = make_frame()[["plan", "visits"]].dropna()[:300]
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough"), Ridge()
    ).fit(rows, labels(make_frame())[:300])
    bs.save_model(tmp_path / "model", model, rows)
    features = read_model_folder(str(tmp_path / "model")).features
    assert features is not None
    plan, visits = features.inputs["features"]
    assert isinstance(plan, Coded)
    assert isinstance(visits, Plain)
    assert (plan.unseen, plan.nulls, visits.nulls) == ("reject", "reject", "reject")
