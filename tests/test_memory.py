"""Memory is bounded by the batch: ten times the input takes no more of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import factory

ROWS = 1_000_000
COLUMNS = ("a", "b", "c", "d", "e", "f")

# Runs a command and prints the peak resident set of it and what it started, in MB.
MEASURE = """import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "batchscore", *sys.argv[1:]], capture_output=True)
sys.stderr.buffer.write(done.stderr)
unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit)
sys.exit(done.returncode)
"""


def write_big_job(folder: Path, rows: int, group: int) -> Path:
    """A job over one shard of float columns in row groups of `group` rows."""
    runtime = {"workers": 1, "batch_rows": 65_536}
    job = factory.write_job(folder, {"input.path": "big.parquet", "runtime": runtime})
    rng = np.random.default_rng(7)
    columns = {name: rng.standard_normal(ROWS, np.float32) for name in COLUMNS}
    part = pa.table(columns)
    whole = pa.concat_tables([part] * (rows // ROWS))
    pq.write_table(whole, folder / "big.parquet", row_group_size=group, use_dictionary=False)
    return job


def peak(job: Path) -> float:
    """The peak memory in MB of a run in a process of its own."""
    args = [sys.executable, "-c", MEASURE, "run", str(job)]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def change_output(job: Path) -> Path:
    """Returns the same job with an output of its own."""
    return factory.change_job(job.parent, {"output.path": "again"})


@pytest.fixture(scope="module")
def small_peak(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The peak of two runs over a million rows in one row group.

    In one of them, on a busy machine, reading and writing may never hold their most together.
    """
    job = write_big_job(tmp_path_factory.mktemp("small"), ROWS, ROWS)
    return max(peak(job), peak(change_output(job)))


@pytest.mark.slow
@pytest.mark.parametrize("group", [ROWS, 10 * ROWS])
def test_ten_times_the_input(group: int, small_peak: float, tmp_path: Path) -> None:
    """Ten million rows, in ten row groups or one, peak within 10 % of a million's memory."""
    found = peak(write_big_job(tmp_path, 10 * ROWS, group))
    assert found < 1.1 * small_peak, f"{found:.0f} MB, {small_peak:.0f} MB for a tenth"


MORE_MB = 1000.0  # of what decodes to as much as two GB


@pytest.mark.slow
def test_texts_that_are_stored_once(tmp_path: Path) -> None:
    """A thousand texts of 1 MB, and as many in maps, take at most 1 GB more than integers."""
    indices, offsets = pa.array(np.zeros(1000, np.int32)), pa.array(range(1001), pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 1_000_000]))
    maps = pa.MapArray.from_arrays(offsets, pa.array(["k"] * 1000), texts)
    peaks = []
    for folder, columns in {"plain": {}, "large": {"t": texts, "m": maps}}.items():
        rows = factory.make_rows(1000)
        job = factory.write_job(tmp_path / folder, {"input.path": "rows.parquet"})
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        # Without Arrow's schema these texts are read as plain ones.
        path = tmp_path / folder / "rows.parquet"
        pq.write_table(rows, path, compression="zstd", store_schema=False)
        peaks.append(peak(job))
    assert path.stat().st_size < 50_000
    assert peaks[1] < peaks[0] + MORE_MB, peaks
