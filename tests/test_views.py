"""Functions may return types that Arrow has few kernels for, as the views that Polars makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from batchscore.columnar.arrays import filter_rows, take_rows
from tests import factory
from tests.factory import change_job, make_rows, write_shard

VIEWS = pa.string_view()
COLUMNS = {
    "text": pa.array(["a", None, "a longer text than a view holds", "d"], VIEWS),
    "binary": pa.array([b"a", None, b"c", b"d"], pa.binary_view()),
    "list": pa.array([["a"], None, [], ["c", None]], pa.large_list(VIEWS)),
    "struct": pa.array([{"x": "a"}, None, {"x": None}, {"x": "d"}], pa.struct([("x", VIEWS)])),
    "number": pa.array([1, 2, None, 4]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("places", [[3, 0, 1, 1], [1, 2, 3], [2], []])
def test_rows_of_each_type_are_taken_by_place(name: str, places: list[int]) -> None:
    """Rows come in the order asked for, with their type."""
    batch = pa.record_batch([COLUMNS[name]], names=["x"])
    values = COLUMNS[name].to_pylist()
    taken = take_rows(batch, pa.array(places, pa.int64()))
    kept = filter_rows(batch, pa.array(np.isin(np.arange(4), places)))
    assert taken.schema == kept.schema == batch.schema
    assert taken.column("x").to_pylist() == [values[place] for place in places]
    assert kept.column("x").to_pylist() == [values[place] for place in sorted({*places})]


CODE = """import pyarrow as pa

VIEWS = pa.string_view()

def before(batch):
    return batch.append_column("view", batch.column("part").cast(VIEWS))

def after(batch):
    texts = [f"{v:.6f}" for v in batch.column("logit").to_pylist()]
    scores = [float("nan") if text.startswith("-") else 1.0 for text in texts]
    lists = pa.array([[text] for text in texts], pa.large_list(VIEWS))
    columns = [pa.array(texts, VIEWS), lists, pa.array(scores)]
    return pa.record_batch(columns, names=["text", "texts", "score"])
"""


@pytest.mark.slow
def test_rows_with_views_of_texts_are_rejected_and_partitioned(tmp_path: Path) -> None:
    """Such columns lie next to rejected rows, before and after the model, and in partitions."""
    job = factory.write_job(tmp_path)
    nulls = pa.array([None if i % 7 == 0 else float(i % 5 - 2) for i in range(500)])
    write_shard(tmp_path / "in/0.parquet", make_rows(500).set_column(1, "a", nulls))
    (tmp_path / "in/1.parquet").unlink()
    (tmp_path / "steps.py").write_text(CODE)
    change_job(
        tmp_path,
        {
            "preprocess": {"function": "steps.py:before"},
            "postprocess": {"function": "steps.py:after"},
            "output.partition_by": ["part"],
            "rejects.max_ratio": 1.0,
        },
    )
    done = factory.run_cli("run", job)
    assert done.exit_code == 0, done.output
    ids = make_rows(500).column("id").to_pylist()
    logits = [0.5 * (i % 5 - 2) - 0.25 * np.cos(i) + 0.125 for i in ids]
    expected = {i: f"{logits[i]:.6f}" for i in ids if i % 7 and logits[i] >= 0}
    rows = ds.dataset(tmp_path / "out/data", partitioning="hive").to_table().to_pylist()
    found = {row["id"]: float(row["text"]) for row in rows}
    assert found == pytest.approx({i: float(text) for i, text in expected.items()}, abs=2e-6)
    assert all(row["texts"] == [row["text"]] for row in rows)
