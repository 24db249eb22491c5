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


@pytest.fixture(scope="module")
def small_peak(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The peak of a run over a million rows in one row group."""
    return peak(write_big_job(tmp_path_factory.mktemp("small"), ROWS, ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("group", [ROWS, 10 * ROWS])
def test_ten_times_the_input(group: int, small_peak: float, tmp_path: Path) -> None:
    """Ten million rows, in ten row groups or one, peak within 10 % of a million's memory."""
    found = peak(write_big_job(tmp_path, 10 * ROWS, group))
    assert found < 1.1 * small_peak, f"{found:.0f} MB, {small_peak:.0f} MB for a tenth"
