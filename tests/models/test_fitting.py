"""Preprocessing that is fitted to training rows, as `bs.fit_features` takes and returns it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import batchscore as bs
from batchscore.models.features import dump_features, load_features

ROWS: dict[str, Any] = {
    "age": np.array([20.0, 30.0, 40.0]),
    "plan": ["free", "paid", "free"],
    "at": [datetime(2026, 1, 5, hour) for hour in (0, 6, 12)],
}


@pytest.mark.parametrize(
    "table", [ROWS, pa.table(ROWS), pd.DataFrame(ROWS)], ids=["dict", "arrow", "pandas"]
)
def test_features_are_fitted_by_type_or_as_asked(table: Any) -> None:
    """A name alone means a number or a category; tables of all kinds give the same inputs."""
    plan: dict[str, Any] = {"x": ["age", bs.DatePart("at", "hour")], "c": ["plan"]}
    features = bs.fit_features(table, plan)
    encoded = features.encode(table)
    deviation = np.std(np.clip(ROWS["age"], 20.02, 39.98))
    assert encoded["x"][:, 0] == pytest.approx([-9.98 / deviation, 0, 9.98 / deviation])
    assert encoded["x"][:, 1:] == pytest.approx(np.array([[0, 1], [1, 0], [0, -1]]), abs=1e-6)
    assert encoded["c"].tolist() == [[2], [3], [2]]
    assert (features.widths, features.vocabulary_sizes) == ({"x": 3, "c": 1}, {"plan": 4})
    assert features.columns == ("age", "at", "plan")
    assert load_features(dump_features(features)) == features


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "an unknown column": ({"x": ["agee"]}, bs.InvalidError, "nearest: 'age'"),
    "a date without a part": ({"x": ["at"]}, bs.InvalidError, r"give a part of it, such as"),
    "an unknown part": ({"x": [bs.DatePart("at", "our")]}, bs.InvalidError, "'hour' or 'minute'"),  # type: ignore[arg-type]
    "a text as a number": ({"x": [bs.Number("plan")]}, bs.InvalidError, "expected a number"),
    "two kinds in one": ({"x": ["age", "plan"]}, bs.InvalidError, "an input of their own"),
    "no encoding": (
        {"x": [3]},
        bs.InvalidError,
        r"inputs\['x'\]\[0\]: expected a text or a ",
    ),
    "no quantiles": (
        {"x": [bs.Number("age", (0.9, 0.1))]},
        bs.InvalidError,
        "a lower and a high",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_fitted_is_refused(name: str) -> None:
    """The message names the column, and what would do."""
    plan, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        bs.fit_features(ROWS, plan)


@pytest.mark.parametrize("name", ["max_size", "min_count"])
def test_a_category_keeps_one_value_at_least(name: str) -> None:
    """Python would count a negative size from the end, and leave out the rarest values."""
    with pytest.raises(bs.InvalidError, match=f"Category of 'plan': {name} is -1; expected 1 or"):
        bs.Category("plan", **{name: -1})
