"""Linear models called for many rows at once, whose products still see tiles alone.

A product of a matrix may have other bits in a call of another number of rows. scikit-learn's checks
of a call take longer than the product of a tile. So the model is called once for many rows, and its
coefficients cut these into tiles themselves.

Suffixes: `_bf` rows by features.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from batchscore.models.backends.facts import TILE_ROWS

_LINEAR = frozenset(
    (
        *("LogisticRegression", "LogisticRegressionCV", "RidgeClassifier", "RidgeClassifierCV"),
        *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet"),
        *("ElasticNetCV", "LinearSVC", "LinearSVR"),
    )
)
"""What does nothing across rows but the one product of rows by `coef_`."""


class _Coefficients(np.ndarray[Any, Any]):
    """Coefficients by which rows are multiplied a tile at a time."""

    def __rmatmul__(self, rows_bf: Any, /) -> Any:
        """Returns the product of rows and coefficients; the last tile is filled up."""
        own, count = self.view(np.ndarray), len(rows_bf)
        made = np.empty((count, *own.shape[1:]), np.result_type(rows_bf, own))
        for start in range(0, count, TILE_ROWS):
            part = slice(start, start + TILE_ROWS)
            made[part] = (cut_tile(rows_bf, start, TILE_ROWS) @ own)[: count - start]
        return made


def with_tiled_products(estimator: Any) -> Any | None:
    """Returns a model that may be called for any number of rows; None if it is not linear."""
    if type(estimator).__name__ not in _LINEAR or type(estimator.coef_) is not np.ndarray:
        return None
    # What it explains, and what is saved of it, is the model's own.
    made = copy.copy(estimator)
    made.coef_ = estimator.coef_.view(_Coefficients)
    return made


def cut_tile(rows: Any, start: int, size: int) -> Any:
    """Returns the rows of a tile, which is filled up with the last row."""
    count = rows.shape[0]
    if start + size <= count and isinstance(rows, np.ndarray):
        return np.array(rows[start : start + size], order="C")
    places = np.minimum(np.arange(start, start + size), count - 1)
    if hasattr(rows, "iloc"):
        return rows.iloc[places]
    found = rows[places]
    return np.ascontiguousarray(found) if isinstance(found, np.ndarray) else found
