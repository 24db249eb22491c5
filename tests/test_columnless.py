"""Tests of jobs that read no column of a file: each row is counted and scored all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.columnar.arrays import make_batch
from batchscore.stages.block import decode_block, encode_block
from tests import factory

pytestmark = pytest.mark.slow

ARROW = """import numpy as np, pyarrow as pa
def make(batch):
    ones = np.ones(batch.num_rows, np.float32)
    return pa.record_batch({"a": ones, "b": ones})
"""
PANDAS = """import pandas as pd
def make(frame: pd.DataFrame):
    return pd.DataFrame({"a": 1.0, "b": 1.0}, index=frame.index)
"""
FAILS = """import numpy as np, pyarrow as pa
def make(batch):
    if batch.num_rows > 3:
        raise ValueError("too many at once")
    ones = np.ones(batch.num_rows, np.float32)
    return pa.record_batch({"a": ones, "b": ones})
"""


def columnless_job(folder: Path, code: str, **changes: Any) -> Path:
    """Write a job over ten rows in three row groups whose function needs no column."""
    shard = folder / "rows/day=7/0.parquet"
    shard.parent.mkdir(parents=True)
    pq.write_table(factory.make_rows(10), shard, row_group_size=4)
    (folder / "steps.py").write_text(code)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    wanted = {
        "input.path": "rows",
        "preprocess": {"function": "steps.py:make", "columns": []},
        "output.columns": [],
        "runtime.batch_rows": 3,
    }
    return factory.write_job(folder, {**wanted, **dotted})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output__partition_by": ["day"]},
        {"output__columns": ["day"]},
        {"input__filters": [["day", "==", 7]]},
    ],
    ids=["none", "partitioned", "key", "filtered"],
)
def test_rows_of_no_column_are_scored(tmp_path: Path, changes: dict[str, Any]) -> None:
    """All ten rows have a score, whether nothing or hive keys alone are read."""
    job = columnless_job(tmp_path, ARROW, **changes)
    assert factory.run_cli("check", job).exit_code == 0
    assert factory.run_json("run", job)["rows"]["scored"] == 10
    found = pa.concat_tables([pq.read_table(f) for f in (tmp_path / "out/data").rglob("*.parquet")])
    assert found["score"].to_pylist() == [found["score"][0].as_py()] * 10
    done = factory.run_cli("verify", tmp_path / "out")
    assert (done.exit_code, "10 rows" in done.output) == (0, True)
    assert "UNCHANGED" in factory.run_cli("run", job).output


@pytest.mark.parametrize("code", [PANDAS, FAILS], ids=["pandas", "halved"])
def test_a_function_is_given_as_many_rows(tmp_path: Path, code: str) -> None:
    """A frame has an index for each row, and a block that fails is halved to its rows."""
    job = columnless_job(tmp_path, code, runtime__batch_rows=10)
    assert factory.run_json("run", job)["rows"]["scored"] == 10


def test_a_filter_that_excludes_all_leaves_none(tmp_path: Path) -> None:
    """Rows are counted as filtered where their key alone excludes them."""
    job = columnless_job(tmp_path, ARROW, input__filters=[["day", "==", 8]])
    assert factory.run_json("run", job)["rows"]["filtered"] == 10


def test_a_file_without_columns(tmp_path: Path) -> None:
    """A file that has rows of no column is read as pyarrow reads it: it has no rows."""
    path = tmp_path / "0.parquet"
    pq.write_table(factory.make_rows(10).select([]), path)
    assert pq.read_table(path).num_rows == 0
    assert bs.profile(str(path)).rows == 0


def test_a_profile_of_no_column_counts_nothing(tmp_path: Path) -> None:
    """Profiles count rows by their columns; without one there is no error either."""
    path = factory.write_shard(tmp_path / "0.parquet")
    assert bs.profile(str(path), columns=[]).rows == 0
    assert bs.profile(str(path), columns=["a"]).rows == 300


def test_batches_without_columns_keep_their_rows() -> None:
    """Coders, slices and filters keep the count."""
    batch = make_batch([], pa.schema([]), 5)
    assert batch.num_rows == 5
    block = decode_block(encode_block(factory.make_block(batch)))
    assert len(block) == 5
    assert block.batch.slice(1, 3).num_rows == 3
    assert block.batch.filter(pa.array([True, False, True, True, False])).num_rows == 3
    assert pa.concat_batches([batch, batch]).num_rows == 10
