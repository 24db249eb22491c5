"""What a block of rows costs in work, not seconds: a guard that fails when a count grows.

    python -m benchmarks.work [--update] [--show]

Jobs on small tables are run in this process, on one core with one worker, at N and at 2N blocks;
the difference is what N more cost, free of what a run costs once. The figures are compared with
`benchmarks/work.json`; `--update` rewrites them. Linux only.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import platform
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

import batchscore
from batchscore.cli import cli
from batchscore.drift.table import TableProfile
from batchscore.stages.block import Block
from batchscore.stages.read import read_unit_ahead
from benchmarks.counter import ENGINE, WAITS, Counts, FileCounter, ThreadCounter, arrow_bytes
from benchmarks.workload import FEATURES, make_table, write_job, write_model

FIGURES = Path(__file__).with_name("work.json")
UPDATE = "python -m benchmarks.work --update"
ROOT = Path(batchscore.__file__).parent
BLOCK_ROWS = 4_096
FUNCTION = '''"""Model inputs from numbers."""

import pyarrow as pa
import pyarrow.compute as pc


def add(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns two numbers a row."""
    total = pc.cast(pc.add(batch["f00"], batch["f01"]), pa.float32())
    return pa.record_batch([total, batch["f01"]], names=["f00", "f01"])
