"""Jobs from Python: what `bs.check` and `bs.run` return, raise, and leave alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from batchscore.api import _plain, _yaml
from tests.factory import write_job
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
ONE_WORKER = {"runtime.workers": 1}


def test_a_run_returns_what_it_published(tmp_path: Path) -> None:
    """The result has the rows, the files and the whole manifest."""
    found = bs.run(write_job(tmp_path), overrides=ONE_WORKER)
    assert (found.status, found.held, found.reason) == ("published", False, None)
    rows = found.rows
    assert rows.input == rows.scored + rows.filtered + rows.rejected + rows.quarantined > 0
    assert sum(pq.read_metadata(file).num_rows for file in found.files) == rows.scored
    assert all(each.passed for each in found.checks)
    shown = json.loads(
        (tmp_path / "out/_batchscore/runs" / found.run / "manifest.json").read_text()
    )
    assert shown["rows"] == found.manifest["rows"]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bs.CheckResult]:
    """A job's folder, and what a check of it found, with a parameter and overrides of all types."""
    folder = tmp_path_factory.mktemp("checked")
    changes = {"params": {"day": {"type": "date"}}, "checks.score_range": {"score": [1e6, 2e6]}}
    overrides = {
        "output.path": folder / "scores/${day}",
        "input.filters": [["id", ">=", 10]],
        "name": "2026",
        **ONE_WORKER,
    }
    job = write_job(folder, changes)
    return folder, bs.check(job, {"day": date(2026, 1, 2)}, overrides=overrides)


def test_a_check_writes_nothing(checked: tuple[Path, bs.CheckResult]) -> None:
    """A check returns what a run would do, a hold as well, and leaves no output."""
    folder, found = checked
    assert (found.status, found.rows, found.unit_rows) == ("held", 500, 500)
    assert [each.name for each in found.checks if not each.passed] == ["score_range"]
    assert found.estimated_seconds
    assert {each.name for each in folder.iterdir()} == {"in", "model", "job.yaml"}


def test_parameters_and_overrides_keep_their_types(checked: tuple[Path, bs.CheckResult]) -> None:
    """A date is a date of the job; lists, texts and paths reach the keys that they are for."""
    folder, found = checked
    assert found.output == f"{folder}/scores/2026-01-02"
    assert found.document["batch"]["rows"] == found.rows - 10


def test_a_held_run_is_returned(tmp_path: Path) -> None:
    """A check that does not pass holds the run: no error, no file, and the reason."""
    job = write_job(tmp_path, {"checks.score_range": {"score": [1e6, 2e6]}})
    found = bs.run(job, overrides=ONE_WORKER)
    assert (found.status, found.held, found.files) == ("held", True, ())
    assert found.reason is not None
    assert "score_range" in found.reason


def _broken(folder: Path) -> Path:
    (folder / "code.py").write_text("def encode(batch):\n    raise ValueError('no')\n")
    changes = {"preprocess": {"function": "code.py:encode"}, **ONE_WORKER}
    return write_job(folder, changes)


