"""Tests of how a command ends that cannot do its work: tracebacks, rejects, no rows, processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests import factory
from tests.factory import change_job, make_rows, run_cli, run_json, write_job, write_shard
from tests.spoils import (
    GO_ON,
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

pytestmark = pytest.mark.slow

MANY_SECONDS = 120
DIVIDES = "def encode(batch): return 1 / 0"
PROGRESS = re.compile(r"\d\d:\d\d:\d\d scored ")


@pytest.fixture
def scored_job(scored_job: Path) -> Path:
    """A folder of a job that was run, and scores again whatever is spoiled in it."""
    change_job(scored_job, GO_ON)
    return scored_job


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
        "_detail": "output 'logit': nan, expected a finite number; "
        "the model was given nan for column 'a'",
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


def test_the_first_rows_of_a_slice_are_no_change_of_its_scores(tmp_path: Path) -> None:
    """What was published of no shard has no columns, and no row of it would be scored again."""
    job = write_job(tmp_path, {"input.allow_empty": True, "on_change.model": "hold"})
    (tmp_path / "in").rename(tmp_path / "late")
    assert run_json("run", job)["status"] == "empty"
    (tmp_path / "late").rename(tmp_path / "in")
    found = run_json("run", job)
    assert (found["status"], found["rows"]["scored"], found["changed"]) == ("published", 500, [])


def test_a_process_of_its_own_ends_with_one_message(tmp_path: Path) -> None:
    """In real processes nothing hangs, and nothing but the message and progress is printed."""
    workers = after(change(runtime__workers=2), preprocess(DIVIDES))
    spoils: dict[str, tuple[Spoil, int, str]] = {
        "job": (change(naem="x"), 2, "naem"),
        "shard": (shard(b"x"), 2, "not a readable Parquet file"),
        "function": (preprocess(DIVIDES), 1, "ZeroDivisionError"),
        "workers": (workers, 1, "ZeroDivisionError"),
        "nan": (shard(with_nan(2)), 1, "rejects.max_ratio"),
    }
    started, before = {}, {}
    for name, (spoil, _, _) in spoils.items():
        folder = tmp_path / name
        assert run_cli("run", write_job(folder, GO_ON)).exit_code == 0
        before[name] = published_bytes(folder)
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
        assert published_bytes(tmp_path / name) == before[name]


def test_what_user_code_prints_is_no_part_of_the_result(scored_job: Path) -> None:
    """With --json standard output is one document, whatever a function prints, or Click refuses."""
    (scored_job / "noisy.py").write_text("def f(batch):\n    print('noise')\n    return batch\n")
    factory.change_job(scored_job, {"preprocess": {"function": "noisy.py:f"}})
    for command in ("check", "run"):
        done = run_cli(command, "--json", scored_job / "job.yaml")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["exit_code"] == 0
        assert "noise" in done.stderr


@pytest.mark.parametrize(
    "words", [["run", "--json"], ["run", "--json", "--bogus"], ["no", "--json"]]
)
def test_a_wrong_command_line_is_json_too(words: list[str]) -> None:
    """Arguments that are missing or unknown are reported as JSON where that was asked for."""
    command = [sys.executable, "-m", "batchscore", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["status"] == "invalid"


def test_a_file_that_a_function_reads_has_to_be_declared(scored_job: Path) -> None:
    """Until then nothing is scored; a report that is saved next to it changes nothing."""
    code = "from pathlib import Path\nK = Path(__file__).with_name('k.json').read_text()\n"
    (scored_job / "scaled.py").write_text(f"{code}\ndef f(batch):\n    return batch\n")
    (scored_job / "k.json").write_text("1")
    job = factory.change_job(scored_job, {"preprocess": {"function": "scaled.py:f"}})
    refused = factory.run_json("run", job)
    assert (refused["exit_code"], "code: [k.json]" in refused["error"]) == (2, True)
    factory.change_job(scored_job, {"code": ["k.json"]})
    assert factory.run_json("run", job)["status"] == "published"
    (scored_job / "report.html").write_text("a report")
    assert factory.run_json("run", job)["status"] == "unchanged"
    (scored_job / "k.json").write_text("2")
    found = factory.run_json("run", job)
    assert (found["status"], found["changed"]) == ("published", ["code k.json"])


def test_an_output_whose_first_run_ended_early_can_be_used(tmp_path: Path) -> None:
    """An output of which there is but an empty folder is no stranger's."""
    job = factory.write_job(tmp_path)
    (tmp_path / "out/_batchscore").mkdir(parents=True)
    assert factory.run_json("run", job)["status"] == "published"


