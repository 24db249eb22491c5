"""What is tried before any work refuses no job that can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factory import make_rows, published, run_json, write_job, write_shard

# The text is null wherever the score is below a bound, which all rows of the late shard are.
CODE = """import pyarrow as pa

def score(batch):
    values = batch.column(0).to_pylist()
    notes = pa.array([None if value < 2 else 'high' for value in values])
    return pa.record_batch({'part': batch.column(0), 'note': notes})
"""


@pytest.mark.slow
def test_names_of_scores_are_those_that_a_function_makes(tmp_path: Path) -> None:
    """A score may have the name of a column that only a check reads.

    Where a score's type comes from what is published, other published columns are no scores.
    """
    (tmp_path / "post.py").write_text(CODE)
    changes = {"output.columns": ["id"], "checks.not_null": ["part"]}
    job = write_job(tmp_path, {**changes, "postprocess": {"function": "post.py:score"}})
    high = make_rows(1)
    write_shard(tmp_path / "in/0.parquet", high.set_column(1, "a", [[100.0]]))
    assert run_json("run", job)["status"] == "published"
    write_shard(tmp_path / "in/2.parquet", make_rows(50, 900))
    assert run_json("run", job)["status"] == "published"
    assert published(tmp_path / "out")["note"].drop_null().to_pylist() == ["high"]
