"""What ledger, checks and publish cost of a run, and how long 20,000 shards take to plan.

    python -m benchmarks.safety [--rows 12000000] [--shards 20000]

A share is seconds inside the named functions, on whatever thread, over the seconds of the run.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from click.testing import CliRunner

from batchscore.cli import cli
from benchmarks.workload import make_table, write_job, write_model, write_shards

SHARD_ROWS = 1_000_000
# What is safety, by the step that it is counted under; the name is looked up where it is called.
TIMED = {
    "ledger": (
        "batchscore.transforms.enter",
        "batchscore.commands.run.settle",
        "batchscore.commands.run.repair",
        "batchscore.commands.run.sweep_attempts",
        "batchscore.commands.run.purge",
        "batchscore.stages.rows_file.RowsFile.add",
        "batchscore.stages.rows_file.RowsFile.close",
    ),
    "lease": ("batchscore.commands.run.take", "batchscore.transforms.holds"),
    "checks and publish": ("batchscore.transforms.finish_run",),
}


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, whose calls are counted under the step."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[step] += time.perf_counter() - start

        return call


@contextmanager
def measured(clock: Clock) -> Iterator[None]:
    """Counts the seconds of each step of TIMED inside."""
    patches = []
    for step, names in TIMED.items():
        for name in names:
            found = _resolve(name)
            patches.append(patch(name, clock.timed(step, found)))
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _resolve(name: str) -> Any:
    module, parts = name, list[str]()
    while True:
        try:
            found: Any = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            parts.insert(0, last)
    for part in parts:
        found = getattr(found, part)
    return found


def write_checked_job(folder: Path) -> Path:
    """Writes a job of a small network with checks of keys and of scores."""
    write_model(folder / "model")
    sections = {
        "output": {"path": "out", "columns": ["id", "part"]},
        "checks": {"unique": ["id"], "score_range": [0, 1]},
        "runtime": {"workers": 1},
    }
    return write_job(folder, sections)


def run(command: str, job: Path) -> tuple[float, dict[str, Any]]:
    """Runs a command in this process; returns its seconds and the JSON that it printed."""
    start = time.perf_counter()
    done = CliRunner().invoke(cli, [command, "--json", str(job)])
    found: dict[str, Any] = json.loads(done.stdout)
    return time.perf_counter() - start, found


def hash_seconds(size: int) -> float:
    """Returns how long so many bytes take to hash here, by a try on 64 MB."""
    data = bytes(64 << 20)
    start = time.perf_counter()
    hashlib.sha256(data)
    return (time.perf_counter() - start) * size / len(data)


def measure_shares(rows: int) -> None:
    """Prints what share of a run each safety step takes."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        job = write_checked_job(folder)
        write_shards(folder / "in", rows, SHARD_ROWS, SHARD_ROWS)
        clock = Clock()
        with measured(clock):
            seconds, found = run("run", job)
        print(f"{found['status']} {found['rows']['scored']:,} rows in {seconds:.1f} s")
        for step in TIMED:
            spent = clock.seconds[step]
            print(f"  {step:<20} {spent:6.2f} s   {spent / seconds:6.2%}")
        spent = hash_seconds(sum(file["bytes"] for file in found["files"]))
        print(f"  {'file hashes':<20} {spent:6.2f} s   {spent / seconds:6.2%}   (bytes by speed)")
        seconds, found = run("run", job)
        print(f"again: {found['status']} in {seconds:.2f} s")


def measure_planning(shards: int) -> None:
    """Prints how long many small shards take to plan, and a rerun over them to answer."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        job = write_checked_job(folder)
        (folder / "in").mkdir()
        for index in range(shards):
            pq.write_table(make_table(4, 4 * index), folder / f"in/{index:06d}.parquet")
        seconds, found = run("check", job)
        print(f"{shards:,} shards: check {seconds:.1f} s ({found['status']})", end="")
        seconds, found = run("run", job)
        print(f", run {seconds:.1f} s ({found['status']})", end="")
        seconds, found = run("run", job)
        print(f", rerun {seconds:.1f} s ({found['status']})")


def main() -> None:
    """Runs both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=12_000_000)
    parser.add_argument("--shards", type=int, default=20_000)
    args = parser.parse_args()
    measure_planning(args.shards // 4)
    measure_planning(args.shards)
    measure_shares(args.rows)


if __name__ == "__main__":
    main()
