"""What columns contributed to the score of a linear model.

The contribution of a column is the sum over its features of coefficient * (value - mean). The mean
is that of the sample that `save_model` was given. If columns are independent, these are Shapley
values (Štrumbelj and Kononenko 2014; `LinearExplainer` of the package shap). The base is the raw
score of the means.

Suffixes: `_f` features, `_g` raw scores, `_gf` these by features, `_gc` by columns, `_gfc` by both,
`_bc` rows by columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.sklearn.feature_sources import made_of

_LINEAR = (
    *("LinearDiscriminantAnalysis", "LinearSVC", "LogisticRegression", "LogisticRegressionCV"),
    *("PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV"),
    *("SGDClassifier", "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV"),
    *("GammaRegressor", "HuberRegressor", "Lars", "LarsCV", "Lasso", "LassoCV", "LassoLars"),
    *("LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet"),
    *("MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"),
    *("OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PassiveAggressiveRegressor"),
    *("PoissonRegressor", "QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor"),
    *("TheilSenRegressor", "TweedieRegressor"),
)
_RAW = ("decision_function", "_linear_predictor", "predict")
"""What returns raw scores; the first that a model has."""


@dataclass(frozen=True)
class LinearParts:
    """A pipeline that ends with a linear model, taken apart.

    Args:
        steps: Transformers before it.
        model: It.
        weights_gfc: For each raw score a sparse matrix (features, columns and one for the base).
        intercept_g: The intercept of each raw score.
    """

    steps: tuple[Any, ...]
    model: Any
    weights_gfc: tuple[Any, ...]
    intercept_g: Array

    def features(self, rows: Any) -> Any:
        """Returns what the linear model gets of rows: an array, or a sparse matrix."""
        for each in self.steps:
            rows = each.transform(rows)
        return rows.tocsr() if sparse.issparse(rows) else np.asarray(rows, np.float64)

    def raw(self, features: Any) -> Array:
        """Returns the raw scores (b, g), by the model's own method."""
        name = next(each for each in _RAW if hasattr(self.model, each))
        return np.asarray(getattr(self.model, name)(features), np.float64).reshape(
            features.shape[0], -1
        )

    def by_column(self, features: Any, group: int) -> Array:
        """Returns the part of each column in a raw score, and the intercept as the last one."""
        made = features @ self.weights_gfc[group]
        part_bc = made.toarray() if sparse.issparse(made) else np.asarray(made)
        part_bc[:, -1] += self.intercept_g[group]
        return np.asarray(part_bc)

    def means(self, rows: Any) -> Array:
        """Returns the mean part (g, c) of each column in each raw score, without the base."""
        mean_f = np.asarray(self.features(rows).mean(axis=0), np.float64).reshape(1, -1)
        groups = range(len(self.weights_gfc))
        return np.concatenate([self.by_column(mean_f, group)[:, :-1] for group in groups])


def take_apart(estimators: Sequence[Any], columns: Sequence[str]) -> LinearParts:
    """Returns the parts of a linear model.

    Args:
        estimators: What is called one after the other.
        columns: Columns of training, in order.

    Raises:
        ModelError: Its scores are not explained.
    """
    *steps, model = _flat(estimators)
    _require_linear(model)
    weight_gf = np.atleast_2d(np.asarray(model.coef_, np.float64))
    if len(weight_gf) > 1 and not hasattr(model, "classes_"):
        raise ModelError(
            f"explain: the model has {len(weight_gf)} targets, and reasons are of one score; score "
            "each with a model of its own, or leave explain out"
        )
    sources: Sequence[str | None] = columns
    for each in steps:
        sources = made_of(each, sources)
    if weight_gf.shape[1] != len(sources):
        raise ModelError(
            f"explain: the model has {weight_gf.shape[1]} coefficients, and its columns make "
            f"{len(sources)} features; leave explain out"
        )
    intercept_g = np.broadcast_to(np.asarray(model.intercept_, np.float64), len(weight_gf))
    return LinearParts(tuple(steps), model, _weights(weight_gf, sources, columns), intercept_g)


def known_means(mean_gc: Array | None, parts: LinearParts) -> Array:
    """Returns the means that the model's file has.

    Raises:
        ModelError: It has none, or those of another model.
    """
    if mean_gc is None:
        raise ModelError(
            "explain: the file does not hold the means of training, which a row is compared with; "
            "save it again with rows of its training: batchscore model save FILE -o DIR --sample "
            "PARQUET, or bs.save_model(…, sample=…)"
        )
    if len(mean_gc) != len(parts.weights_gfc):
        raise ModelError(
            f"explain: the file has means of {len(mean_gc)} scores, and the model makes "
            f"{len(parts.weights_gfc)}; save the model again"
        )
    return mean_gc


def _flat(estimators: Sequence[Any]) -> list[Any]:
    """Returns the steps of pipelines within pipelines."""
    found: list[Any] = []
    for each in estimators:
        name = type(each).__name__
        if name == "Pipeline":
            found += _flat([step for _, step in each.steps])
        elif name == "FrozenEstimator":
            found += _flat([each.estimator])
        elif each not in (None, "passthrough"):
            found.append(each)
    return found


def _require_linear(model: Any) -> None:
    name = type(model).__name__
    if name not in _LINEAR:
        raise ModelError(
            f"explain: scikit-learn does not tell what each column contributed to a score of "
            f"{name}; expected a linear model, such as LogisticRegression or Ridge. Train one, or "
            "trees of XGBoost, LightGBM or CatBoost, which are explained; or leave explain out"
        )


def _weights(weight_gf: Array, sources: Sequence[Any], columns: Sequence[str]) -> tuple[Any, ...]:
    place = {name: number for number, name in enumerate(columns)}
    places_f = [place.get(each, len(columns)) for each in sources]
    shape = len(sources), len(columns) + 1
    return tuple(
        sparse.csr_array((weight_f, (np.arange(len(sources)), places_f)), shape)
        for weight_f in weight_gf
    )
