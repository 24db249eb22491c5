"""Test that a run whose output, lease or work is taken away fails with the output's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import FailedError
from batchscore.runs.lease import acquire, require_lease
from batchscore.storage.store import Store
from tests.factory import published, run_cli, run_json, write_job

pytestmark = pytest.mark.slow

# What is scored before a run's first unit is not counted: the run has no work folder yet.
REMOVE = """import pathlib, shutil

seen = []
work = pathlib.Path(__file__).parent / "out/_batchscore/work"


def f(batch):
    if work.exists():
        seen.append(batch)
    if len(seen) == {block}:
        for path in sorted(pathlib.Path(__file__).parent.glob({path!r})):
            shutil.rmtree(path)
    return batch
"""
TAKE = """import pathlib

seen = []
folder = pathlib.Path(__file__).parent / "out/_batchscore/slices/small/lease"


def f(batch):
    if folder.exists():
        seen.append(batch)
    if len(seen) == 2:
        (folder / "00000009.json").write_text("{}")
    return batch
"""


def job_of(folder: Path, code: str) -> Path:
    """A job of five blocks whose function does something on the way."""
    (folder / "features.py").write_text(code)
    changes: dict[str, Any] = {"preprocess": {"function": "features.py:f"}}
    return write_job(folder, {**changes, "runtime.batch_rows": 100, "runtime.workers": 1})


@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize("path", ["out", "out/_batchscore"])
def test_an_output_that_is_removed_fails_the_run(tmp_path: Path, path: str, block: int) -> None:
    """The run ends with 1 and the output's name, makes nothing again, and can be run again."""
    job = job_of(tmp_path, REMOVE.format(path=path, block=block))
    done = run_cli("run", job)
    words = f"FAILED  output {tmp_path}/out: was removed while run "
    assert (done.exit_code, done.stderr.splitlines()[-1][: len(words)]) == (1, words), done.stderr
    assert list((tmp_path / "out").rglob("*")) == []
    (tmp_path / "features.py").write_text("def f(batch):\n    return batch\n")
    assert run_json("run", job)["status"] == "published"
    assert len(published(tmp_path / "out")) == 500


@pytest.mark.parametrize("block", [1, 5])
def test_work_that_is_removed_fails_the_run(tmp_path: Path, block: int) -> None:
    """The folder is named; the run is listed as failed, and can be run again."""
    job = job_of(tmp_path, REMOVE.format(path="out/_batchscore/work", block=block))
    found = run_json("run", job)
    assert (found["exit_code"], found["status"]) == (1, "failed")
    assert f"output {tmp_path}/out: _batchscore/work/" in found["error"]
    assert run_json("show", tmp_path / "out")["status"] == "failed"
    (tmp_path / "features.py").write_text("def f(batch):\n    return batch\n")
    assert run_json("run", job)["status"] == "published"


def test_a_lease_that_is_lost_to_another_fails_the_run(tmp_path: Path) -> None:
    """It is not reported as removed, nor as stopped by a signal."""
    found = run_json("run", job_of(tmp_path, TAKE))
    assert (found["exit_code"], found["status"]) == (1, "failed")
    assert "another run took it over" in found["error"]


def test_a_lease_of_another_run_under_the_same_number_does_not_count(tmp_path: Path) -> None:
    """An output that was removed and made again by another run has its numbers, too."""
    store = Store(str(tmp_path))
    with acquire(store, "small", "run", "r2") as other:
        require_lease(store, "small", other.number, "r2")
        with pytest.raises(FailedError, match="removed or replaced while run r1"):
            require_lease(store, "small", other.number, "r1")


def test_a_lease_that_was_removed_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a renewal nor the release brings the folder of a removed output back."""
    monkeypatch.setattr("batchscore.runs.lease.RENEWAL_SECONDS", 0.01)
    store = Store(str(tmp_path / "out"))
    lease = acquire(store, "small", "run", "r1")
    store.remove("")
    lease._renewer.join(0.1)
    lease.release()
    assert not (tmp_path / "out").exists()
