"""What a small run of each format takes, next to importing Beam and the format's framework.

    python -m benchmarks.start_up [--only xgboost,onnx] [--rounds 5]

A run scores 1,024 rows, and is measured from its process's start until the rows are published; so
it does more than start. Both take turns. CPU-seconds are of all processes, sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks.format_models import FITS, inputs_of, save
from benchmarks.observe import Watcher, run_job
from benchmarks.scorers.work import make_table

GOAL = 1.15
ROWS = 1_024
IMPORTS = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "linear": "pandas, sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing",
    "forest": "pandas, sklearn.ensemble",
    "boosting": "pandas, sklearn.ensemble",
    "onnx": "onnxruntime",
}
"""By name of a model, what a person imports for it."""
Taken = tuple[float, float]
"""Seconds, and CPU-seconds."""


def measure(name: str, rounds: int, home: Path) -> tuple[list[Taken], list[Taken]]:
    """Returns what a run took, and what the imports took, by round; a first turn is left out."""
    (home / "in").mkdir()
    pq.write_table(make_table(ROWS, 0, 0), home / "in" / "0.parquet")
    save(name, FITS[name](), home / "model")
    job = _write_job(name, home)
    ours, theirs = list[Taken](), list[Taken]()
    for _ in range(rounds + 1):
        ran = run_job(job)
        ours.append((ran.published - ran.began, ran.watcher.cpu_until(ran.published)))
        theirs.append(_import(f"import apache_beam, {IMPORTS[name]}"))
    return ours[1:], theirs[1:]


def _write_job(name: str, home: Path) -> Path:
    inputs = inputs_of(name)
    job = {
        "batchscore": 1,
        "name": name,
        "input": {"path": "in"},
        "model": {"path": "model", **({"inputs": inputs} if inputs else {})},
        "output": {"path": "out"},
        "drift": {"on_fail": "warn"},
    }
    path = home / "job.json"
    path.write_text(json.dumps(job))
    return path


def _import(code: str) -> Taken:
    began = time.time()
    command, silent = [sys.executable, "-c", code], subprocess.DEVNULL
    with subprocess.Popen(command, env=_environment(), stderr=silent) as process:
        watcher = Watcher(process.pid, memory=False)
        watcher.start()
        process.wait()
    ended = time.time()
    watcher.stop()
    return ended - began, watcher.cpu_until(ended)


def _environment() -> dict[str, str]:
    return {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _row(name: str, ours: Sequence[Taken], theirs: Sequence[Taken]) -> str:
    own, other = ([median(part) for part in zip(*each, strict=True)] for each in (ours, theirs))
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    met = "yes" if max(ratios) <= GOAL else "no"
    cells = [own[0], other[0], ratios[0], own[1], other[1], ratios[1]]
    return " | ".join(("", name, *(f"{each:.2f}" for each in cells), met, "")).strip()


def main() -> None:
    """Prints a table of what a small run of each format takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*IMPORTS])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{date.today()}; medians of {given.rounds} rounds\n")
    print("| model | run, s | imports | ratio | run, CPU-s | imports | ratio | <= 1.15 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix="start-up-") as home:
            print(_row(name, *measure(name, given.rounds, Path(home))), flush=True)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
