"""Test the program that a run notifies of its outcome: when, with what, and its failures."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.notify import Program, tell
from batchscore.job import Notify
from tests.endings import begin, said_in
from tests.factory import change_job, make_rows, run_cli, run_json, write_job, write_shard
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def program(folder: Path, name: str, body: str) -> Path:
    """Write an executable Python program."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


KEEP = "open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The small job, whose program keeps its document in `result.json`."""
    program(tmp_path, "keep.py", KEEP)
    command = ["./keep.py", str(tmp_path / "result.json")]
    return write_job(tmp_path, {"notify": {"command": command}})


def reported(job: Path) -> Any:
    """Return the document that the program got, and remove it; None where it was not run."""
    path = job.parent / "result.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    path.unlink()
    return found


def test_a_held_run_is_reported_as_json_prints_it(job: Path) -> None:
    """The document is the one on standard output; by default a published run notifies nobody."""
    assert run_cli("run", job).exit_code == 0
    assert reported(job) is None
    change_job(job.parent, {"checks.score_range": [0, 0.5]})
    held = run_json("run", job, "--rescore")
    assert (held["status"], held["exit_code"]) == ("held", 3)
    assert reported(job) == held


def test_a_failed_run_is_reported(job: Path) -> None:
    """An error's document, too, is the one that `--json` prints."""
    spoiled = make_rows(300)
    spoiled = spoiled.set_column(1, "a", [[None] * 299 + [1.0]])
    write_shard(job.parent / "in/0.parquet", spoiled)
    done = run_json("run", job)
    assert (done["status"], done["exit_code"]) == ("failed", 1)
    assert reported(job) == done


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "published"),
        ({"input.ready": "_SUCCESS"}, "retry"),
        ({"checks.not_null": ["nothing"]}, "invalid"),
        ({"input.filters": [["id", "<", 0]], "input.allow_empty": True}, "empty"),
    ],
    ids=str,
)
def test_a_status_that_is_asked_for_is_reported(
    job: Path, changes: dict[str, Any], status: str
) -> None:
    """Each status by its name, and no other."""
    others = {"published", "empty", "unchanged", "held", "failed", "invalid", "retry"} - {status}
    change_job(job.parent, {**changes, "notify.on": sorted(others)})
    assert run_json("run", job, "--rescore")["status"] == status
    assert reported(job) is None
    change_job(job.parent, {"notify.on": [status]})
    assert run_json("run", job, "--rescore")["status"] == status
    assert reported(job)["status"] == status


def test_nothing_to_do_may_be_reported(job: Path) -> None:
    """`unchanged` is a status as any other."""
    change_job(job.parent, {"notify.on": ["unchanged"]})
    run_cli("run", job)
    assert reported(job) is None
    run_cli("run", job)
    assert reported(job)["status"] == "unchanged"


