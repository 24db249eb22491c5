"""Models of each format over the same 32 columns, trained and saved as a person would.

The label is a function of three columns with noise. Each model says how its framework scores a
whole table, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import ThreadpoolController

import batchscore as bs
from benchmarks.scorers.work import FEATURES, Work, make_model, make_table, to_onnx

TRAINING_ROWS = 20_000
SAMPLE_ROWS = 1_000
TREES, ROUNDS = 200, 100


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Args:
        model: What `save_model` takes.
        predict: Takes a frame to its scores (b,), as the framework does it on one thread.
        matrix: Takes a matrix (b, f) of float32 to the same, if the framework has such a call.
    """

    model: Any
    predict: Callable[[Any], Any]
    matrix: Callable[[Any], Any] | None = None


def training() -> tuple[Any, Any]:
    """Returns a frame of features and labels (b,)."""
    frame = make_table(TRAINING_ROWS, 1 << 40, 0).select(FEATURES).to_pandas()
    noise_b = np.random.default_rng(7).standard_normal(TRAINING_ROWS)
    sum_b = frame["f00"] + frame["f01"] * frame["f02"] + 0.5 * noise_b
    return frame, (sum_b > 0).astype(int).to_numpy()


def fit_xgboost() -> Fitted:
    """Returns 200 trees of depth 6."""
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=TREES, max_depth=6, learning_rate=0.1, n_jobs=1)
    model.fit(*training())
    booster = model.get_booster()
    return Fitted(model, _positive(model), booster.inplace_predict)


def fit_lightgbm() -> Fitted:
    """Returns 200 trees of 31 leaves."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=TREES, n_jobs=1, verbose=-1).fit(*training())
    return Fitted(
        model, _positive(model), lambda rows_bf: model.booster_.predict(rows_bf, num_threads=1)
    )


def fit_catboost() -> Fitted:
    """Returns 200 symmetric trees of depth 6."""
    from catboost import CatBoostClassifier

    options = {"iterations": TREES, "depth": 6, "thread_count": 1, "verbose": False}
    model = CatBoostClassifier(**options, allow_writing_files=False).fit(*training())

    def predict(rows: Any) -> Any:
        return model.predict_proba(rows, thread_count=1)[:, 1]

    return Fitted(model, predict, predict)


def fit_linear() -> Fitted:
    """Returns a scaler and a logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _sklearn(make_pipeline(StandardScaler(), LogisticRegression()))


def fit_forest() -> Fitted:
    """Returns a forest of 100 trees."""
    from sklearn.ensemble import RandomForestClassifier

    return _sklearn(RandomForestClassifier(ROUNDS, min_samples_leaf=20, random_state=0))


def fit_boosting() -> Fitted:
    """Returns 100 rounds of scikit-learn's boosting by histograms."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return _sklearn(HistGradientBoostingClassifier(max_iter=ROUNDS, random_state=0))


def fit_onnx() -> Fitted:
    """Returns the network of `scoring_peers` as ONNX."""
    import onnxruntime

    content = to_onnx(make_model(Work("onnx", "", 0, 0)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])

    def predict(rows_bf: Any) -> Any:
        return session.run(None, {"x": rows_bf})[0][:, 0]

    return Fitted(content, lambda frame: predict(frame.to_numpy(np.float32)), predict)


FITS: dict[str, Callable[[], Fitted]] = {
    "xgboost": fit_xgboost,
    "lightgbm": fit_lightgbm,
    "catboost": fit_catboost,
    "linear": fit_linear,
    "forest": fit_forest,
    "boosting": fit_boosting,
    "onnx": fit_onnx,
}
"""By name, what trains a model."""


def save(name: str, fitted: Fitted, folder: Path) -> None:
    """Writes a model folder."""
    sample = make_table(SAMPLE_ROWS, 0, 0).select(FEATURES).to_pandas()
    if name == "onnx":
        values_bf = pa.FixedSizeListArray.from_arrays(
            sample.to_numpy(np.float32).ravel(), len(FEATURES)
        )
        bs.save_model(folder, fitted.model, pa.table({"x": values_bf}))
    else:
        bs.save_model(folder, fitted.model, sample)


def _sklearn(model: Any) -> Fitted:
    fitted = model.fit(*training())
    return Fitted(fitted, _positive(fitted))


def _positive(model: Any) -> Callable[[Any], Any]:
    pools = ThreadpoolController()

    def predict(frame: Any) -> Any:
        with pools.limit(limits=1):
            return model.predict_proba(frame)[:, 1]

    return predict


def inputs_of(name: str) -> dict[str, Sequence[str]] | None:
    """Returns what a job says of a model's inputs: a network's have no columns of their own."""
    return {"x": FEATURES} if name == "onnx" else None
