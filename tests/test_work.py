"""The guard that counts work: what a block costs does not grow, and what it counts is right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.counter import Counts, FileCounter, ThreadCounter
from benchmarks.work import FIGURES, find_changes, in_both

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent


def figures(**work: float) -> dict[str, Any]:
    """Figures of one job."""
    calls = {"stages/read": work.get("calls", 0.0)}
    return {"jobs": {"floats": {"of": "block", "work": work, "calls": calls}}}


@pytest.mark.skipif(sys.platform != "linux", reason="affinity and /proc/self/io are Linux's")
def test_no_count_grew() -> None:
    """Real jobs take no more work a block, a shard or a unit than the figures say."""
    command = [sys.executable, "-m", "benchmarks.work"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_figures_have_every_job() -> None:
    """Every job has figures of calls, of what it read, and of its network."""
    jobs = json.loads(FIGURES.read_text())["jobs"]
    for job in jobs.values():
        assert {"calls", "bytes read", "network rows", "bytes Arrow asked for"} <= set(job["work"])


@pytest.mark.parametrize(
    ("count", "old", "new", "reported"),
    [
        ("read calls", 8.0, 8.0, False),
        ("Parquet files opened", 8.0, 8.25, True),
        ("read calls", 0.0, 1.0, True),
        ("calls", 1000.0, 1029.0, False),
        ("calls", 1000.0, 1031.0, True),
        ("calls", 1000.0, 910.0, False),
        ("calls", 1000.0, 890.0, True),
    ],
)
def test_changes_beyond_the_slack(count: str, old: float, new: float, reported: bool) -> None:
    """A count is reported if it grows beyond its slack, or shrinks by more than a tenth."""
    changes = find_changes(figures(**{count: old}), figures(**{count: new}))
    assert bool(changes) == reported
    assert all(line.startswith(f"floats, block: {count} {old:,.0f} → ") for line in changes)


def test_a_change_counts_if_it_is_there_twice() -> None:
    """A count that grew at both looks is reported, by whatever it grew; others are not."""
    old = {"calls": 1000.0, "read calls": 8.0, "bytes read": 50.0}
    first = find_changes(figures(**old), figures(**{**old, "calls": 1100.0, "bytes read": 90.0}))
    second = find_changes(figures(**old), figures(**{**old, "calls": 1050.0, "read calls": 9.0}))
    assert (len(first), len(second)) == (2, 2)
    assert in_both(first, second) == [each for each in second if ": calls " in each]


def test_growth_names_its_module() -> None:
    """Where calls grew, the modules that make them are named."""
    [line] = find_changes(figures(calls=100.0), figures(calls=2000.0))
    assert line == "floats, block: calls 100 → 2,000 (stages/read 100 → 2,000)"


def test_a_job_without_figures_is_reported() -> None:
    """A job without figures is reported."""
    assert find_changes({"jobs": {}}, figures()) == ["floats: has no figures"]


def count(work: Any) -> Counts:
    """Count what a function of this file does."""
    counts = Counts()
    counter = ThreadCounter(HERE, counts, "networks.py")
    with counter.watched():
        work()
    counter.end()
    return counts


def loop(rows: int) -> None:
    """Go over rows without a call."""
    for row in range(rows):
        _ = row + 1


def test_a_loop_costs_lines() -> None:
    """A loop over rows costs lines, also where it calls nothing, on a thread of its own."""

    def work() -> None:
        thread = threading.Thread(target=loop, args=(500,))
        thread.start()
        thread.join()

    assert 1000 <= count(work).lines["test_work"] < 1020


def test_calls_are_those_of_the_module() -> None:
    """Calls count for the module that made them, those of the standard library on its behalf."""
    assert 40 <= count(lambda: [json.dumps([1]) for _ in range(10)]).calls["test_work"] < 200


def test_a_copy_costs_bytes() -> None:
    """An array that was copied and released counts with its bytes, and for the peak."""
    array = np.zeros(1 << 20)
    work = count(lambda: array.copy().sum()).work
    assert array.nbytes <= work["bytes NumPy and Python asked for"] < 1.01 * array.nbytes
    assert array.nbytes <= work["peak bytes of NumPy and Python"] < 1.01 * array.nbytes


def test_files_are_counted(tmp_path: Path) -> None:
    """What is asked of the file system about a folder's paths is counted, of others not."""
    counts = Counts()
    with FileCounter(tmp_path, counts.work).watched():
        (tmp_path / "a").write_text("some")
        (tmp_path / "a").replace(tmp_path / "b")
        assert (tmp_path / "b").exists()
        assert len(list(tmp_path.iterdir())) == 1
        assert (HERE / "test_work.py").exists()
    names = ("files opened by Python", "names made or changed", "files looked at")
    assert [counts.work[name] for name in names] == [1, 1, 1]
