"""What is called of an estimator, and what of its classes a score is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.backends.sklearn.allowed_types import Role

_METHODS: Mapping[Role, Mapping[str, tuple[str, ...]]] = {
    "classifier": {
        "probability": ("predict_proba",),
        "raw": ("decision_function",),
        "class": ("predict",),
    },
    "regressor": {"value": ("predict",)},
    "outliers": {
        "value": ("score_samples", "decision_function"),
        "raw": ("decision_function",),
        "class": ("predict",),
    },
    "clusters": {"class": ("predict",), "probability": ("predict_proba",)},
}
"""By what an estimator is for, what it may return, and the methods; the first by default."""

Results = Mapping[str, tuple[str, tuple[int, ...]]]
"""By what is returned: NumPy type, and shape of a row."""


@dataclass(frozen=True)
class EstimatorCall:
    """What is called.

    Args:
        role: What the estimator is for.
        returns: `probability`, `raw`, `class` or `value`.
        positive: The place of the class whose probability is returned, if there are two.
        kind: NumPy type of the result.
        shape: Shape of a row of it.
    """

    role: Role
    returns: str
    positive: int
    kind: str
    shape: tuple[int, ...]

    @property
    def is_of_class(self) -> bool:
        """Whether it is the probability of one of two classes."""
        return self.role == "classifier" and self.returns == "probability" and not self.shape

    def said(self, labels: Sequence[Any] | None) -> str:
        """What is called, in words."""
        if not self.is_of_class:
            return self.returns
        return f"probability of class {labels[self.positive] if labels else self.positive}"


def settle_results(given: Mapping[str, Any], role: Role, results: Results) -> EstimatorCall:
    """Returns what a card's `call` comes to.

    Raises:
        ModelError: The estimator has no such result.
    """
    returns = given.get("returns", next(iter(results)))
    if returns not in results:
        raise ModelError(
            f"call.returns: {returns!r}, and the estimator returns {' or '.join(results)}; correct "
            "the card's call"
        )
    kind, shape = results[returns]
    call = EstimatorCall(role, returns, given.get("positive", 1), kind, shape)
    if "iterations" in given:
        raise ModelError("call.iterations: only for boosted trees; leave it out")
    if "positive" in given and not call.is_of_class:
        raise ModelError(
            f"call.positive: only for the probability of one of two classes, and the estimator "
            f"returns {returns}; leave it out"
        )
    return call


def usual_results(role: Role, classes: int) -> Results:
    """Returns what an estimator probably returns, for a file that does not say it."""
    wide = () if classes <= 2 else (classes,)
    if role == "classifier":
        return {"probability": ("float64", wide), "raw": ("float64", wide), "class": ("int64", ())}
    if role == "outliers":
        return {"value": ("float64", ()), "raw": ("float64", ()), "class": ("int64", ())}
    return {"class": ("int64", ())} if role == "clusters" else {"value": ("float64", ())}


def found_results(estimator: Any, role: Role, rows: Any) -> dict[str, Any]:
    """Returns what an estimator returns, by calling it for some rows."""
    found = {}
    for returns in _METHODS.get(role, {}):
        method = _method(estimator, role, returns)
        if method is not None:
            made = shaped(method(rows), EstimatorCall(role, returns, 1, "", ()), estimator)
            found[returns] = (str(made.dtype), made.shape[1:])
    return found


def call_estimator(estimator: Any, call: EstimatorCall, rows: Any) -> Array:
    """Returns the results of rows."""
    method = _method(estimator, call.role, call.returns)
    if method is None:
        raise ModelError(
            f"{type(estimator).__name__} has no {call.returns}; give the card another call, such "
            "as {returns: class}"
        )
    return shaped(method(rows), call, estimator).astype(call.kind, copy=False)


def _method(estimator: Any, role: Role, returns: str) -> Any:
    names = _METHODS.get(role, {}).get(returns, ())
    return next((getattr(estimator, name) for name in names if hasattr(estimator, name)), None)


def shaped(made: Any, call: EstimatorCall, estimator: Any) -> Array:
    """Returns what a method returned as numbers: a class as its label, or its place among them.

    Raises:
        ModelError: It is no array, since each row has several targets.
    """
    if isinstance(made, list) or hasattr(made, "toarray"):
        raise ModelError(
            "a classifier of several targets is not scored; save one model for each target"
        )
    found = np.asarray(made)
    if call.returns == "probability" and found.ndim == 2 and found.shape[1] == 2:
        found = found[:, call.positive] if call.role == "classifier" else found
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dtype.kind in "OUS":
        labels = [*estimator.classes_]
        places = {label: place for place, label in enumerate(labels)}
        return np.array([places[each] for each in found.ravel()], np.int64).reshape(found.shape)
    return found.astype(np.int64 if found.dtype.kind in "biu" else np.float64)