def test_rows_that_were_all_rejected_are_no_result(scored_job: Path) -> None:
    """However many rejects are allowed, a run without a score fails."""
    write_shard(
        scored_job / "in/0.parquet", make_rows(9).set_column(1, "a", pa.nulls(9, pa.float32()))
    )
    job = factory.change_job(scored_job, {"input.path": "in/0.parquet", "rejects.max_ratio": 1.0})
    done = factory.run_json("run", job)
    assert (done["exit_code"], done["status"]) == (1, "failed")
    assert "0 of 9 rows were scored" in done["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits file sizes by a Linux shell")
def test_a_full_disk_is_reported_and_recorded(scored_job: Path) -> None:
    """What cannot be written fails the run with the system's words, and nothing is published."""
    before = published_bytes(scored_job)
    code = f'ulimit -f 2; exec "{sys.executable}" -m batchscore run job.yaml --rescore'
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {code}"],
        cwd=scored_job,
        capture_output=True,
        text=True,
        timeout=MANY_SECONDS,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    assert published_bytes(scored_job) == before


def test_a_list_of_mixed_values_is_a_wrong_filter(scored_job: Path) -> None:
    """Values that no column could hold together are found before any work."""
    change(input__filters=[["id", "in", [1, "x"]]])(scored_job)
    done = run_cli("run", scored_job / "job.yaml")
    assert done.exit_code == 2
    assert "column 'id' is int64" in done.output
    assert "with 'x' (a text); write a number" in done.output


def test_credentials_in_an_output_are_not_shown() -> None:
    """An address given on the command line is held to the same rule as one in a job."""
    done = run_cli("runs", "s3://me:hunter2@bucket/x")
    assert done.exit_code == 2
    assert "hunter2" not in done.output


def test_code_next_to_an_architecture_is_watched(scored_job: Path) -> None:
    """A module that the network's file imports is a part of the model."""
    one_file()(scored_job)
    net = (scored_job / "net.py").read_text()
    (scored_job / "net.py").write_text(f"{net}\nimport helper\n")
    (scored_job / "helper.py").write_text("K = 1\n")
    job = scored_job / "job.yaml"
    assert factory.run_json("run", job)["status"] == "published"
    assert factory.run_json("run", job)["status"] == "unchanged"
    (scored_job / "helper.py").write_text("K = 2\n")
    assert factory.run_json("run", job)["status"] == "published"


PICKY = """def encode(batch):
    with open({calls!r}, "a") as file:
        file.write("a call\\n")
    if ({guilty})(batch["id"].to_numpy()).any():
        raise ValueError("guilty")
    return batch
"""


def test_a_batch_of_guilty_rows_is_not_searched_beyond_what_is_allowed(scored_job: Path) -> None:
    """Of rows half of which are guilty no more are isolated than the whole run may reject."""
    write_shard(scored_job / "in/0.parquet", make_rows(20_000))
    calls = scored_job.parent / "calls.txt"
    preprocess(PICKY.format(calls=str(calls), guilty="lambda ids: ids % 2 == 1"))(scored_job)
    settings = {"input.path": "in/0.parquet", "rejects.max_ratio": 0.001}
    done = factory.run_json("run", factory.change_job(scored_job, settings))
    assert len(calls.read_text().splitlines()) < 500
    assert (done["exit_code"], done["status"]) == (1, "failed")
    assert "at least 21 rows" in done["error"]
    assert "at most 20 may be rejected (rejects.max_ratio, rejects.max_rows)" in done["error"]


@pytest.mark.parametrize("batch_rows", [64, 500, 4096])
def test_whether_late_rows_are_rejected_does_not_depend_on_the_cut(
    scored_job: Path, batch_rows: int
) -> None:
    """Guilty rows behind good ones are set aside, be they a whole batch or a part of one."""
    write_shard(scored_job / "in/0.parquet", make_rows(2000))
    preprocess(PICKY.format(calls=os.devnull, guilty="lambda ids: ids >= 1500"))(scored_job)
    settings = {
        "input.path": "in/0.parquet",
        "rejects.max_ratio": 0.25,
        "runtime.batch_rows": batch_rows,
    }
    done = factory.run_json("run", factory.change_job(scored_job, settings))
    assert done["status"] == "published", done
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (1500, 500)
