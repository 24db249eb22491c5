"""Tests of how a command ends that cannot do its work: tracebacks, rejects, no rows, processes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.factory import run_cli
from tests.spoils import (
    ROWS,
    Spoil,
    after,
    change,
    files,
    hide_code,
    one_file,
    preprocess,
    published_bytes,
    shard,
    with_nan,
)

MANY_SECONDS = 120
DIVIDES = "def encode(batch): return 1 / 0"
PROGRESS = re.compile(r"\d\d:\d\d:\d\d scored ")


def test_weights_that_want_to_run_code_do_not(scored_job: Path) -> None:
    """A pickle in a .pt file is refused before its code runs, though torch would run it."""
    one_file(hide_code, "w.pt")(scored_job)
    assert run_cli("run", scored_job / "job.yaml").exit_code == 2
    assert run_cli("check", scored_job / "job.yaml").exit_code == 2
    assert not (scored_job / "ran").exists()
    torch.load(scored_job / "w.pt", weights_only=False)
    assert (scored_job / "ran").exists()


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("spoil", "line"),
    [(shard(b"x"), "ArrowInvalid"), (preprocess(DIVIDES), "def encode(batch): return 1 / 0")],
    ids=["shard", "function"],
)
def test_debug_shows_the_traceback(scored_job: Path, command: str, spoil: Spoil, line: str) -> None:
    """With --debug the traceback comes too, down to the line that failed; the message stays."""
    spoil(scored_job)
    message = run_cli(command, scored_job / "job.yaml").stderr
    debugged = run_cli(command, "--debug", scored_job / "job.yaml").stderr
    assert ("Traceback" in message, "Traceback" in debugged) == (False, True)
    assert line in debugged
    assert debugged.endswith(message)


def test_rows_with_nan_below_the_ratio_are_set_aside(scored_job: Path) -> None:
    """A few bad rows do not stop a run: they lie in a rejects file with all that is known."""
    table = with_nan(3)
    shard(table)(scored_job)
    change(rejects__max_ratio=0.01)(scored_job)
    done = run_cli("run", "--json", scored_job / "job.yaml")
    manifest = json.loads(done.stdout)
    assert (done.exit_code, manifest["status"]) == (0, "published")
    assert (manifest["rows"]["scored"], manifest["rows"]["rejected"]) == (497, 3)
    (file,) = manifest["rejects"]["files"]
    rejects = pq.read_table(scored_job / "out" / file)
    source = rejects.select(table.column_names)
    assert source.schema.equals(table.schema)
    assert source.drop_columns(["a"]).equals(table.drop_columns(["a"])[:3])
    assert np.isnan(source["a"].to_numpy()).all()
    expected = {
        "_shard": str(scored_job / "in/1.parquet"),
        "_stage": "infer",
        "_error": "NonFiniteScore",
        "_message": "the model returned NaN or infinity",
    }
    found = rejects.drop_columns(table.column_names).to_pylist()
    assert found == [{**expected, "_row": row} for row in range(3)]


@pytest.mark.parametrize(
    "spoil",
    [
        change(input__filters=[["id", ">", 9999]]),
        change(input__path="in/*.parq"),
        files(shard(ROWS[:0]), change(input__path="in/1.parquet")),
    ],
    ids=["filter", "no-shard", "no-rows"],
)
def test_no_rows_are_a_result_where_the_job_says_so(scored_job: Path, spoil: Spoil) -> None:
    """With allow_empty a run without rows ends with 0, and what was published is retired."""
    spoil(scored_job)
    change(input__allow_empty=True)(scored_job)
    assert run_cli("check", scored_job / "job.yaml").exit_code == 0
    done = run_cli("run", "--json", scored_job / "job.yaml")
    manifest = json.loads(done.stdout)
    assert (done.exit_code, manifest["exit_code"], manifest["status"]) == (0, 0, "empty")
    assert list((scored_job / "out/data").rglob("*.parquet")) == []
    assert (scored_job / "out/_batchscore/slices/small/current.txt").read_bytes() == b""


@pytest.mark.slow
def test_a_process_of_its_own_ends_with_one_message(scored_template: Path, tmp_path: Path) -> None:
    """In real processes nothing hangs, and nothing but the message and progress is printed."""
    workers = after(change(runtime__workers=2), preprocess(DIVIDES))
    spoils: dict[str, tuple[Spoil, int, str]] = {
        "job": (change(naem="x"), 2, "naem"),
        "shard": (shard(b"x"), 2, "not a readable Parquet file"),
        "function": (preprocess(DIVIDES), 1, "ZeroDivisionError"),
        "workers": (workers, 1, "ZeroDivisionError"),
        "nan": (shard(with_nan(2)), 1, "rejects.max_ratio"),
    }
    started = {}
    for name, (spoil, _, _) in spoils.items():
        folder = Path(shutil.copytree(scored_template, tmp_path / name))
        spoil(folder)
        command = [sys.executable, "-m", "batchscore", "run", str(folder / "job.yaml")]
        pipe = subprocess.PIPE
        started[name] = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    for name, process in started.items():
        stdout, stderr = process.communicate(timeout=MANY_SECONDS)
        _, code, words = spoils[name]
        assert (process.returncode, words in stdout + stderr) == (code, True), stdout + stderr
        printed = [line for line in stderr.splitlines() if not PROGRESS.match(line)]
        assert len(printed) == (name != "nan"), stderr
        assert published_bytes(tmp_path / name) == published_bytes(scored_template)