'''


@dataclass(frozen=True)
class Job:
    """A job whose work is counted.

    Args:
        of: What its figures are for, in words.
        table: Makes so many rows, the columns named by `features` among them.
        features: The model's columns.
        sections: Further sections of the job file.
        count: N.
        rows: Rows of what the figures are for.
        batch_rows: Rows of a block.
        shard_rows: Rows of a shard.
        unit_rows: Rows of a unit, about.
        profiled: Whether columns are profiled; without it, a copy in the stages is easy to see.
    """

    of: str
    table: Callable[[int], pa.Table]
    features: Sequence[str]
    sections: Mapping[str, Any] = field(default_factory=dict)
    count: int = 4
    rows: int = BLOCK_ROWS
    batch_rows: int = BLOCK_ROWS
    shard_rows: int = 2 * BLOCK_ROWS
    unit_rows: int = 1_000_000
    profiled: bool = True


def make_texts(rows: int) -> pa.Table:
    """Returns rows of an id, two floats, and two texts of 128 letters."""
    table = make_narrow(rows)
    for name in ("t0", "t1"):
        letters = np.random.default_rng(1).integers(97, 123, (rows, 128), np.uint8)
        texts = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(128), rows, [None, pa.py_buffer(letters)]
        )
        table = table.append_column(name, texts.cast(pa.binary()).cast(pa.string()))
    return table


def make_spoiled(rows: int) -> pa.Table:
    """Returns rows of an id, a text of seven values, and two floats, the first in 64 NaN."""
    table = make_table(rows).select(["id", "part", "f00", "f01"])
    f00 = table["f00"].to_numpy().copy()
    f00[::64] = np.nan
    return table.set_column(2, "f00", pa.array(f00))


def make_narrow(rows: int) -> pa.Table:
    """Returns rows of an id and two floats."""
    return make_table(rows).select(["id", "f00", "f01"])


# By how much a count may grow; all others are the same in every run.
SLACKS = {
    # A run writes and reads seconds and times, some digits more or fewer.
    "bytes read": 0.01,
    "bytes written": 0.01,
    # Which thread's rises fall together goes by how threads take turns.
    "bytes NumPy and Python asked for": 0.05,
    "bytes Arrow asked for": 0.01,
    # How far reader and writer are from the network goes by how threads take turns, too.
    "peak bytes of Arrow": 0.75,
    "peak bytes of NumPy and Python": 0.2,
    # Other versions of Python, Arrow and Beam call more or less; and fsspec opens a file system
    # again in a thread, unless its number is one that another thread had.
    "calls": 0.03,
    "lines": 0.03,
    "engine calls": 0.1,
    # On a machine that is very busy a run looks and writes once more, by the clock.
    "read calls": 0.05,
    "files opened by Python": 0.1,
    "names made or changed": 0.1,
}
HANG_SECONDS = 240
SHRUNK = 0.1
"""Figures that are too high by more would let as much grow again unseen."""
ROUNDING = 0.01
BY_MODULE = ("calls", "lines")
TWO = FEATURES[:2]
KEYED = {
    "output": {"path": "out", "partition_by": ["part"]},
    "checks": {"unique": ["id"], "score_range": [0, 1]},
    "rejects": {"max_ratio": 0.1},
}
JOBS = {
    "floats": Job("block of 4,096 rows, 32 floats", make_table, FEATURES),
    "stages": Job(
        "block of 4,096 rows, 32 floats, not profiled", make_table, FEATURES, profiled=False
    ),
    "texts": Job(
        "block of 8,192 rows, two texts of 128 letters, through a user's function",
        make_texts,
        TWO,
        {"preprocess": {"function": "features.py:add"}},
        rows=8_192,
        batch_rows=8_192,
    ),
    "keyed": Job(
        "block of 4,096 rows, 7 partitions, unique ids, one row in 64 rejected",
        make_spoiled,
        TWO,
        KEYED,
    ),
    "shards": Job("shard of 256 rows", make_narrow, TWO, {}, 16, 256, shard_rows=256),
    "units": Job("unit of 4,096 rows", make_narrow, TWO, {}, 2, unit_rows=BLOCK_ROWS),
}


class Runner:
    """Runs a job in this process and counts what it does.

    Args:
        folder: Folder for tables, model and output; must be empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "features.py").write_text(FUNCTION)

    def count(self, job: Job, number: int) -> Counts:
        """Returns what a run over so many blocks, shards or units takes."""
        rows = number * job.rows
        path = self._write(job, rows)
        counts = Counts()
        threads = ThreadCounter(ROOT, counts, "networks.py")
        gc.collect()
        before = arrow_bytes()
        files = FileCounter(self._folder, counts.work)
        update = TableProfile.update if job.profiled else _skip
        profile = patch.object(TableProfile, "update", update)
        cut = patch("batchscore.plan.work.UNIT_ROWS", job.unit_rows)
        with cut, profile, files.watched(), _watched_units(threads), _by_work():
            manifest = _run(path)
        threads.end()
        counts.work["bytes Arrow asked for"] = arrow_bytes() - before
        counts.work.update(_inferences(manifest))
        left = (self._folder / "out").rglob("*")
        counts.work["files left"] = sum(path.is_file() for path in left)
        if manifest["rows"]["input"] != rows:
            raise RuntimeError(f"{manifest['rows']} where {rows:,} rows were to be read")
        return counts

    def _write(self, job: Job, rows: int) -> Path:
        for name in ("in", "out", "model"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        (self._folder / "in").mkdir()
        table = job.table(rows)
        for first in range(0, rows, job.shard_rows):
            shard = table[first : first + job.shard_rows]
            path = self._folder / f"in/{first:09d}.parquet"
            pq.write_table(shard, path, job.rows, use_dictionary=False)
        write_model(self._folder / "model", width=len(job.features))
        runtime = {"workers": 1, "batch_rows": job.batch_rows}
        return write_job(self._folder, {"runtime": runtime, **job.sections}, job.features)


def _skip(_profile: TableProfile, _batch: pa.RecordBatch) -> None:
    pass


@contextmanager
def _watched_units(threads: ThreadCounter) -> Iterator[None]:
    """Counts what follows a unit's read: a generator spans all that is done with its blocks."""
    name = "batchscore.transforms.read_unit_ahead"

    def read(*args: Any) -> Generator[Block, None, None]:
        with threads.watched(), closing(read_unit_ahead(*args)) as blocks:
            yield from blocks

    with patch(name, read):
        yield


@contextmanager
def _by_work() -> Iterator[None]:
    """Puts off what is done by the clock, and the garbage collector."""
    gc.disable()
    random.seed(0)  # Beam looks at the size of a block at random
    with (
        patch("batchscore.commands.launched._LOOK_SECONDS", 3600.0),
        patch("batchscore.runs.lease.RENEWAL_SECONDS", 3600.0),
        patch("batchscore.runs.progress._TICK_SECONDS", float("inf")),
    ):
        yield
    gc.enable()


def _run(path: Path) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["run", "--json", str(path)])
    if done.exit_code:
        raise RuntimeError(f"the run ended with {done.exit_code}: {done.output}")
    manifest: dict[str, Any] = json.loads(done.stdout)
    return manifest


def _inferences(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Returns what Beam counted of RunInference: calls and rows."""
    metrics = {metric["name"]: metric for metric in manifest["beam_metrics"]}
    return {
        "RunInference calls": metrics["inference_request_batch_size"]["count"],
        "RunInference rows": metrics["num_inferences"]["value"],
    }


def measure(folder: Path) -> dict[str, Any]:
    """Returns the figures of all jobs, by name, and with what they were counted."""
    runner = Runner(folder)
    # What a process does but once, as imports, is no block's work.
    runner.count(JOBS["keyed"], 1)
    jobs = {name: _measure_job(runner, JOBS[name]) for name in JOBS}
    return {"versions": _versions(), "jobs": jobs}


def _measure_job(runner: Runner, job: Job) -> dict[str, Any]:
    few, many = runner.count(job, job.count), runner.count(job, 2 * job.count)
    by = {name: _each(getattr(few, name), getattr(many, name), job.count) for name in BY_MODULE}
    by["calls"].pop(WAITS, None)
    by["lines"].pop("stages/ahead", None)  # its loops go by who waits for whom
    engine = by["calls"].pop(ENGINE, 0.0)
    work = {
        **_each(few.work, many.work, job.count),
        **{name: most for name, most in many.work.items() if name.startswith("peak")},
        "calls": sum(by["calls"].values()),
        "lines": sum(by["lines"].values()),
        "engine calls": engine,
    }
    rounded = {name: round(value, 2) for name, value in sorted(work.items())}
    return {"of": job.of, "work": rounded, **by}


def _each(few: Mapping[str, int], many: Mapping[str, int], count: int) -> dict[str, float]:
    spent = {name: (many.get(name, 0) - few.get(name, 0)) / count for name in {*few, *many}}
    return {name: round(value, 2) for name, value in sorted(spent.items()) if value}


def _versions() -> dict[str, str]:
    packages = ("apache-beam", "numpy", "pyarrow", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line for each count that grew by more than its slack, or shrank by much more."""
    changes = []
    for name, job in new["jobs"].items():
        before = old["jobs"].get(name)
        if before is None:
            changes.append(f"{name}: has no figures")
            continue
        for count in sorted({*before["work"], *job["work"]}):
            was, is_ = before["work"].get(count, 0.0), job["work"].get(count, 0.0)
            slack = SLACKS.get(count, 0.0)
            # A count below zero: the blocks that came more opened fewer files than the start.
            grew, shrank = abs(was) * slack, abs(was) * max(2 * slack, SHRUNK)
            if is_ > was + grew + ROUNDING or is_ < was - shrank - ROUNDING:
                where = _where(before.get(count, {}), job.get(count, {}))
                changes.append(f"{name}, {job['of']}: {count} {_shown(was)} → {_shown(is_)}{where}")
    return changes


def _where(old: Mapping[str, float], new: Mapping[str, float]) -> str:
    """Names the three modules of the package that changed most."""
    more = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in {*old, *new}}
    most = sorted((name for name in more if more[name]), key=lambda name: -abs(more[name]))[:3]
    metrics = (f"{n} {_shown(old.get(n, 0.0))} → {_shown(new.get(n, 0.0))}" for n in most)
    return f" ({', '.join(metrics)})" if most else ""


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}".rstrip("0").rstrip(".")


def in_both(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Returns the changes of the second look whose count had changed at the first, too.

    More work is there each time. How threads take turns on a busy machine is not.
    """
    counts = {change.partition(" → ")[0] for change in first}
    return [change for change in second if change.partition(" → ")[0] in counts]


def hold(found: Mapping[str, Any]) -> int:
    """Prints what changed against the figures, at two looks, and returns the exit code."""
    figures = json.loads(FIGURES.read_text())
    changes = find_changes(figures, found)
    if changes:
        found = _measured()
        changes = in_both(changes, find_changes(figures, found))
    for change in changes:
        print(change)
    if not changes:
        print("no count grew")
        return 0
    pairs = ((name, figures["versions"].get(name), is_) for name, is_ in found["versions"].items())
    others = [f"{name} {was}, here {is_}" for name, was, is_ in pairs if was != is_]
    if others:
        print(f"the figures were counted with {'; '.join(others)}")
    print(f"if it has to be so, or if counts shrank, rewrite the figures: {UPDATE}")
    return 1


def _measured() -> dict[str, Any]:
    """Returns what all jobs count; ends the process where that hangs."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    with tempfile.TemporaryDirectory() as home:
        return measure(Path(home))


def main() -> int:
    """Counts, and compares the counts with the figures, or rewrites the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the figures")
    parser.add_argument("--show", action="store_true", help="print what was counted")
    args = parser.parse_args()
    # Threads are shared out by cores, and take turns on one.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    found = _measured()
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if args.show:
        print(text, end="")
    if args.update:
        FIGURES.write_text(text)
        return 0
    return hold(found)


if __name__ == "__main__":
    sys.exit(main())
