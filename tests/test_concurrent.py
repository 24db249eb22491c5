"""Test that runs side by side, in processes of their own, do not touch one another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.factory import change_job, make_rows, published, run_json, write_job, write_shard

pytestmark = pytest.mark.slow

SLOW = """import time


def encode(batch):
    time.sleep(0.2)
    return batch
"""


def start(job: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batchscore", "run", "--json", str(job), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    assert found["exit_code"] == process.returncode
    return found


def wait_for(pattern: str, folder: Path, seconds: float = 60) -> Path:
    """Waits until a file is there."""
    end = time.monotonic() + seconds
    while not (found := sorted(folder.glob(pattern))):
        assert time.monotonic() < end, f"no {pattern} in {folder}"
        time.sleep(0.05)
    return found[0]


@pytest.fixture
def slow_job(tmp_path: Path) -> Path:
    """A job of 20 batches of .2 s, in a unit each."""
    (tmp_path / "slow.py").write_text(SLOW)
    return write_job(tmp_path, {"preprocess.function": "slow.py:encode", "runtime.batch_rows": 25})


def test_the_second_run_of_a_slice_reports_who_holds_it(slow_job: Path, tmp_path: Path) -> None:
    """It ends with 4 at once, names the first, and changes nothing; the first publishes."""
    first = start(slow_job)
    wait_for("_batchscore/work/*/progress/*.json", tmp_path / "out")
    second = run_json("run", slow_job)
    assert (second["status"], second["exit_code"]) == ("retry", 4)
    assert f"pid {first.pid}" in second["error"]
    checked = run_json("check", slow_job)
    assert f"pid {first.pid}" in checked["held_by"]
    done = ended(first)
    assert done["status"] == "published"
    assert done["run"] in second["error"]
    assert len(published(tmp_path / "out")) == 500


def test_a_killed_run_is_succeeded_at_once(slow_job: Path, tmp_path: Path) -> None:
    """The lease of a process that is dead keeps nobody out, and the run is told as failed."""
    first = start(slow_job)
    wait_for("_batchscore/work/*/progress/*.json", tmp_path / "out")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    change_job(tmp_path, {"runtime.batch_rows": None})
    assert run_json("run", slow_job)["status"] == "published"
    history = json.loads(
        subprocess.run(
            [sys.executable, "-m", "batchscore", "runs", "--json", str(tmp_path / "out")],
            capture_output=True,
            check=True,
        ).stdout
    )
    assert [run["status"] for run in history] == ["published", "failed"]
    assert "killed" in history[1]["error"]
    assert not list((tmp_path / "out/_batchscore").glob("work/*"))


def test_dates_are_filled_in_side_by_side(tmp_path: Path) -> None:
    """Six slices of one output, all at once, publish their own rows and no other."""
    job = write_job(
        tmp_path,
        {
            "params": {"day": {"type": "integer"}},
            "input.path": "days/${day}.parquet",
            "output.partition_by": ["part"],
        },
    )
    for day in range(6):
        write_shard(tmp_path / f"days/{day}.parquet", make_rows(50, 50 * day))
    runs = [start(job, "--param", f"day={day}") for day in range(6)]
    found = [ended(run) for run in runs]
    assert [run["status"] for run in found] == ["published"] * 6
    assert published(tmp_path / "out")["id"].to_pylist() == list(range(300))
    assert run_json("verify", tmp_path / "out")["exit_code"] == 0
