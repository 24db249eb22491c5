"""An error about a missing column names the shards that lack it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.factory import change_job, make_rows, run_cli, write_job, write_shard


def _error(folder: Path) -> str:
    done = run_cli("check", folder / "job.yaml")
    assert done.exit_code == 2
    return str(done.output)


def test_a_column_of_no_shard_is_named_with_the_first(tmp_path: Path) -> None:
    """The first shard is named, and how many lack the column."""
    write_job(tmp_path, {"model.inputs.x": ["a", "bb"]})
    first = tmp_path / "in/0.parquet"
    reported = _error(tmp_path)
    assert (
        f"column 'bb' is not in 2 of 2 shards; the first of them is {first}; nearest: 'b'"
        in reported
    )
    change_job(tmp_path, {"input.path": "in/0.parquet"})
    assert f"column 'bb' is not in shard {first}; nearest: 'b'" in _error(tmp_path)


@pytest.mark.parametrize("named", [None, ["id"]])
def test_a_column_that_later_shards_lack_is_named_with_how_many(
    tmp_path: Path, named: list[str] | None
) -> None:
    """The first shard without it is named, and how many there are, of how many."""
    write_job(tmp_path, {"output.columns": named})
    for number in (2, 3):
        table = make_rows(9, number * 900).drop_columns(["a"])
        write_shard(tmp_path / f"in/{number}.parquet", table.append_column("c", pa.array([1] * 9)))
    reported = _error(tmp_path)
    lack = tmp_path / "in/2.parquet"
    assert (
        f"shard {lack}: has no column 'a', unlike the shards before it; 1 more shard lacks "
        in reported
    )
    assert "1 more shard lacks it too; " in reported
    assert "write them again or take them out of input.path" in reported
