"""Tables that benchmarks are run on."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import workload


@pytest.mark.slow
@settings(deadline=None)
@given(
    rows=st.integers(1, 60),
    shard_rows=st.integers(1, 60),
    group_rows=st.integers(1, 60),
    part_rows=st.integers(1, 60),
)
def test_shards_hold_each_id_once(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    shard_rows: int,
    group_rows: int,
    part_rows: int,
) -> None:
    """However rows are cut into shards, groups and parts, ids run from 0 and sizes are kept."""
    folder = tmp_path_factory.mktemp("shards") / "in"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(workload, "PART_ROWS", part_rows)
        workload.write_shards(folder, rows, shard_rows, group_rows)
    files = [pq.ParquetFile(path) for path in sorted(folder.iterdir())]
    sizes = [file.metadata.num_rows for file in files]
    groups = [f.metadata.row_group(i).num_rows for f in files for i in range(f.num_row_groups)]
    ids = [row for file in files for row in file.read(["id"])["id"].to_pylist()]
    assert ids == list(range(rows))
    assert max(sizes) == min(shard_rows, rows)
    assert max(groups) == min(group_rows, shard_rows, rows)


def test_the_floor_counts_each_piece(tmp_path: Path) -> None:
    """Each piece of the work of a job takes CPU-seconds."""
    from benchmarks.floor import PIECES, measure_pieces

    workload.write_shards(tmp_path / "in", 50_000, 20_000, 10_000)
    workload.write_model(tmp_path / "model")
    pieces = measure_pieces(workload.write_job(tmp_path, {}))
    assert list(pieces) == list(PIECES)
    assert all(seconds > 0 for seconds in pieces.values())
