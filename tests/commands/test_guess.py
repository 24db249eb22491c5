"""Tests of the guess whether a run will need a model's process."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from batchscore.commands import guess
from batchscore.commands.guess import start_early
from batchscore.models.process import early
from tests import factory


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats that processes were started for, on a machine where a process has a use."""
    found: list[str] = []
    monkeypatch.setattr(early, "start", found.append)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(guess, "count_cores", lambda: 2)
    monkeypatch.setattr(guess, "shows_gpu", lambda: False)
    return found


def test_a_first_run_starts_a_process(tmp_path: Path, started: list[str]) -> None:
    """The format is that of the model folder's card, or of the job file."""
    job = str(factory.write_job(tmp_path))
    start_early(job, (), ())
    start_early(job, (), ("model.format=pt", "model.path=weights.pt"))
    start_early(job, (), (f"model={tmp_path}/model",))
    assert started == ["safetensors", "pt", "safetensors"]


@pytest.mark.parametrize(
    "override",
    [
        "runtime.model_process=off",
        "runtime.engine=flink",
        "runtime.device=cuda:0",
        "model.format=npz",
        "output.path=s3://bucket/out",
        "output.path=out/{day}",
        "model.path=nowhere",
        "runtime=1",
    ],
)
def test_nothing_is_started_without_need(override: str, tmp_path: Path, started: list[str]) -> None:
    """What is wrong with the job is left to those who read it."""
    start_early(str(factory.write_job(tmp_path)), (), (override,))
    assert started == []


def test_a_job_file_that_cannot_be_read_starts_nothing(tmp_path: Path, started: list[str]) -> None:
    """It is no error here."""
    (tmp_path / "job.yaml").write_text("{")
    for path in ("job.yaml", "missing.yaml", ""):
        start_early(str(tmp_path / path), (), ())
    assert started == []


def test_a_job_file_that_is_a_pipe_is_left_to_its_reader(
    tmp_path: Path, started: list[str]
) -> None:
    """What is read of a pipe is gone: `check <(render job.yaml)` reads the job once."""
    job, pipe = factory.write_job(tmp_path), tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(job.read_text(),))
    writer.start()
    start_early(str(pipe), (), ())
    assert (started, pipe.read_text()) == ([], job.read_text())
    writer.join()


def test_a_slice_that_is_published_starts_nothing(tmp_path: Path, started: list[str]) -> None:
    """Its run may have nothing to do; a command that loads the model in any case starts it."""
    job = str(factory.write_job(tmp_path))
    (tmp_path / "out/_batchscore/slices/job,date=2026-11-20").mkdir(parents=True)
    start_early(job, ("date=2026-11-20",), ())
    assert started == []
    start_early(job, ("date=2026-11-21",), ())
    start_early(job, ("date=2026-11-20",), (), loads=True)
    assert started == ["safetensors", "safetensors"]


def test_a_path_that_was_typed_starts_from_the_current_folder(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where the job is read."""
    job = str(factory.write_job(tmp_path / "job"))
    (tmp_path / "out/_batchscore/slices/job").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    start_early(job, (), ("output.path=out",))
    assert started == []


def test_a_framework_that_is_imported_here_is_in_no_process(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook that has made the model."""
    monkeypatch.setitem(sys.modules, "torch", sys)
    start_early(str(factory.write_job(tmp_path)), (), ())
    assert started == []
