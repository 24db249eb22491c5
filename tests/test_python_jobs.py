"""Jobs from Python: what `bs.check` and `bs.run` return, raise, and leave alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import batchscore as bs
from tests.factory import write_job

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0


def test_a_run_returns_what_it_published(tmp_path: Path) -> None:
    """The result has the rows, the files and the whole manifest; a second run has nothing to do."""
    found = bs.run(write_job(tmp_path), overrides={"runtime.workers": 1})
    assert (found.status, found.held, found.reason) == ("published", False, None)
    rows = found.rows
    assert rows.input == rows.scored + rows.filtered + rows.rejected + rows.quarantined > 0
    assert sum(pq.read_metadata(file).num_rows for file in found.files) == rows.scored
    assert all(each.passed for each in found.checks)
    shown = json.loads(
        (tmp_path / "out/_batchscore/runs" / found.run / "manifest.json").read_text()
    )
    assert shown["rows"] == found.manifest["rows"]
    again = bs.run(tmp_path / "job.yaml", overrides={"runtime.workers": 1})
    assert (again.status, again.run, again.files) == ("unchanged", found.run, found.files)


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    """A check returns what a run would do, a hold as well, and leaves no output."""
    found = bs.check(write_job(tmp_path, {"checks.score_range": {"score": [1e6, 2e6]}}))
    assert (found.status, found.unit_rows) == ("held", found.rows)
    assert [each.name for each in found.checks if not each.passed] == ["score_range"]
    assert found.estimated_seconds
    assert not (tmp_path / "out").exists()


def test_a_held_run_is_returned(tmp_path: Path) -> None:
    """A check that does not pass holds the run: no error, no file, and the reason."""
    found = bs.run(write_job(tmp_path, {"checks.score_range": {"score": [1e6, 2e6]}}))
    assert (found.status, found.held, found.files) == ("held", True, ())
    assert found.reason is not None
    assert "score_range" in found.reason


def _broken(folder: Path) -> Path:
    (folder / "code.py").write_text("def encode(batch):\n    raise ValueError('no')\n")
    return write_job(folder, {"preprocess": {"function": "code.py:encode"}})


WRONG: dict[str, tuple[Callable[[Any], Any], Callable[[Path], Any], type[Exception], str]] = {
    "no job file": (bs.run, lambda f: f / "nope.yaml", bs.InvalidError, "no such job file"),
    "like an option": (bs.check, lambda _: "--help", bs.InvalidError, "no such job file: --help"),
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
    with pytest.raises(TypeError, match="object"):
        bs.run(write_job(tmp_path), **values)


def test_parameters_and_overrides_keep_their_types(tmp_path: Path) -> None:
    """A date is a date of the job; lists, texts and paths reach the keys that they are for."""
    job = write_job(tmp_path, {"params": {"day": {"type": "date"}}})
    overrides = {
        "output.path": tmp_path / "scores/${day}",
        "input.filters": [["id", ">=", 10]],
        "name": "2026",
    }
    found = bs.check(job, {"day": date(2026, 1, 2)}, overrides=overrides)
    assert found.output == f"{tmp_path}/scores/2026-01-02"
    assert found.document["batch"]["rows"] == found.rows - 10


def test_the_child_finds_what_the_host_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules on the host's `sys.path` are there for a job's functions; no variable says so."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/mylib.py").write_text("def same(batch):\n    return batch\n")
    code = "import os, mylib\n\ndef encode(batch):\n"
    code += "    assert 'PYTHONPATH' not in os.environ\n    return mylib.same(batch)\n"
    (tmp_path / "job").mkdir()
    (tmp_path / "job/code.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    job = write_job(tmp_path / "job", {"preprocess": {"function": "code.py:encode"}})
    assert bs.run(job, overrides={"runtime.workers": 2}).status == "published"


def test_a_process_that_is_left_behind_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A function's process that outlives the run, and holds its streams, is not waited for."""
    code = "import subprocess\n\ndef encode(batch):\n"
    code += f"    left = subprocess.Popen(['sleep', '{3 * PATIENCE_S:.0f}'])\n"
    code += f"    open({str(tmp_path.parent / 'left')!r}, 'a').write(f'{{left.pid}} ')\n"
    code += "    return batch\n"
    (tmp_path / "code.py").write_text(code)
    job = write_job(tmp_path, {"preprocess": {"function": "code.py:encode"}})
    started = time.monotonic()
    try:
        assert bs.run(job).status == "published"
        assert time.monotonic() - started < PATIENCE_S
    finally:
        for pid in (tmp_path.parent / "left").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


HOST = """
import gc, json, os, signal, sys
import batchscore as bs
before = dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
found = bs.run(sys.argv[1])
after = dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
heavy = sorted({"torch", "apache_beam", "numpy", "pyarrow"} & set(sys.modules))
print(json.dumps([found.status, before == after, heavy, gc.get_freeze_count()]))
"""


def test_the_host_stays_as_it_is(tmp_path: Path) -> None:
    """Environment, signal handlers, garbage collector and modules of the host are untouched."""
    command = [sys.executable, "-c", HOST, str(write_job(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["published", True, [], gc_frozen_at_start()]
    assert "scored" in done.stderr or done.stderr == ""


def gc_frozen_at_start() -> int:
    code = "import gc; print(gc.get_freeze_count())"
    return int(subprocess.check_output([sys.executable, "-c", code]))


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
    code = "import sys, batchscore as bs; bs.run(sys.argv[1])"
    command = [sys.executable, "-c", code, str(job)]
    host = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + PATIENCE_S
    while not mark.exists():
        assert time.monotonic() < end
        assert host.poll() is None, host.communicate()[1]
        time.sleep(0.02)
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
        while not mark.exists():
            time.sleep(0.02)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "batchscore.api" in " ".join(process.cmdline()):
                process.kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(bs.FailedError, match="ended with signal 9 and without a result"):
        bs.run(job)


def test_a_run_that_somebody_else_stops_is_raised(tmp_path: Path) -> None:
    """SIGTERM to the child is a StoppedError in the host."""
    job, mark = _slow(tmp_path)

    def stop() -> None:
        while not mark.exists():
            time.sleep(0.02)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "batchscore.api" in " ".join(process.cmdline()):
                process.terminate()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(bs.StoppedError):
        bs.run(job)
