"""What the drift profile costs of a run: CPU-seconds, values per second, and memory.

    python -m benchmarks.profile_cost [--rows 2000000]

A table of 34 float32 columns is scored by an MLP 34-128-64-1 with one worker, in a process of its
own for each size, after a run over a few rows that pays for imports. The share is CPU-seconds of
the profiling thread inside the profile over those of all threads of the run. One column is kept
next to the score, so that writing is cheap and the share of profiling as large as it gets.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.drift.table import TableProfile
from benchmarks.safety import run
from benchmarks.workload import write_job, write_model

COLUMNS = [f"f{index:02d}" for index in range(34)]
SHARD_ROWS = 500_000
WARM_ROWS = 20_000


@dataclass(frozen=True)
class Cost:
    """What one run took: CPU-seconds of the profile and of all, and peak memory in bytes."""

    rows: int
    values: int
    profile_s: float
    run_s: float
    peak: int


def write_table(folder: Path, rows: int) -> None:
    """Writes shards of standard normal columns."""
    folder.mkdir(parents=True)
    for first in range(0, rows, SHARD_ROWS):
        size = min(SHARD_ROWS, rows - first)
        chance = np.random.default_rng(first)
        table = pa.table({name: chance.standard_normal(size, np.float32) for name in COLUMNS})
        pq.write_table(table, folder / f"{first:010d}.parquet", use_dictionary=False)


def write_wide_job(folder: Path, rows: int) -> Path:
    """Writes a job over a new table of so many rows."""
    write_table(folder / "in", rows)
    write_model(folder / "model", width=len(COLUMNS))
    sections = {"output": {"path": "out", "columns": COLUMNS[:1]}, "runtime": {"workers": 1}}
    return write_job(folder, sections, COLUMNS)


def measure(warm: Path, job: Path) -> Cost:
    """Runs the job in this process, after the warm one; returns what it took."""
    spent = values = 0.0
    update = TableProfile.update

    def timed(profile: TableProfile, batch: pa.RecordBatch) -> None:
        nonlocal spent, values
        start = time.thread_time()
        update(profile, batch)
        spent += time.thread_time() - start
        values += batch.num_rows * batch.num_columns

    run("run", warm)
    with patch.object(TableProfile, "update", timed):
        start = time.process_time()
        _, found = run("run", job)
        total = time.process_time() - start
    if found["status"] != "published" or not spent:
        raise RuntimeError(f"the run was not measured: {found}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(found["rows"]["scored"], int(values), spent, total, peak)


def main() -> None:
    """Measures at the rows asked for and at four times as many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    for size in (rows, 4 * rows):
        with tempfile.TemporaryDirectory() as home:
            warm = write_wide_job(Path(home) / "warm", WARM_ROWS)
            job = write_wide_job(Path(home) / "job", size)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                cost = pool.apply(measure, (warm, job))
        print(
            f"{cost.rows:,} rows: profile {cost.profile_s:.2f} of {cost.run_s:.2f} CPU-seconds, "
            f"{cost.profile_s / cost.run_s:.1%}; {cost.values / cost.profile_s / 1e6:.0f}M values/s"
            f"; peak {cost.peak / 2**20:,.0f} MiB"
        )


if __name__ == "__main__":
    main()