WRONG: dict[str, tuple[Callable[[Any], Any], Callable[[Path], Any], type[Exception], str]] = {
    "no job file": (bs.check, lambda _: "--help", bs.InvalidError, "no such job file: --help"),
    "a job that fails": (bs.run, _broken, bs.FailedError, "ValueError: no"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_raised(name: str, tmp_path: Path) -> None:
    """An error of the class that the exit code stands for, with the command's message."""
    call, make, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call(make(tmp_path))


@pytest.mark.parametrize("values", [{"params": {"d": object()}}, {"overrides": {"x": object()}}])
def test_values_that_no_job_file_holds_are_refused(values: Any, tmp_path: Path) -> None:
    """A value that is no text, number, boolean, date, list or dict is a TypeError."""
    with pytest.raises(TypeError, match="found an object"):
        bs.run(write_job(tmp_path), **values)


@pytest.mark.parametrize(
    ("value", "parameter", "override"),
    [
        (True, "true", "true"),
        (np.int64(3), "3", "3"),
        (np.float32(0.5), "0.5", "0.5"),
        (date(2026, 11, 30), "2026-11-30", "2026-11-30"),
        ("3", "3", '"3"'),
    ],
)
def test_values_become_those_of_a_job_file(value: Any, parameter: str, override: str) -> None:
    """Numbers of NumPy are numbers, as parameters and as other values for keys."""
    assert (_plain("p", value), _yaml("k", value)) == (parameter, override)
    assert _yaml("k", [Path("a"), np.int8(1)]) == '["a", 1]'


HOST = """
import gc, json, os, signal, sys
import batchscore as bs

def state():
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    return dict(os.environ), handlers, gc.get_freeze_count(), gc.get_threshold()

before = state()
found = bs.run(sys.argv[1], overrides={"runtime.workers": 2})
heavy = sorted({"torch", "apache_beam", "numpy", "pyarrow"} & set(sys.modules))
print(json.dumps([found.status, before == state(), heavy]))
"""
LEAVING = """
import os, subprocess, mylib

def encode(batch):
    assert "PYTHONPATH" not in os.environ
    left = subprocess.Popen(["sleep", "{seconds:.0f}"])
    open({note!r}, "a").write(f"{{left.pid}} ")
    return mylib.same(batch)
"""


@dataclass(frozen=True)
class Hosted:
    """A host that called `bs.run`.

    Args:
        status: What the run came to.
        is_same: Whether the host's own state was the same afterwards.
        heavy: Heavy modules that the host had imported.
        stderr: What it printed to standard error.
        left: How many processes the run left behind.
        alive: How many of these outlived the host.
    """

    status: str
    is_same: bool
    heavy: list[str]
    stderr: str
    left: int
    alive: int


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Hosted:
    """A host of a job whose function imports from the host's `sys.path`, and leaves processes."""
    folder = tmp_path_factory.mktemp("hosted")
    note = folder / "left"
    (folder / "job").mkdir()
    (folder / "lib").mkdir()
    (folder / "lib/mylib.py").write_text("def same(batch):\n    return batch\n")
    code = LEAVING.format(seconds=3600, note=str(note))
    (folder / "job/code.py").write_text(code)
    job = write_job(folder / "job", {"preprocess": {"function": "code.py:encode"}})
    program = f"import sys; sys.path.insert(0, {str(folder / 'lib')!r})\n{HOST}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program, str(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    finally:
        left = [int(pid) for pid in note.read_text().split()]
        alive = sum(psutil.pid_exists(pid) for pid in left)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    status, is_same, heavy = json.loads(done.stdout)
    return Hosted(status, is_same, heavy, done.stderr, len(left), alive)


def test_the_child_finds_what_the_host_finds(hosted: Hosted) -> None:
    """Modules on the host's `sys.path` are there for a job's functions; no variable says so."""
    assert hosted.status == "published"
    assert "scored" in hosted.stderr or hosted.stderr == ""


def test_a_process_that_is_left_behind_keeps_nobody_waiting(hosted: Hosted) -> None:
    """A function's process that outlives the run, and holds its streams, is not waited for."""
    assert hosted.left == hosted.alive > 0


def test_the_host_stays_as_it_is(hosted: Hosted) -> None:
    """Environment, signal handlers, garbage collector and modules of the host are untouched."""
    assert (hosted.is_same, hosted.heavy) == (True, [])


SLOW = """
import time

def encode(batch):
    open({mark!r}, "w").close()
    time.sleep(0.5)
    return batch
"""


def _slow(folder: Path) -> tuple[Path, Path]:
    """Returns a job whose batches take half a second, and the file that its function makes."""
    mark = folder.parent / f"{folder.name}-started"
    (folder / "code.py").write_text(SLOW.format(mark=str(mark)))
    runtime = {"batch_rows": 5, "workers": 1}
    changes = {"preprocess": {"function": "code.py:encode"}, "runtime": runtime}
    return write_job(folder, changes), mark


def _host(job: Path, mark: Path) -> subprocess.Popen[str]:
    """Starts a process that calls `bs.run`, and waits until its child scores."""
    # What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
    honouring = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{honouring}; import sys, batchscore as bs; bs.run(sys.argv[1])"
    command = [sys.executable, "-c", code, str(job)]
    host = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: mark.exists() or host.poll() is not None, PATIENCE_S)
    assert host.poll() is None, host.communicate()[1]
    return host


def _gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]


def test_ctrl_c_stops_the_child_and_then_the_host(tmp_path: Path) -> None:
    """The child puts its work away before the host raises KeyboardInterrupt."""
    job, mark = _slow(tmp_path)
    host = _host(job, mark)
    children = psutil.Process(host.pid).children(recursive=True)
    host.send_signal(signal.SIGINT)
    _, stderr = host.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in stderr
    assert host.returncode != 0
    assert _gone(children)
    assert not list((tmp_path / "out").glob("_batchscore/slices/*/current.txt"))


def test_the_child_ends_with_its_host(tmp_path: Path) -> None:
    """A host that is killed takes its child along."""
    job, mark = _slow(tmp_path)
    host = _host(job, mark)
    children = psutil.Process(host.pid).children(recursive=True)
    host.kill()
    host.communicate()
    assert children
    assert _gone(children)


def test_a_child_that_is_killed_is_reported(tmp_path: Path) -> None:
    """A child that dies without a result is a FailedError that names the signal."""
    job, mark = _slow(tmp_path)

    def kill() -> None:
        wait_until(mark.exists, PATIENCE_S)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "batchscore.api" in " ".join(process.cmdline()):
                process.kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(bs.FailedError, match="ended with signal 9, without a result"):
        bs.run(job)


def test_a_run_that_somebody_else_stops_is_raised(tmp_path: Path) -> None:
    """SIGTERM to the child is a StoppedError in the host."""
    job, mark = _slow(tmp_path)

    def stop() -> None:
        wait_until(mark.exists, PATIENCE_S)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "batchscore.api" in " ".join(process.cmdline()):
                process.terminate()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(bs.StoppedError):
        bs.run(job)
