"""Tests of a job's own function before a model that names its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from batchscore.models.features import Features
from batchscore.models.tree_features import Coded, Plain
from tests import factory
from tests.boosters import CODES, COLOURS, ROWS, write_table
from tests.models.backends.xgboost.test_jobs import (
    folder_of,
    job_of,
    own_scores,
    require_same,
    scores,
)

pytestmark = pytest.mark.slow

# The input has other names, of which each function makes those of the model.
RENAMED = {"size": "width", "colour": "paint"}
FUNCTIONS = """
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NAMES = {"width": "size", "paint": "colour"}


def arrow(batch: pa.RecordBatch):
    made = batch.rename_columns([NAMES.get(name, name) for name in batch.schema.names])
    return made.append_column("more", pa.nulls(len(made)))


def frame(rows: pd.DataFrame):
    made = rows.rename(columns=NAMES)
    # As after a merge: a null makes floats of integers.
    made["code"] = made["code"].astype("float64")
    return made.drop(columns=["id"])[sorted(made.columns.drop("id"), reverse=True)]


def near(batch: pa.RecordBatch):
    return arrow(batch).drop_columns(["colour"]).append_column("color", batch["paint"])


def texts(batch: pa.RecordBatch):
    made = arrow(batch)
    return made.set_column(made.schema.get_field_index("size"), "size", made["id"].cast("string"))


def halves(rows: pd.DataFrame):
    made = frame(rows)
    made.loc[rows["id"] % 1000 == 1, "code"] = 3.5
    return made


def encoded(batch: pa.RecordBatch):
    made = arrow(batch)
    columns = [made[name].to_numpy(zero_copy_only=False) for name in ("size", "count")]
    rows = np.stack(columns, axis=1, dtype="float32", casting="unsafe")
    rows[np.isnan(rows)] = np.nan
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 2)
    return made.append_column("features", lists)


def coded(batch: pa.RecordBatch):
    made = arrow(batch)
    places = [made["colour"], made["code"]]
    sets = [pa.array(["blue", "green", "red"]), pa.array([3, 7, 11])]
    codes = [pc.index_in(c, value_set=s) for c, s in zip(places, sets)]
    columns = [made["size"], *codes, made["count"], made["is_new"].cast("int8")]
    rows = np.stack(
        [c.to_numpy(zero_copy_only=False) for c in columns],
        axis=1, dtype="float32", casting="unsafe",
    )
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 5)
    return made.append_column("features", lists)
"""


def function_job(folder: Path, model: Path, function: str, **changes: Any) -> Path:
    """Writes a job whose input lacks names of the model, which its function makes."""
    preprocess = {"function": f"pre.py:{function}"}
    job = job_of(folder, model, preprocess=preprocess, **changes)
    rows = write_table(folder / "in/rows.parquet")
    rows = rows.rename_columns([RENAMED.get(name, name) for name in rows.schema.names])
    pq.write_table(rows, folder / "in/rows.parquet", row_group_size=1_000)
    (folder / "pre.py").write_text(FUNCTIONS)
    return job


@pytest.mark.parametrize("function", ["arrow", "frame"])
@pytest.mark.parametrize("runtime", [{"batch_rows": 70}, {"workers": 3, "model_process": "on"}])
def test_columns_of_a_function_are_encoded_by_name(
    function: str, runtime: dict[str, Any], tmp_path: Path, xgboost_models: Path
) -> None:
    """Their order and extra columns change no bit; unseen categories are counted as made."""
    job = function_job(tmp_path, xgboost_models / "binary.ubj", function, runtime=runtime)
    done = factory.run_json("run", job)
    require_same(scores(tmp_path), own_scores(xgboost_models, "binary_probability"))
    rows = pq.read_table(tmp_path / "in/rows.parquet")
    pink = rows["paint"].to_numpy() == "pink"
    found = {each["column"]: each for each in done["column_checks"]}
    assert found["colour"]["failed"] == pink.sum() > 0
    assert found["colour"]["rows"] == ROWS
    assert found["colour"]["examples"][0]["row"] == np.flatnonzero(pink)[0]
    assert found["code"]["failed"] == (rows["code"].to_numpy() == 4).sum()
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_strict_model_rejects_what_a_function_made(tmp_path: Path, xgboost_models: Path) -> None:
    """A row with a category that training lacks is rejected by the made column's name."""
    features = Features(
        {
            "features": (
                Plain(column="size"),
                Coded(column="colour", vocabulary=tuple(COLOURS), unseen="reject"),
                Coded(column="code", vocabulary=tuple(CODES)),
                Plain(column="count"),
                Plain(column="is_new"),
            )
        }
    )
    folder_of(tmp_path / "model", xgboost_models / "binary.ubj", features)
    job = function_job(tmp_path, tmp_path / "model", "arrow", rejects={"max_ratio": 1.0})
    done = factory.run_json("run", job)
    pink = pq.read_table(tmp_path / "in/rows.parquet")["paint"].to_numpy() == "pink"
    reason = "preprocess: UnseenCategory: column 'colour' has a value that training lacks"
    assert done["rejects"]["reasons"] == {reason: pink.sum()}
    assert {each["column"]: each["rows"] for each in done["column_checks"]} == {
        "code": ROWS - pink.sum()
    }
    require_same(scores(tmp_path), own_scores(xgboost_models, "binary_probability")[~pink])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("near", "returned no column 'colour', which the model reads; nearest: 'color'"),
        ("texts", "column 'size' has type string, expected a number or boolean for a plain"),
    ],
)
def test_columns_that_do_not_fit_are_named_at_the_first_batch(
    function: str, message: str, tmp_path: Path, xgboost_models: Path
) -> None:
    """check says so of a sample, and a run ends with the same words and publishes nothing."""
    job = function_job(tmp_path, xgboost_models / "binary.ubj", function)
    for command in ("check", "run"):
        done = factory.run_cli(command, job)
        assert done.exit_code == 1, done.output
        said = " ".join(done.output.split())
        assert message in said
        assert "preprocess.function" in said
    assert not (tmp_path / "out/data").exists()


def test_a_row_whose_category_is_no_integer_is_rejected(
    tmp_path: Path, xgboost_models: Path
) -> None:
    """It is rejected alone; all others have their scores."""
    job = function_job(
        tmp_path, xgboost_models / "binary.ubj", "halves", rejects={"max_ratio": 1.0}
    )
    done = factory.run_json("run", job)
    assert done["rows"]["rejected"] == ROWS // 1000
    kept = np.arange(ROWS) % 1000 != 1
    require_same(scores(tmp_path), own_scores(xgboost_models, "binary_probability")[kept])


def test_a_function_may_make_the_input_itself(tmp_path: Path, xgboost_models: Path) -> None:
    """A list column of the input's name is taken as it is, next to any other columns."""
    plain = [Plain(column=name, missing=-999.0) for name in ("size", "count")]
    folder_of(
        tmp_path / "model", xgboost_models / "unnamed.ubj", Features({"features": tuple(plain)})
    )
    factory.run_json("run", function_job(tmp_path, tmp_path / "model", "encoded"))
    require_same(scores(tmp_path), own_scores(xgboost_models, "unnamed_value"))
    job = function_job(tmp_path / "coded", xgboost_models / "binary.ubj", "coded")
    assert not factory.run_json("run", job)["column_checks"]
    require_same(scores(tmp_path / "coded"), own_scores(xgboost_models, "binary_probability"))