def test_release_and_rollback_tell_nobody(job: Path) -> None:
    """A person decides these, and sees what comes of it."""
    change_job(job.parent, {"checks.score_range": [0, 0.5]})
    held = run_json("run", job)
    assert reported(job)["status"] == "held"
    change_job(job.parent, {"notify.on": ["published", "held", "failed"]})
    assert run_json("release", job, held["run"], "--reason", "x")["status"] == "published"
    assert run_json("rollback", job, "--undo", held["run"])["status"] == "rolled_back"
    assert reported(job) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "sys.stdout.write('no route\\nto host'); sys.exit(7)",
            "ended with 7 and printed: no route",
        ),
        ("sys.exit('gone')", "ended with 1 and printed: gone"),
        ("os.kill(os.getpid(), 9)", "ended with -9"),
        ("sys.stdout.write('x' * 10_000_000); sys.exit(1)", "ended with 1 and printed: xxx"),
        (None, "no executable program './keep.py' was found in"),
    ],
)
def test_its_failure_is_a_warning(job: Path, body: str | None, message: str) -> None:
    """Exit code, outcome and standard output are as without it."""
    (job.parent / "keep.py").unlink()
    if body is not None:
        program(job.parent, "keep.py", body)
    change_job(job.parent, {"notify.on": ["published"]})
    done = run_cli("run", job)
    assert done.exit_code == 0
    assert done.stdout.startswith("PUBLISHED")
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert message in warning
    assert len(warning) < 800
    assert "keep.py" not in done.stdout


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """The time limit holds for a child that keeps the pipe, too."""
    body = "pid = os.fork()\nif pid: open(sys.argv[1], 'w').write(str(pid))\ntime.sleep(600)"
    path = program(tmp_path, "hang.py", body)
    notify = Notify(command=(str(path), str(tmp_path / "pid")))
    started = time.monotonic()
    problem = tell(Program(notify, str(tmp_path)), "{}", 2.0)
    assert problem is not None
    assert "took over 2 s and was killed" in problem
    assert time.monotonic() - started < 60
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not _is_running(pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_alone(job: Path, number: int) -> None:
    """The run has ended: its exit code stays, and its program does not outlive it."""
    started = job.parent / "pid"
    (job.parent / "keep.py").unlink()
    body = f"open('{started}_', 'w').write(str(os.getpid()))\nos.rename('{started}_', '{started}')"
    program(job.parent, "keep.py", f"{body}\ntime.sleep(600)")
    change_job(job.parent, {"notify.on": ["published"]})
    process = begin("run", job, log=job.parent)
    wait_until(lambda: started.exists() or not process.is_alive())
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0, said_in(job.parent)
    assert "keep.py: was interrupted and killed; the run's outcome" in said_in(job.parent)
    wait_until(lambda: not _is_running(int(started.read_text())))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_program_need_not_read(tmp_path: Path) -> None:
    """A large document that nobody reads blocks nothing."""
    notify = Notify(command=(str(program(tmp_path, "deaf.py", "sys.exit(0)")),))
    assert tell(Program(notify, ""), "x" * 10_000_000) is None


def test_a_script_without_its_first_line_says_what_it_lacks(tmp_path: Path) -> None:
    """Without a shell the system does not know what runs it; the program's path is plain."""
    path = program(tmp_path, "bare", "")
    path.write_text("exit 0")
    problem = tell(Program(Notify(command=("./bare",)), str(tmp_path)), "{}")
    assert problem is not None
    assert problem.startswith(f"notify.command: {path}: could not be started (")
    assert "start it with a line such as #!/bin/sh" in problem


def test_arguments_are_no_shell(tmp_path: Path) -> None:
    """What a shell would expand is an argument as it is written."""
    path = program(tmp_path, "say.py", "sys.exit(sys.argv[1])")
    problem = tell(Program(Notify(command=(str(path), "$HOME; rm *")), ""), "{}")
    assert problem is not None
    assert "printed: $HOME; rm *;" in problem


def test_check_warns_of_a_program_that_is_not_there(job: Path) -> None:
    """It is a warning, since a run would publish all the same; a name is looked for on PATH."""
    assert run_json("check", job)["warnings"] == []
    change_job(job.parent, {"notify.command": ["batchscore-no-such-program"]})
    done = run_cli("check", job)
    assert done.exit_code == 0
    assert "WARNING     notify.command: no executable program 'batchscore-no" in done.stdout
    (job.parent / "keep.py").chmod(0o644)
    change_job(job.parent, {"notify.command": ["./keep.py"]})
    (warning,) = run_json("check", job)["warnings"]
    assert "make it executable" in warning


@pytest.mark.parametrize(
    ("notify", "message"),
    [
        ({"on": ["held"]}, "notify.command: missing"),
        ({"command": []}, "expected a list that is not empty"),
        ({"command": "mail me"}, "notify.command: expected a list"),
        ({"command": [""]}, "expected [program, argument"),
        ({"command": ["x"], "on": ["done"]}, "'published', 'empty', 'unchanged', 'held'"),
        ({"command": ["x"], "on": []}, "expected a list that is not empty"),
        ({"command": ["x"], "on": ["held", "held"]}, "'held' appears more than once; keep one"),
        ({"command": ["x"], "no": []}, "notify.no: unknown key; expected one of command, on"),
    ],
    ids=str,
)
def test_a_wrong_section_is_reported(job: Path, notify: dict[str, Any], message: str) -> None:
    """Exit 2 and what was expected."""
    done = run_cli("run", change_job(job.parent, {"notify": notify}))
    assert done.exit_code == 2
    assert message in done.stderr
