"""Tests of what columns contributed to scores of linear models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import linear_model as lm
from sklearn import preprocessing as pp
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC, LinearSVR

import batchscore as bs
from batchscore.columnar.arrays import to_numpy
from batchscore.columnar.text_columns import texts_from_arrow
from batchscore.errors import ModelError
from batchscore.models.backends.facts import CONTRIBUTIONS, RAW
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.sklearn.frames import MEMBER
from batchscore.models.features import encode
from batchscore.models.folder import read_model_folder
from tests.models.backends.sklearn.test_pipelines import model_of
from tests.models.backends.sklearn.test_skops_file import members_of, packed
from tests.pipelines import NUMBERS, TEXTS, TRAINED, labels, make_frame

SAMPLE = 30


def texts() -> Any:
    return make_pipeline(
        SimpleImputer(strategy="most_frequent"), pp.OneHotEncoder(handle_unknown="ignore")
    )


def mixed(*numbers: Any, **options: Any) -> Any:
    """Returns columns of numbers and texts, each treated alone."""
    return make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), *numbers), NUMBERS),
        (texts(), TEXTS),
        **options,
    )


def explained(folder: Path, rows: pd.DataFrame) -> tuple[list[str], Any, Any]:
    """Returns the columns of a folder's model, contributions with the base, and raw scores."""
    model = read_model_folder(str(folder))
    assert model.features is not None
    given = encode(model.features, pa.RecordBatch.from_pandas(rows, preserve_index=False))
    made = (
        backend_of("sklearn")
        .load(model, "cpu")
        .explaining()({name: _taken(column) for name, column in given.items()})
    )
    columns = [each.column for members in model.features.inputs.values() for each in members]
    return columns, made[CONTRIBUTIONS], made[RAW]


def _taken(column: pa.Array) -> Any:
    if isinstance(column, pa.DictionaryArray):
        return texts_from_arrow(column)
    return to_numpy(column)


def raw_scores(model: Any, rows: pd.DataFrame) -> Any:
    """Returns scikit-learn's own raw scores (n, g)."""
    if hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(rows)).reshape(len(rows), -1)
    made = np.asarray(model.predict(rows)).reshape(len(rows), -1)
    is_log = isinstance(model[-1], lm.PoissonRegressor)
    return np.log(made) if is_log else made


def by_substitution(model: Any, rows: pd.DataFrame, sample: pd.DataFrame, column: str) -> Any:
    """Returns what a column adds to raw scores (n, g), on average over its values in the sample.

    This is the Shapley value by its definition, for a model that adds up what columns bring.
    """
    changed = rows.loc[rows.index.repeat(len(sample))].reset_index(drop=True)
    value = sample[column].iloc[np.tile(np.arange(len(sample)), len(rows))]
    changed[column] = value.reset_index(drop=True)
    others = raw_scores(model, changed).reshape(len(rows), len(sample), -1)
    return raw_scores(model, rows) - others.mean(axis=1)


