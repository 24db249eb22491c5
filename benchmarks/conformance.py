"""Compares the scores of whole jobs with each framework's own, of any number of rows.

    python -m benchmarks.conformance [--rows 1000000] [--formats xgboost,onnx]

A process of its own calls the framework once for all rows, and for the first rows in batches of 1
and 7. Jobs then score the same rows: in such batches, with 1 and 4 threads, with 3 workers, and in
another order. The table has the rows whose bits differ from the framework's call of all rows, and
the largest difference; of the framework's own batches, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import batchscore as bs
from benchmarks.conformance_cases import BATCHES, CASES, Case
from tests import factory

ROOT = Path(__file__).parents[1]
_CLOSE = 1e-5
"""The largest difference that docs/model-folder.md allows a framework."""


def main() -> int:
    """Tries each case; 1 if one is not as close as the docs say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of a table (default 1M)")
    parser.add_argument("--formats", default="", help="how cases begin, by comma (default all)")
    parser.add_argument("--compare", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.compare:
        return _compare(CASES[asked.compare[0]], Path(asked.compare[1]), asked.rows)
    print("| model | how | rows | other bits | largest difference |\n|---|---|---|---|---|")
    chosen = tuple(asked.formats.split(","))
    return max(_try(name, asked.rows) for name in CASES if name.startswith(chosen))


def _try(name: str, rows: int) -> int:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        CASES[name].make(Path(folder))
        words = ["benchmarks.conformance_cases", name, folder, str(rows)]
        _run(words, {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "KERAS_HOME": folder})
        words = ["benchmarks.conformance", "--rows", str(rows), "--compare", name, folder]
        wrong = 0
        for line in _run(words, {}).splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                wrong |= found["missing"] or not found["largest"] <= _CLOSE
                print(
                    f"| {name} | {found['how']} | {found['rows']:,} | {found['other']:,} | "
                    f"{found['largest']:.2g} |",
                    flush=True,
                )
    return int(wrong)


def _run(words: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "ignore", "-m", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-3000:]}")
    return done.stdout


def _compare(case: Case, folder: Path, rows: int) -> int:
    """Prints a line of JSON for each way of scoring the rows."""
    known = dict(np.load(folder / "own.npz"))
    for size, most in BATCHES.items():
        _tell(f"own call, batches of {size}", _own(known, case, str(size)), known, case, most)
    table = pq.read_table(folder / "rows.parquet")
    shuffled = table.take(pa.array(np.random.default_rng(2).permutation(rows)))
    for size, most in BATCHES.items():
        found = _scored(case, folder, table[:most], {"batch_rows": size, "workers": 1}, 4)
        _tell(f"batches of {size}", found, known, case, most)
    for how, given, workers, threads in (
        ("1 thread", table, 1, 1),
        ("4 threads, shuffled", shuffled, 1, 4),
        ("3 workers, shuffled", shuffled, 3, 1),
    ):
        _tell(how, _scored(case, folder, given, {"workers": workers}, threads), known, case, rows)
    return 0


def _own(known: dict[str, Any], case: Case, key: str) -> dict[str, Any]:
    return {name: known[f"{key}-{place}"] for place, name in enumerate(case.outputs)}


def _scored(
    case: Case, folder: Path, table: pa.Table, runtime: dict[str, Any], threads: int
) -> dict[str, Any]:
    """Returns what a job publishes, by the id of its rows."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        (place / "in").mkdir()
        pq.write_table(table, place / "in/rows.parquet", row_group_size=50_000)
        path = folder / case.model
        job = {
            "batchscore": 1,
            "name": "conformance",
            "input": {"path": "in"},
            "model": {"path": str(path), "sha256": factory.sha256(path), **case.facts},
            "output": {"path": "out", "columns": ["id"]},
            "runtime": runtime,
        }
        (place / "job.yaml").write_text(yaml.safe_dump(job))
        for code in folder.glob("*.py"):
            (place / code.name).write_bytes(code.read_bytes())
        cores = threads * int(runtime["workers"])
        with (
            patch("batchscore.plan.worker_count.count_cores", lambda: cores),
            # Else one worker would score all of a table of this size.
            patch("batchscore.plan.work.UNIT_ROWS", max(1_000, len(table) // 6)),
        ):
            done = bs.run(place / "job.yaml")
        assert done.status == "published", done.reason
        assert done.manifest["workers"] == runtime["workers"]
        found = factory.published(place / "out")
        return {each: np.array([*found[each].to_numpy()]) for each in case.outputs}


def _tell(how: str, found: dict[str, Any], known: dict[str, Any], case: Case, most: int) -> None:
    expected = {name: own[:most] for name, own in _own(known, case, "all").items()}
    print(json.dumps({"how": how, **compared(found, expected)}))


def compared(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Returns in how many rows the framework's own call of all rows has other bits."""
    other, largest, missing = 0, 0.0, False
    for name, made in found.items():
        if len(made) != len(expected[name]):
            missing = True
            continue
        own = expected[name].reshape(made.shape)
        differs = (made != own) & ~(np.isnan(made) & np.isnan(own))
        other = max(other, int(differs.reshape(len(made), -1).any(axis=1).sum()))
        gap = np.abs(made.astype(np.float64) - own.astype(np.float64))[differs]
        largest = float(np.max(gap, initial=largest))
    rows = len(next(iter(found.values())))
    return {"rows": rows, "other": other, "largest": largest, "missing": missing}


if __name__ == "__main__":
    sys.exit(main())
