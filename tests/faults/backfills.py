"""Backfills dates of which one is to be held and one cannot be read; kills it once on the way."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.factory import change_job, make_rows, write_job, write_shard
from tests.waiting import wait_until

ROWS = 200
FIRST = date(2026, 1, 1)


@dataclass(frozen=True)
class Dates:
    """A job with an input of many dates.

    Args:
        job: The job file.
        days: The dates.
        held: The date whose rows are unlike those of the day before.
        broken: The date whose shard cannot be read.
    """

    job: Path
    days: tuple[str, ...]
    held: str
    broken: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """The backfill of all dates."""
        return (str(self.job), "--from", self.days[0], "--to", self.days[-1])

    def published(self) -> list[str]:
        """The dates that are published."""
        markers = self.job.parent.glob("out/_batchscore/slices/*/_SUCCESS")
        return sorted(path.parent.name.partition("date=")[2] for path in markers)


def write_dates(folder: Path, count: int, changes: Mapping[str, Any] | None = None) -> Dates:
    """Writes a job and its dates, among the first fifth one to hold and one that is broken."""
    days = tuple((FIRST + timedelta(days=number)).isoformat() for number in range(count))
    held, broken = days[max(1, count // 10)], days[max(2, count // 5)]
    for number, day in enumerate(days):
        rows = make_rows(ROWS, number * ROWS)
        if day == held:
            far = pa.array(np.full(ROWS, 9.0), pa.float32())
            rows = rows.set_column(1, "a", far)
        shard = write_shard(folder / f"in/{day}/0.parquet", rows)
        if day == broken:
            shard.write_bytes(b"no Parquet at all")
    write_job(folder)
    job = change_job(
        folder,
        {
            "params": {"date": {"type": "date"}},
            "input.path": "in/${date}",
            "drift": {"reference": "previous", "on_fail": "hold"},
            **(changes or {}),
        },
    )
    return Dates(job, days, held, broken)


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a backfill as a person would."""
    command = [sys.executable, "-m", "batchscore", "backfill", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


def kill_after(dates: Dates, published: int) -> list[str]:
    """Starts a backfill, kills it with -9 once so many dates are published; returns those."""
    process = start(dates.arguments)
    wait_until(lambda: len(dates.published()) >= published, 600)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return dates.published()


def resume(dates: Dates) -> dict[str, Any]:
    """Runs the same backfill to its end; returns what it prints as JSON."""
    printed, _ = start([*dates.arguments, "--json"]).communicate()
    found: dict[str, Any] = json.loads(printed)
    return found


def main() -> int:
    """Runs a year; 1 if other dates were published than are to be, or others were named."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.backfills", description=__doc__)
    parser.add_argument("--dates", type=int, default=365, help="how many (default 365)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backfills-") as folder:
        dates = write_dates(Path(folder), asked.dates)
        before = kill_after(dates, asked.dates // 3)
        found = resume(dates)
        named = {each["date"]: each["status"] for each in found["dates"] if each["reason"]}
        print(f"{len(before)} dates published before the kill, then {found['counts']}: {named}")
        good = named == {dates.held: "held", dates.broken: "invalid"}
        return int(not good or len(dates.published()) != asked.dates - 2)


if __name__ == "__main__":
    sys.exit(main())