PIPELINES: dict[str, Any] = {
    "logistic of three": lambda: make_pipeline(mixed(pp.StandardScaler()), lm.LogisticRegression()),
    "union": lambda: make_pipeline(
        make_union(
            mixed(pp.SplineTransformer(n_knots=3)),
            make_column_transformer((MissingIndicator(), ["age", "visits"])),
        ),
        pp.MaxAbsScaler(),
        lm.RidgeClassifier(),
    ),
    "bins": lambda: make_pipeline(
        mixed(pp.KBinsDiscretizer(4), sparse_threshold=0.0),
        SelectKBest(k=9),
        lm.SGDClassifier(random_state=1),
    ),
    "targets": lambda: make_pipeline(
        make_column_transformer(
            (pp.TargetEncoder(random_state=1), TEXTS), ("passthrough", ["code"])
        ),
        pp.RobustScaler(),
        LinearDiscriminantAnalysis(),
    ),
    "one column alone": lambda: make_pipeline(
        make_column_transformer(
            (make_pipeline(texts(), TruncatedSVD(2, random_state=1)), ["city"]),
            (
                make_pipeline(SimpleImputer(), pp.PolynomialFeatures(3), pp.StandardScaler()),
                ["age"],
            ),
            ("drop", ["plan"]),
            remainder=pp.MinMaxScaler(),
        ),
        LinearSVC(),
    ),
    "counts": lambda: make_pipeline(mixed(pp.StandardScaler()), lm.PoissonRegressor()),
    "frozen": lambda: make_pipeline(
        mixed(pp.QuantileTransformer(n_quantiles=10)), lm.ElasticNet(0.01)
    ),
    "svr": lambda: make_pipeline(mixed(pp.PowerTransformer()), LinearSVR()),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_contributions_are_shapley_values_by_their_definition(name: str, tmp_path: Path) -> None:
    """Scikit-learn itself scores rows with one column changed to each value of the sample."""
    frame = make_frame()
    sample = frame[:SAMPLE].reset_index(drop=True)
    model = PIPELINES[name]().fit(frame[:TRAINED], labels(frame)[:TRAINED])
    bs.save_model(tmp_path / "model", model, sample)
    rows = frame[TRAINED - 10 : TRAINED + 12].reset_index(drop=True)
    columns, found, raw = explained(tmp_path / "model", rows)
    own = raw_scores(model, rows)
    best = own.argmax(axis=1)
    np.testing.assert_allclose(raw, own.max(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), raw, atol=1e-9)
    for place, column in enumerate(columns):
        expected = by_substitution(model, rows, sample, column)[np.arange(len(rows)), best]
        np.testing.assert_allclose(found[:, place], expected, atol=1e-9, err_msg=column)


def reviews(count: int) -> pd.DataFrame:
    """Returns two columns of texts, and one of numbers."""
    rng = np.random.default_rng(7)
    words = ["good", "bad", "dull", "Größe", "again"]
    made = {n: [" ".join(rng.choice(words, 3)) for _ in range(count)] for n in ("title", "text")}
    return pd.DataFrame({**made, "stars": rng.integers(1, 6, count)}).astype({"title": object})


def test_words_count_for_the_column_that_holds_them(tmp_path: Path) -> None:
    """Free texts, of sparse features; towards class 0 if the score is its probability."""
    frame = reviews(120)
    model = make_pipeline(
        make_column_transformer(
            (TfidfVectorizer(ngram_range=(1, 2)), "text"),
            (make_pipeline(HashingVectorizer(n_features=32), TruncatedSVD(3)), "title"),
            remainder="passthrough",
        ),
        lm.LogisticRegression(),
    ).fit(frame, np.arange(120) % 2)
    sample = frame[:20].reset_index(drop=True)
    call = {"returns": "probability", "positive": 0}
    bs.save_model(tmp_path / "model", model, sample, call=call)
    rows = frame[100:].reset_index(drop=True)
    columns, found, raw = explained(tmp_path / "model", rows)
    np.testing.assert_allclose(raw, -model.decision_function(rows), atol=1e-12)
    assert sorted(columns) == ["stars", "text", "title"]
    for place, column in enumerate(columns):
        expected = -by_substitution(model, rows, sample, column)[:, 0]
        np.testing.assert_allclose(found[:, place], expected, atol=1e-9, err_msg=column)


def of_numbers(*steps: Any) -> Any:
    """Returns a pipeline fitted on numbers without gaps, of two targets if its last step has."""
    frame = make_frame()[NUMBERS].fillna(0)[:200]
    target = frame["visits"] > 20
    two = frame[["age", "visits"]].to_numpy()
    return make_pipeline(*steps).fit(frame, two if isinstance(steps[-1], lm.Lasso) else target)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((RandomForestClassifier(3),), "a score of RandomForestClassifier; expected a linear"),
        ((PCA(2), lm.Ridge()), r"PCA makes one number of several columns \(age, income, visits\)"),
        ((KNNImputer(), lm.Ridge()), "KNNImputer makes one number of several"),
        ((pp.PolynomialFeatures(2), lm.Ridge()), r"of several columns \(age, income\), so"),
        ((pp.Normalizer(), LinearSVR()), "Normalizer makes one number of several"),
        ((lm.Lasso(),), "has 2 targets, and reasons are of one score"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value[0]).__name__,
)
def test_other_models_are_refused(steps: Any, message: str, tmp_path: Path) -> None:
    """They are saved and scored; a message says why nothing explains them, and what to do."""
    bs.save_model(tmp_path / "model", of_numbers(*steps), make_frame()[NUMBERS].fillna(0)[:50])
    loaded = backend_of("sklearn").load(read_model_folder(str(tmp_path / "model")), "cpu")
    with pytest.raises(ModelError, match=message) as caught:
        loaded.explaining()
    assert "leave explain out" in str(caught.value)


def test_interactions_within_a_column_are_explained(tmp_path: Path) -> None:
    """Powers of one column are of that column, and the constant one is part of the base."""
    model = of_numbers(pp.PolynomialFeatures([1, 1]), pp.StandardScaler(), lm.Ridge())
    rows = make_frame()[NUMBERS].fillna(0)[:50]
    bs.save_model(tmp_path / "model", model, rows)
    columns, found, raw = explained(tmp_path / "model", rows)
    assert columns == NUMBERS
    np.testing.assert_allclose(found.sum(axis=1), raw, atol=1e-12)
    np.testing.assert_allclose(found.mean(axis=0), [0, 0, 0, raw.mean()], atol=1e-12)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (None, "does not hold the means of training"),
        ([[0.0, 0.0]], "means of other columns"),
        ([[0.0, 0.0, float("nan")]], "means that are not finite"),
        ([[0.0] * 3] * 2, "means of 2 scores, and the model makes 1"),
        ([0.0, "x"], "no skops file, or damaged"),
    ],
)
def test_means_that_are_missing_or_damaged_are_refused(
    means: Any, message: str, tmp_path: Path
) -> None:
    """A file of an earlier version has none: it is scored, and not explained."""
    rows = make_frame()[NUMBERS].fillna(0)[:50]
    bs.save_model(tmp_path / "model", of_numbers(lm.Ridge()), rows)
    members = members_of(tmp_path / "model/model.skops")
    known = json.loads(members[MEMBER])
    changed = {**known, "means": means} if means else {n: known[n] for n in known if n != "means"}
    path = tmp_path / "changed.skops"
    path.write_bytes(packed({**members, MEMBER: json.dumps(changed).encode()}))
    with pytest.raises(ModelError, match=message):
        backend_of("sklearn").load(model_of(path), "cpu").explaining()
