"""Test which columns of the input are taken for what is written, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.errors import OutputError
from batchscore.job import load_job
from batchscore.plan.columns import written_columns
from tests.factory import write_job


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int8()),
        pa.large_list(pa.int8()),
        pa.list_(pa.int8(), 2),
        pa.struct([("a", pa.int8())]),
        pa.map_(pa.string(), pa.int8()),
        pa.fixed_shape_tensor(pa.int8(), [2]),
    ],
    ids=str,
)
def test_a_key_of_lists_is_found_in_the_schema(tmp_path: Path, kind: pa.DataType) -> None:
    """A type that cannot be part of a key is an error of the job, before any row is read."""
    job = load_job(str(write_job(tmp_path, {"checks.unique": ["id", "k"]}))).job
    schema = pa.schema([("id", pa.int64()), ("k", kind)])
    with pytest.raises(OutputError) as caught:
        written_columns(job, schema, "1")
    assert f"checks.unique: column 'k' is {kind}, which cannot be part" in str(caught.value)
    assert caught.value.exit_code == 2
    plain = schema.set(1, pa.field("k", pa.dictionary(pa.int8(), pa.string())))
    assert written_columns(job, plain, "1").unique == ("id", "k")
