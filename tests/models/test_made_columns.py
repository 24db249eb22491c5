"""Tests of columns that a job's function made, as a model's features read them."""

from __future__ import annotations

import math

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_numpy
from batchscore.errors import StepError
from batchscore.models.features import Calendar, Categorical, Features, Numeric, encode
from batchscore.models.made_columns import counted_columns, select_made
from batchscore.models.tree_features import Coded, Plain

CODES = (3, 7, -(2**53) + 1)
FEATURES = Features(
    {
        "x": (Coded(column="code", vocabulary=CODES), Plain(column="size")),
        "i": (Categorical(column="kind", vocabulary=(1, 2)),),
        "c": (
            Calendar(column="month", part="month"),
            Numeric(column="size", impute=0, mean=0, std=1),
        ),
    }
)


@given(st.lists(st.none() | st.sampled_from([*CODES, 4]), min_size=1, max_size=9))
def test_floats_of_pandas_score_as_the_integers_that_they_were(
    codes: list[int | None],
) -> None:
    """pandas makes floats of integers next to a null; the model's inputs stay the same bits."""
    plain = pa.record_batch(
        {
            "code": pa.array(codes, pa.int64()),
            "kind": pa.array([1] * len(codes)),
            "month": pa.array(range(1, len(codes) + 1)),
            "size": pa.array([0.5] * len(codes)),
        }
    )
    frame = plain.to_pandas().astype({"code": "float64", "kind": "float64", "month": "float64"})
    made = pa.RecordBatch.from_pandas(frame[["size", "month", "code", "kind"]])
    expected, found = (encode(FEATURES, select_made(FEATURES, each)) for each in (plain, made))
    for name, column in expected.items():
        assert to_numpy(column).tobytes() == to_numpy(found[name]).tobytes()


@pytest.mark.parametrize("value", [3.5, math.inf, 2.0**53])
def test_floats_that_are_no_integers_stay_floats(value: float) -> None:
    """Then the type is refused, and no value is rounded."""
    frame = pd.DataFrame({"code": [value], "kind": [1], "month": [1], "size": [1.0]})
    made = select_made(FEATURES, pa.RecordBatch.from_pandas(frame))
    assert made.schema.field("code").type == pa.float64()


def test_a_missing_column_is_named_with_the_nearest() -> None:
    """The message says which inputs may be returned in its place."""
    with pytest.raises(
        StepError, match=r"no column 'code'.*nearest: 'codes'.*'x', 'i', 'c' itself"
    ):
        select_made(FEATURES, pa.record_batch({"codes": pa.array([1])}))


def test_only_categories_that_may_be_unseen_are_counted() -> None:
    """A boolean is none, as in the input; without one there is nothing to count."""
    one = {"code": pa.array([1]), "kind": pa.array([1]), "size": pa.array([1.0])}
    counted = counted_columns(FEATURES, pa.record_batch(one))
    assert counted is not None
    assert counted.schema.names == ["code"]
    assert counted_columns(FEATURES, pa.record_batch({**one, "code": pa.array([True])})) is None
