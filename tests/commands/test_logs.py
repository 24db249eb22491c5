"""What `show --logs` shows: by worker process, safely, of runs that ended or are under way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscore.runs import layout
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.worker_logs import LogLine, WorkerLog, read_logs, write_log
from batchscore.storage.store import Store
from tests import factory

pytestmark = pytest.mark.slow

SPEAKING = """import logging


def speak(batch):
    logging.getLogger("mine").warning("%d rows", batch.num_rows)
    print("printed")
    return batch
"""


def test_worker_processes_of_this_machine_leave_their_logs(tmp_path: Path) -> None:
    """With several workers, each process that logged something has a log, also as JSON."""
    changes = {"preprocess": {"function": "mine.py:speak"}, "runtime": {"workers": 2}}
    job = factory.write_job(tmp_path, changes)
    (tmp_path / "mine.py").write_text(SPEAKING)
    run = factory.run_json("run", job)["run"]
    found = factory.run_json("show", job, run, "--logs")
    assert found["run"] == run
    lines = [line for worker in found["workers"] for line in worker["lines"]]
    assert {(line["level"], line["source"]) for line in lines} == {
        ("WARNING", "mine"),
        ("INFO", "stdout"),
    }
    shown = factory.run_cli("show", tmp_path / "out", "--logs").stdout
    assert f"RUN {run}   1 worker process\n" in shown
    assert "WARNING  mine: 500 rows" in shown


def test_a_run_in_one_process_leaves_none(tmp_path: Path) -> None:
    """What its code prints is on the terminal; `show` says so."""
    job = factory.write_job(tmp_path, {"runtime": {"workers": 1}})
    factory.run_json("run", job)
    assert "no worker process left a log" in factory.run_cli("show", job, "--logs").stdout
    assert not (tmp_path / "out/_batchscore/logs").exists()


def test_a_log_commands_no_terminal_and_forges_no_line(tmp_path: Path) -> None:
    """Control characters are replaced, and further lines of a message are indented."""
    job = factory.write_job(tmp_path)
    run = factory.run_json("run", job)["run"]
    store = Store(str(tmp_path / "out"))
    line = LogLine(1e18, "\x1b[1m" * 9, "a\nb", "first\n  00:00:00 ERROR    root: forged\x1b[2J\r")
    write_log(store, "small", run, "1", WorkerLog("host\n", 7, -1e18, 3, [line, line]))
    shown = factory.run_cli("show", job, "--logs").stdout
    assert "worker host, process 7, since unknown, 3 earlier lines not kept" in shown
    assert "\n        00:00:00 ERROR    root: forged" in shown
    assert not {"\x1b", "\r"} & set(shown)


def test_the_logs_of_a_run_under_way_are_shown(tmp_path: Path) -> None:
    """By its name; it has no manifest yet. One that is not there is an error."""
    job = factory.write_job(tmp_path)
    run = factory.run_json("run", job)["run"]
    store = Store(str(tmp_path / "out"))
    line = LogLine(1.0, "INFO", "root", "hello")
    write_log(store, "small", "20990101-0000", "1", WorkerLog("h", 7, 1.0, 0, [line]))
    manifest = json.loads((tmp_path / f"out/_batchscore/runs/{run}/manifest.json").read_text())
    facts = {name: manifest[name] for name in ("job", "params", "slice", "score", "started")}
    plan = RunPlan({**manifest, **facts}, 0, [], [], [], [], {}, [], [], None, [])
    store.write(layout.plan_file("20990101-0000"), encode_plan(plan))
    assert "root: hello" in factory.run_cli("show", job, "20990101-0000", "--logs").stdout
    for name in ("20990101-0001", "../x"):
        done = factory.run_cli("show", job, name, "--logs")
        assert done.exit_code == 2
        assert "has no such run" in done.stderr


def test_logs_go_with_what_is_retired(tmp_path: Path) -> None:
    """A later run removes those that are older than `output.retention_days`."""
    job = factory.write_job(tmp_path)
    factory.run_json("run", job)
    store = Store(str(tmp_path / "out"))
    write_log(store, "small", "20200101-0000", "1", WorkerLog("h", 7, 1.0))
    factory.run_json("run", job, "--rescore")
    assert read_logs(store, "small", "20200101-0000") == []
