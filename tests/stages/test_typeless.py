"""The outcome of a row, and the types of its scores, do not depend on the batch that it is in."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.stages.postprocess import postprocess
from batchscore.stages.typeless import known_types, typed
from tests import factory
from tests.factory import change_job, make_block, make_rows, published, write_shard

TEXT, WORDS, DAYS = pa.large_string(), pa.list_(pa.string()), pa.date32()


@pytest.mark.parametrize(
    ("made", "known", "expected"),
    [
        (pa.nulls(2), TEXT, pa.nulls(2, TEXT)),
        (pa.array([None, None], pa.float64()), TEXT, pa.nulls(2, TEXT)),
        (pa.nulls(2), pa.bool_(), pa.nulls(2, pa.bool_())),
        (pa.nulls(2), DAYS, pa.nulls(2, DAYS)),
        (pa.array([[], None]), WORDS, pa.array([[], None], WORDS)),
        (pa.array([1.0, None]), pa.int64(), pa.array([1, None], pa.int64())),
        (pa.array([1.5, None]), pa.int64(), pa.array([1.5, None])),
        (pa.array([0.1, None]), pa.float32(), pa.array([0.1, None])),
        (pa.array([0.5, None]), pa.float32(), pa.array([0.5, None], pa.float32())),
        (pa.array([2**60 + 1]), pa.float64(), pa.array([2**60 + 1])),
        (pa.array([1, 2]), pa.float64(), pa.array([1.0, 2.0])),
        (pa.array(["a", None]), TEXT, pa.array(["a", None], TEXT)),
        (pa.array(["a", None]), pa.int64(), pa.array(["a", None])),
        (pa.array([True, None]), pa.int64(), pa.array([True, None])),
    ],
)
def test_a_column_gets_the_known_type_where_no_value_changes(
    made: pa.Array, known: pa.DataType, expected: pa.Array
) -> None:
    """Nulls alone fit each type; numbers and texts are cast where each value stays the same."""
    done = typed(pa.record_batch([made], names=["s"]), {"s": known})
    assert done.column("s").equals(expected)
    assert done.column("s").type == expected.type


def test_a_column_of_nulls_tells_no_type() -> None:
    """Types are known of columns that have one, at any depth."""
    batch = pa.record_batch([pa.nulls(1), pa.array([[]]), pa.array(["a"])], names=["a", "b", "c"])
    assert known_types(batch) == {"c": pa.string()}
    assert known_types(batch[:0]) == {}
    assert known_types(None) == {}


@given(
    texts=st.lists(st.sampled_from(["high", None]), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
    known=st.sampled_from([pa.string(), TEXT]),
)
def test_a_rows_outcome_does_not_depend_on_its_batch(
    texts: list[str | None], cuts: set[int], known: pa.DataType
) -> None:
    """However rows are cut into batches, the same ones are scored, with the same values."""

    def make(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch([pa.array(batch.column("y").to_pylist())], names=["s"])

    values = pa.record_batch([pa.array(texts, pa.string())], names=["y"])
    ends = [0, *sorted(cut for cut in cuts if cut < len(texts)), len(texts)]
    made = []
    for start, stop in itertools.pairwise(ends):
        block = make_block(values[start:stop], values=values[start:stop])
        done = postprocess(block, [make], {"s": known})
        assert done.values is not None
        assert done.values.schema.field("s").type == known
        made += done.values.column("s").to_pylist()
    assert made == texts


KINDS = {
    "text": "'high' if v else None",
    "boolean": "True if v else None",
    "date": "date(2026, 1, 2) if v else None",
    "list": "['a'] if v else []",
}
FRAME = """from datetime import date
import pandas as pd
def run(df: pd.DataFrame):
    return pd.DataFrame({{'s': [{made} for v in df.logit > 0.5]}})
"""
ARROW = """from datetime import date
import pyarrow as pa
def run(batch):
    made = [{made} for v in (x > 0.5 for x in batch.column('logit').to_pylist())]
    return pa.record_batch([pa.array(made)], names=['s'])
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [FRAME, ARROW], ids=["pandas", "arrow"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_value_are_scored_in_every_batch(
    kind: str, code: str, tmp_path: Path
) -> None:
    """Scores of a few rows only are null in most batches, also the first, and none is rejected."""
    job = factory.write_job(tmp_path, {"runtime.batch_rows": 7})
    for name, first in (("0", 0), ("1", 300)):
        table = make_rows(300, first)
        a = [i / 100 * (first > 0) for i in range(300)]
        columns = [pa.array(a, pa.float32()), pa.array([0.0] * 300)]
        table = table.set_column(1, "a", columns[0]).set_column(2, "b", columns[1])
        write_shard(tmp_path / f"in/{name}.parquet", table)
    (tmp_path / "steps.py").write_text(code.format(made=KINDS[kind]))
    change_job(tmp_path, {"postprocess": {"function": "steps.py:run"}})
    done = factory.run_cli("run", job)
    assert done.exit_code == 0, done.output
    values = published(tmp_path / "out").column("s").to_pylist()
    assert (len(values), sum(map(bool, values))) == (600, 300 - 76)


@pytest.mark.slow
def test_a_type_that_only_the_last_rows_have_is_found(tmp_path: Path) -> None:
    """Row groups all over the input are looked at, the last ones too."""
    job = factory.write_job(tmp_path)
    (tmp_path / "in/1.parquet").unlink()
    a = pa.array([9.0 * (i >= 290) for i in range(310)], pa.float32())
    table = make_rows(310).set_column(1, "a", a).set_column(2, "b", pa.array([0.0] * 310))
    pq.write_table(table, tmp_path / "in/0.parquet", row_group_size=10)
    (tmp_path / "steps.py").write_text(ARROW.format(made=KINDS["text"]))
    function = {"postprocess": {"function": "steps.py:run"}}
    change_job(tmp_path, {**function, "runtime.batch_rows": 10})
    done = factory.run_cli("run", job)
    assert done.exit_code == 0, done.output
    values = published(tmp_path / "out").column("s").to_pylist()
    assert values == [None] * 290 + ["high"] * 20


@pytest.mark.slow
def test_a_shard_without_a_null_keeps_the_published_types(tmp_path: Path) -> None:
    """Integers of a late shard become the floats that are published, since others were null."""
    job = factory.write_job(tmp_path, {"rejects.max_ratio": 1.0})
    (tmp_path / "steps.py").write_text(FRAME.format(made="1 if v else None"))
    change_job(tmp_path, {"postprocess": {"function": "steps.py:run"}})
    assert factory.run_cli("run", job).exit_code == 0
    table = make_rows(3, 1_000).set_column(1, "a", pa.array([9.0] * 3, pa.float32()))
    write_shard(tmp_path / "in/9.parquet", table)
    done = factory.run_cli("run", job)
    assert done.exit_code == 0, done.output
    scores = published(tmp_path / "out").column("s")
    assert (scores.type, scores.to_pylist()[-3:]) == (pa.float64(), [1.0, 1.0, 1.0])
