"""Tests of frames of pandas and Polars at training: nightly rows get scikit-learn's own scores."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

import batchscore as bs
from batchscore.columnar.arrays import Array, to_numpy
from batchscore.columnar.tables import as_batch
from batchscore.models.backends.registry import backend_of
from batchscore.models.features import encode
from batchscore.models.folder import read_model_folder

ROWS = 200
GAP = slice(None, None, 7)


def values(of: list[Any], gap: Any, seed: int) -> Any:
    """Returns values in any order, with gaps; as a series of Python's own objects."""
    found = np.empty(ROWS, object)
    found[:] = [of[place] for place in np.random.default_rng(seed).integers(0, len(of), ROWS)]
    found[GAP] = gap
    return pd.Series(found, dtype=object)


def of_pandas() -> pd.DataFrame:
    """Returns a column of each type that a frame of people may have, with gaps."""
    text = ["a", "b", "c"]
    return pd.DataFrame(
        {
            "flag": values([True, False], pd.NA, 1).astype("boolean"),
            "flag_or_none": values([True, False], None, 2),
            "count": values([1, 2, 3], pd.NA, 3).astype("Int64"),
            "count_or_none": values([1, 2, 3], None, 4),
            "count_or_nan": values([1, 2, 3], np.nan, 5).astype("float64"),
            "fraction": values([0.5, 1.5], pd.NA, 6).astype("Float32"),
            "half": np.random.default_rng(7).integers(0, 5, ROWS).astype(np.float16),
            "text_or_none": values(text, None, 8),
            "text_or_nan": values(text, np.nan, 9),
            "text": values(text, None, 10).astype("str"),
            "category": values(text, None, 11).astype("category"),
            "number_category": values([3, 5, 4], None, 12).astype("category"),
        }
    )


def of_polars() -> pl.DataFrame:
    """Returns such a frame of Polars, in which each gap is None."""
    text = values(["a", "b", "c"], None, 1).tolist()
    return pl.DataFrame(
        {
            "flag": values([True, False], None, 2).tolist(),
            "count": values([1, 2, 3], None, 3).tolist(),
            "text": text,
            "category": pl.Series(text, dtype=pl.Categorical),
            "listed": pl.Series(text, dtype=pl.Enum(["c", "b", "a", "d"])),
        }
    )


def steps(name: str) -> Any:
    """Returns what makes numbers of all columns alike."""
    one_hot = OneHotEncoder(handle_unknown="ignore")
    return {
        "one_hot": one_hot,
        "filled": make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot),
        "filled_na": make_pipeline(
            SimpleImputer(strategy="most_frequent", missing_values=pd.NA), one_hot
        ),
        "places": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    }[name]


def fitted(step: Any, frame: Any) -> Any:
    """Returns a forest behind an encoder of each column alone; its classes are noise."""
    each = [(step, [name]) for name in frame.columns]
    model = make_pipeline(
        make_column_transformer(*each, sparse_threshold=0), RandomForestClassifier(5)
    )
    return model.fit(frame, np.random.default_rng(9).random(ROWS) > 0.5)


def scored(folder: Path, rows: pa.Table) -> Array:
    """Returns what a model folder makes of rows that were read from Parquet."""
    model = read_model_folder(str(folder))
    assert model.features is not None
    inputs = encode(model.features, as_batch(rows, "rows"))
    predictor = backend_of("sklearn").load(model, "cpu")
    return np.asarray(predictor({k: to_numpy(v) for k, v in inputs.items()})["score"])


@pytest.mark.parametrize("name", ["one_hot", "filled", "places"])
def test_rows_have_the_types_of_pandas_own_frame(name: str, tmp_path: Path) -> None:
    """Extension types, objects with None, and categories score as the training's frame does."""
    frame = of_pandas()
    model = fitted(steps(name), frame)
    bs.save_model(tmp_path / "model", model, frame)
    rows = pa.Table.from_pandas(frame).replace_schema_metadata(None)
    found = scored(tmp_path / "model", rows)
    assert found.tobytes() == model.predict_proba(frame)[:, 1].tobytes()


def test_an_imputer_may_look_for_pandas_own_gap(tmp_path: Path) -> None:
    """Encoders take no `string` with gaps, so `missing_values=pd.NA` is how people fill them."""
    frame = of_pandas()[["text"]].astype("string")
    model = fitted(steps("filled_na"), frame)
    bs.save_model(tmp_path / "model", model, frame)
    found = scored(tmp_path / "model", pa.Table.from_pandas(frame))
    assert found.tobytes() == model.predict_proba(frame)[:, 1].tobytes()


@pytest.mark.parametrize("name", ["one_hot", "filled"])
@pytest.mark.parametrize("as_arrow", [False, True])
def test_a_frame_of_polars_has_none_for_each_gap(name: str, as_arrow: bool, tmp_path: Path) -> None:
    """Also in its categories, where pandas has NaN; Arrow's table of it is a sample as well."""
    frame = of_polars()
    model = fitted(steps(name), frame)
    bs.save_model(tmp_path / "model", model, frame.to_arrow() if as_arrow else frame)
    found = scored(tmp_path / "model", frame.to_arrow())
    assert found.tobytes() == model.predict_proba(frame)[:, 1].tobytes()


def test_decimals_are_the_floats_that_pandas_makes(tmp_path: Path) -> None:
    """Arrow's own cast is off by a bit for one in five, which takes the other side of a split."""
    cents = np.random.default_rng(1).integers(-(10**6), 10**6, 2_000).tolist()
    amount = [Decimal(each).scaleb(-2) for each in cents]
    frame = pd.DataFrame({"amount": pd.Series(amount, dtype=object)})
    model = HistGradientBoostingClassifier(max_iter=20)
    model.fit(frame, np.random.default_rng(2).random(len(frame)) > 0.5)
    bs.save_model(tmp_path / "model", model, frame)
    rows = pa.table({"amount": pa.array(amount, pa.decimal128(20, 2))})
    found = scored(tmp_path / "model", rows)
    assert found.tobytes() == model.predict_proba(frame)[:, 1].tobytes()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([1.5, 2.5], dtype="category"), "categories of type float; expected texts"),
        (pd.Series([True, False], dtype="category"), "categories of type bool; expected texts"),
        ([2**53 + 1, 2**53 + 3], r"whole numbers beyond 2\*\*53, such as 9007199254740993"),
        ([1.5, 2.5], "float64, and an encoder of it refuses others; .* handle_unknown"),
        ([1.0, np.nan], "float64, and an encoder of it refuses others; .* handle_unknown"),
    ],
)
def test_categories_of_other_types_are_refused(column: Any, message: str, tmp_path: Path) -> None:
    """The message names the column, what it holds, and how to train instead."""
    frame = pd.DataFrame({"kind": column})
    model = make_pipeline(OneHotEncoder(), RandomForestClassifier(2)).fit(frame, [0, 1])
    with pytest.raises(bs.InvalidError, match=f"sample: column 'kind' .*{message}"):
        bs.save_model(tmp_path / "model", model, frame)
