"""Test that runs side by side, in processes of their own, do not touch one another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.factory import (
    change_job,
    make_rows,
    published,
    run_cli,
    run_json,
    write_job,
    write_shard,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# Waits in a run that has the file's name, once it has scored two batches, until the file is there.
# Two more may be in the process of its model.
WAITING = """import os
import time

GO, WORK = os.environ.get("GO"), {work!r}
calls = 0


def encode(batch):
    global calls
    calls += os.path.isdir(WORK)
    end = time.monotonic() + 90
    while GO and calls > 4 and not os.path.exists(GO) and time.monotonic() < end:
        time.sleep(0.02)
    return batch
"""


def start(job: Path, *args: str, go: Path | None = None) -> subprocess.Popen[str]:
    """Starts a run; with `go`, it waits for this file in the midst of its rows."""
    command = [sys.executable, "-m", "batchscore", "run", "--json", str(job), *args]
    environment = {**os.environ, "GO": str(go)} if go else None
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    assert found["exit_code"] == process.returncode
    return found


def wait_for_progress(output: Path) -> None:
    """Waits until a run of an output has scored rows."""
    wait_until(lambda: any(output.glob("_batchscore/work/*/progress/*.json")))


@pytest.fixture
def waiting_job(tmp_path: Path) -> Path:
    """A job of 20 batches, whose function waits for a file where the run names one."""
    work = str(tmp_path / "out/_batchscore/work")
    (tmp_path / "slow.py").write_text(WAITING.format(work=work))
    return write_job(tmp_path, {"preprocess.function": "slow.py:encode", "runtime.batch_rows": 25})


def test_the_second_run_of_a_slice_reports_who_holds_it(waiting_job: Path, tmp_path: Path) -> None:
    """It ends with 4 at once, names the first, and changes nothing; the first publishes."""
    first = start(waiting_job, go=tmp_path / "go")
    wait_for_progress(tmp_path / "out")
    second = run_json("run", waiting_job)
    assert (second["status"], second["exit_code"]) == ("retry", 4)
    assert f"pid {first.pid}" in second["error"]
    checked = run_json("check", waiting_job)
    assert f"pid {first.pid}" in checked["held_by"]
    (tmp_path / "go").touch()
    done = ended(first)
    assert done["status"] == "published"
    assert done["run"] in second["error"]
    assert len(published(tmp_path / "out")) == 500


def test_a_killed_run_is_succeeded_at_once(waiting_job: Path, tmp_path: Path) -> None:
    """The lease of a process that is dead keeps nobody out, and the run is reported as failed."""
    first = start(waiting_job, go=tmp_path / "go")
    wait_for_progress(tmp_path / "out")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    change_job(tmp_path, {"runtime.batch_rows": None})
    assert run_json("run", waiting_job)["status"] == "published"
    history = json.loads(run_cli("runs", "--json", tmp_path / "out").stdout)
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
