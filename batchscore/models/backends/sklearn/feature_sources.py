"""Of which column each feature is that a fitted transformer makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batchscore.errors import ModelError

Sources = Sequence[str | None]
"""The column of each feature; None for one that is the same in all rows."""

_EACH_ALONE = (
    *("Binarizer", "FunctionTransformer", "MaxAbsScaler", "MinMaxScaler", "OrdinalEncoder"),
    *("PowerTransformer", "QuantileTransformer", "RobustScaler", "StandardScaler"),
)
_SELECTORS = (
    *("GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel"),
    *("SelectFwe", "SelectKBest", "SelectPercentile", "SequentialFeatureSelector"),
    "VarianceThreshold",
)


def made_of(step: Any, given: Sources) -> list[str | None]:
    """Returns the column of each feature that a transformer makes of features of known columns.

    Raises:
        ModelError: It makes a feature of several columns.
    """
    if step is None or isinstance(step, str):
        return [] if step == "drop" else [*given]
    name = type(step).__name__
    if name in _EACH_ALONE:
        return [*given]
    if name in _SELECTORS:
        return [given[place] for place in step.get_support(indices=True)]
    if name in _OWN_WAYS:
        return _OWN_WAYS[name](step, given)
    return [_only(name, given)] * len(step.get_feature_names_out())


def _only(name: str, given: Sources) -> str | None:
    """Returns the one column that features are of."""
    columns = [*dict.fromkeys(each for each in given if each is not None)]
    if len(columns) > 1:
        raise ModelError(
            f"explain: {name} makes one number of several columns ({', '.join(columns[:3])}"
            f"{', …' if len(columns) > 3 else ''}), so no column has a contribution of its own; "
            "train a pipeline whose steps treat each column alone, or leave explain out"
        )
    return columns[0] if columns else None


def _in_order(step: Any, given: Sources) -> list[str | None]:
    for _, each in step.steps:
        given = made_of(each, given)
    return [*given]


def _of_columns(step: Any, given: Sources) -> list[str | None]:
    found: list[str | None] = []
    for name, each, _ in step.transformers_:
        places = step._transformer_to_input_indices.get(name, ())
        # What gets no column was not fitted.
        found += made_of(each, [given[place] for place in places]) if len(places) else []
    return found


def _side_by_side(step: Any, given: Sources) -> list[str | None]:
    return [source for _, each in step.transformer_list for source in made_of(each, given)]


def _imputed(step: Any, given: Sources) -> list[str | None]:
    """Leaves out columns that held nothing in training, and adds what says which were missing."""
    found = [
        source
        for source, value in zip(given, step.statistics_, strict=True)
        if step.keep_empty_features or value == value
    ]
    return found + (_missing(step.indicator_, given) if step.indicator_ is not None else [])


def _missing(step: Any, given: Sources) -> list[str | None]:
    return [given[place] for place in step.features_]


def _repeated(given: Sources, counts: Sequence[int]) -> list[str | None]:
    return [each for each, n in zip(given, counts, strict=True) for _ in range(n)]


def _binned(step: Any, given: Sources) -> list[str | None]:
    return [*given] if step.encode == "ordinal" else _repeated(given, step.n_bins_)


def _powers(step: Any, given: Sources) -> list[str | None]:
    return [
        _only("PolynomialFeatures", [given[place] for place in np.flatnonzero(powers).tolist()])
        for powers in step.powers_
    ]


def _evenly(given: Sources, count: int) -> list[str | None]:
    return _repeated(given, [count // len(given)] * len(given))


_OWN_WAYS: Mapping[str, Callable[[Any, Sources], list[str | None]]] = {
    "ColumnTransformer": _of_columns,
    "CountVectorizer": lambda step, given: [given[0]] * len(step.vocabulary_),
    "FeatureUnion": _side_by_side,
    "FrozenEstimator": lambda step, given: made_of(step.estimator, given),
    "HashingVectorizer": lambda step, given: [given[0]] * step.n_features,
    "KBinsDiscretizer": _binned,
    "MissingIndicator": _missing,
    "OneHotEncoder": lambda step, given: _repeated(given, step._n_features_outs),
    "Pipeline": _in_order,
    "PolynomialFeatures": _powers,
    "SimpleImputer": _imputed,
    "SplineTransformer": lambda step, given: _evenly(given, step.n_features_out_),
    "TargetEncoder": lambda step, given: _evenly(given, len(step.encodings_)),
    "TfidfVectorizer": lambda step, given: [given[0]] * len(step.vocabulary_),
}
