"""Tests of linear models that are called once for many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchscore.columnar.arrays import Array
from batchscore.models.backends.facts import TILE_ROWS
from batchscore.models.backends.sklearn.tiled_products import cut_tile, with_tiled_products

ROWS = 5 * TILE_ROWS + 77
COLUMNS = 30


def _linear() -> dict[str, Any]:
    from sklearn import linear_model as lm
    from sklearn.svm import LinearSVC, LinearSVR

    return {
        "probability": (lm.LogisticRegression(), "predict_proba"),
        "raw": (lm.LogisticRegression(), "decision_function"),
        "ridge classes": (lm.RidgeClassifier(), "predict"),
        "ridge": (lm.Ridge(), "predict"),
        "least squares": (lm.LinearRegression(), "predict"),
        "lasso": (lm.LassoCV(cv=2), "predict"),
        "elastic": (lm.ElasticNet(0.01), "predict"),
        "support": (LinearSVC(), "decision_function"),
        "support of numbers": (LinearSVR(), "predict"),
    }


def _rows(dtype: str, order: Any) -> Array:
    rows_bf = np.random.default_rng(3).standard_normal((ROWS, COLUMNS))
    return np.asarray(rows_bf, dtype, order=order)


def _labels(rows_bf: Array, classes: int) -> Array:
    edges = np.linspace(-1, 1, classes - 1) if classes > 2 else [0.0]
    return np.asarray(np.digitize(rows_bf[:, 0] + rows_bf[:, 1] ** 2 - 1, edges))


@pytest.mark.parametrize(("dtype", "order"), [("float64", "C"), ("float32", "F")])
@pytest.mark.parametrize("classes", [2, 9])
@pytest.mark.parametrize("name", _linear())
def test_one_call_has_the_bits_of_tiles(name: str, classes: int, dtype: str, order: str) -> None:
    """Scores keep the bits of earlier versions, which called a model for one tile at a time."""
    model, method = _linear()[name]
    rows_bf = _rows(dtype, order)
    model.fit(rows_bf[:600], _labels(rows_bf[:600], classes))
    quick = with_tiled_products(model)
    starts = range(0, ROWS, TILE_ROWS)
    tiles = [getattr(model, method)(cut_tile(rows_bf, start, TILE_ROWS)) for start in starts]
    expected, found = np.concatenate(tiles)[:ROWS], getattr(quick, method)(rows_bf)
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_rows_are_checked_once_and_multiplied_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline calls its last step once for a block, and the model itself is left as it was."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import ThreadpoolController

    from batchscore.models.backends.sklearn.frames import of_numbers
    from batchscore.models.backends.sklearn.pipeline_results import EstimatorCall
    from batchscore.models.backends.sklearn.predictor import PipelinePredictor

    rows_bf = _rows("float64", "C")
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(rows_bf[:600], _labels(rows_bf[:600], 2))
    scaler, last = model[0], model[1]
    seen = list[int]()
    own = LogisticRegression.decision_function

    def noting(self: Any, rows: Any) -> Any:
        seen.append(len(rows))
        return own(self, rows)

    monkeypatch.setattr(LogisticRegression, "decision_function", noting)
    predictor = PipelinePredictor(
        (scaler,),
        last,
        with_tiled_products(last),
        TILE_ROWS,
        of_numbers([f"f{n}" for n in range(COLUMNS)], True),
        EstimatorCall("classifier", "probability", 1, "float64", ()),
        1,
        ThreadpoolController(),
        "features",
        "score",
    )
    made = np.asarray(predictor({"features": rows_bf})["score"])
    assert seen == [ROWS]
    np.testing.assert_allclose(made, model.predict_proba(rows_bf)[:, 1], rtol=0, atol=1e-14)
    assert type(last.coef_) is np.ndarray
    seen.clear()
    predictor({"features": rows_bf[:3]})
    assert TILE_ROWS in seen  # few rows are still filled up


def test_other_models_are_called_in_tiles() -> None:
    """A model that does more across rows than one product is left alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    rows_bf = _rows("float64", "C")[:200]
    labels = _labels(rows_bf, 2)
    sparse = LogisticRegression().fit(rows_bf, labels).sparsify()
    assert with_tiled_products(sparse) is None
    assert with_tiled_products(MLPClassifier((2,), max_iter=2).fit(rows_bf, labels)) is None
