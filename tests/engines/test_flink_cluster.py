"""Runs on a real Flink cluster of this machine, and what is killed in the middle of them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchscore.engines.flink_rest import cancel_job
from batchscore.plan import work
from batchscore.runs.history import read_manifest
from batchscore.runs.holder import Holder, last_holder
from batchscore.runs.manifest_model import FOUND_FINISHED
from batchscore.storage.store import Store
from tests import factory
from tests.cli.test_app import read_terminal
from tests.flinks import UNIT_ROWS, SlowJob, records, sharing, taking_turns
from tests.servers import free_port
from tests.waiting import wait_until
from tools.flink.cluster import HOST, TASK_MANAGERS, Cluster

pytestmark = pytest.mark.slow

UNITS = 16
ENOUGH = 5
"""So many units are finished when something is killed."""
ENDED = {"FINISHED", "CANCELED", "FAILED"}
_LAUNCHER = f"""
from batchscore.cli import main
from batchscore.commands import launched
from batchscore.plan import work
from batchscore.runs.manifest_model import FOUND_FINISHED

launched._GRACE_SECONDS = 2.0
work.UNIT_ROWS = {UNIT_ROWS}
main()
"""

# Makes its stdin the terminal of the process.
_IN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of all test processes, once one of them starts it."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with sharing(home / "flink") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The cluster, for one test at a time."""
    with taking_turns(shared) as mine:
        yield mine


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> SlowJob:
    """A job of many units that the engine `direct` has published."""
    folder = tmp_path_factory.mktemp("slow")
    made = SlowJob(folder / "job", UNITS, folder / "direct")
    made.write(0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "UNIT_ROWS", UNIT_ROWS)
        done = factory.run_json("run", made.path, "--set", f"output.path={made.output}")
    assert done["status"] == "published", done
    return made


@pytest.fixture
def job(expected: SlowJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowJob:
    """The same job, with an output of its own for runs on Flink."""
    monkeypatch.setattr(work, "UNIT_ROWS", UNIT_ROWS)
    expected.forget()
    # A test that failed may have left it, and all workers would wait.
    expected.gate.unlink(missing_ok=True)
    return replace(expected, output=tmp_path / "flink", launchers={os.getpid()})


def arguments(cluster: Cluster, job: SlowJob) -> list[str]:
    """Returns the command line of a run on Flink."""
    asked = ["run", str(job.path), "--engine", "flink", f"--set=output.path={job.output}"]
    return [*asked, *(f"--set=runtime.flink.{k}={v}" for k, v in cluster.section().items())]


def run(cluster: Cluster, job: SlowJob) -> dict[str, Any]:
    """Runs a job on Flink, and returns its manifest."""
    found = factory.run_json(*arguments(cluster, job))
    assert found["status"] == "published", found
    return found


def profile(output: Path) -> bytes:
    """Returns the profile of the published run."""
    (found,) = (output / "_batchscore/runs").glob("*/profile.parquet")
    return found.read_bytes()


def check_the_same(job: SlowJob, expected: SlowJob) -> None:
    """Rows, profile and records of the run on Flink equal those of the engine `direct`."""
    rows = factory.published(job.output)
    assert rows.num_rows == UNITS * UNIT_ROWS
    assert rows.equals(factory.published(expected.output))
    assert profile(job.output) == profile(expected.output)
    assert records(job.output) == records(expected.output)


def killing(cluster: Cluster, job: SlowJob, kill: Callable[[], None]) -> set[int]:
    """Runs a job on Flink, and kills something once some units are finished.

    Returns:
        The units that were finished before.
    """
    done, manifest = run_killing(cluster, job, kill)
    counts = [m["value"] for m in manifest["beam_metrics"] if m["name"] == FOUND_FINISHED]
    print(f"Flink gave workers {sum(counts)} finished units again")
    assert len(done) <= sum(counts) <= UNITS
    return done


def run_killing(
    cluster: Cluster, job: SlowJob, kill: Callable[[], None]
) -> tuple[set[int], dict[str, Any]]:
    """Does what `killing` does; returns the manifest, too."""
    done = set[int]()

    def watch() -> None:
        wait_until(lambda: len(records(job.output)) >= ENOUGH, 300)
        done.update(finished(job))
        kill()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        manifest = run(cluster, job)
    finally:
        thread.join()
    return done, manifest


def finished(job: SlowJob) -> set[int]:
    """Returns the numbers of the units that are finished."""
    found = records(job.output).values()
    return {int(Path(record["pieces"][0]["shard"]["path"]).stem) for record in found}


def check_finished_once(job: SlowJob, done: set[int]) -> None:
    """No unit that was finished before the kill was scored again; prints the counts."""
    starts = job.starts()
    again = starts.total() - UNITS
    print(f"{len(done)} of {UNITS} units were finished; {again} others were started again")
    assert len(done) >= ENOUGH
    assert sorted(starts) == list(range(UNITS))
    assert {unit: starts[unit] for unit in done} == dict.fromkeys(done, 1)


def test_rows_profile_and_records_are_the_direct_runners(
    cluster: Cluster, job: SlowJob, expected: SlowJob
) -> None:
    """Two Python processes score on two TaskManagers, and nothing else differs."""
    found = run(cluster, job)
    assert (found["engine"], found["workers"]) == ("flink", TASK_MANAGERS)
    assert len({pid for _, pid in job.calls()} - job.launchers) == TASK_MANAGERS
    assert job.starts() == dict.fromkeys(range(UNITS), 1)
    counts = {m["name"]: m["value"] for m in found["beam_metrics"] if "value" in m}
    assert counts == {"num_inferences": UNITS * UNIT_ROWS}
    check_the_same(job, expected)


def test_a_killed_task_manager_costs_no_finished_unit(
    cluster: Cluster, job: SlowJob, expected: SlowJob
) -> None:
    """With another TaskManager in its place the job ends right."""

    def kill() -> None:
        found = next(m for m in cluster.members() if m.name.startswith("task-manager"))
        os.kill(found.pid, signal.SIGKILL)
        wait_until(lambda: found.process() is None)
        cluster.start_task_manager()

    check_finished_once(job, killing(cluster, job, kill))
    check_the_same(job, expected)


def test_a_killed_python_worker_costs_no_finished_unit(
    cluster: Cluster, job: SlowJob, expected: SlowJob
) -> None:
    """Flink starts its part of the job again, with another worker of the pool."""

    def kill() -> None:
        os.kill(next(pid for _, pid in reversed(job.calls())), signal.SIGKILL)

    check_finished_once(job, killing(cluster, job, kill))
    check_the_same(job, expected)


def start_launcher(cluster: Cluster, job: SlowJob) -> subprocess.Popen[bytes]:
    """Starts a launcher of its own, and waits until some units are finished."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, *arguments(cluster, job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    job.launchers.add(launcher.pid)
    wait_until(lambda: len(records(job.output)) >= ENOUGH, 300)
    return launcher


def kill_launcher(cluster: Cluster, job: SlowJob) -> set[int]:
    """Kills a launcher once some units are finished, and returns these; the rest waits."""
    launcher = start_launcher(cluster, job)
    job.gate.write_text(str(os.getpid()))
    launcher.kill()
    launcher.wait()
    return finished(job)


def jobs(cluster: Cluster) -> dict[str, str]:
    """Returns the states of all jobs that Flink remembers, by id, in the order of their starts."""
    address = f"http://{cluster.section()['rest']}/jobs/overview"
    with urllib.request.urlopen(address, timeout=10) as answer:
        found = sorted(json.load(answer)["jobs"], key=lambda job: job["start-time"])
    return {job["jid"]: job["state"] for job in found}


def states(cluster: Cluster) -> list[str]:
    """Returns the states of all jobs that Flink remembers, in the order of their starts."""
    return [*jobs(cluster).values()]


def holder_of(job: SlowJob) -> Holder:
    """Returns who took the job's slice last."""
    found = last_holder(Store(str(job.output)), "small")
    assert found is not None
    return found


def listed_runs(job: SlowJob) -> list[Any]:
    """Returns what `batchscore runs` says of the job's runs, newest first."""
    found: Any = factory.run_json("runs", job.output)
    assert isinstance(found, list)
    return found


def test_the_run_of_a_killed_launcher_publishes(
    cluster: Cluster, job: SlowJob, expected: SlowJob
) -> None:
    """It goes on and keeps others out; its last step does what the launcher would have done."""
    done = kill_launcher(cluster, job)
    store = Store(str(job.output))
    (listed,) = listed_runs(job)
    assert listed["error"].startswith("is under way on engine flink")
    second = factory.run_json(*arguments(cluster, job))
    assert (second["exit_code"], second["status"]) == (4, "retry"), second
    run = listed["run"]
    assert f"held by run {run} (engine flink, job " in second["error"]
    assert f"`batchscore wait {job.output} {run}`" in second["error"]
    assert holder_of(job).number == 1
    job.gate.unlink()
    wait_until(lambda: holder_of(job).released, 300)
    check_finished_once(job, done)
    assert store.names("_batchscore/work") == []
    assert read_manifest(store, run).status == "published"
    assert factory.run_json(*arguments(cluster, job))["status"] == "unchanged"
    check_the_same(job, expected)


def test_a_run_that_is_left_publishes(cluster: Cluster, job: SlowJob, expected: SlowJob) -> None:
    """`--detach` ends once Flink has the job; `wait` ends with the run, and its exit code."""
    command = [sys.executable, "-c", _LAUNCHER, *arguments(cluster, job), "--detach", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert (left["exit_code"], left["status"]) == (0, "submitted"), left
    assert left["submission"]["job"] in set(jobs(cluster))
    assert left["follow"].endswith(f" wait {job.output} {left['run']}")
    found = holder_of(job)
    assert found.run == left["run"]
    assert found.submission is not None
    assert found.submission.detached
    ended = factory.run_json("wait", job.output, left["run"])
    assert (ended["exit_code"], ended["status"]) == (0, "published"), ended
    # `wait` may look before the last step has noted what its workers used.
    wait_until(lambda: holder_of(job).released, 300)
    usage = factory.run_json("show", job.output, left["run"])["usage"]
    assert usage["processes"] >= 1, usage
    assert usage["cpu_seconds"] > 0
    assert usage["peak_memory_bytes"] > 50e6
    check_the_same(job, expected)


def test_a_killed_job_server_costs_nothing(
    cluster: Cluster, job: SlowJob, expected: SlowJob, caplog: pytest.LogCaptureFixture
) -> None:
    """The job goes on, and its launcher follows it by the output to the end."""

    def kill() -> None:
        found = next(m for m in cluster.members() if m.name == "job-server")
        os.kill(found.pid, signal.SIGKILL)

    done, manifest = run_killing(cluster, job, kill)
    assert "beam_metrics" not in manifest
    check_finished_once(job, done)
    assert "engine flink is not heard any more (" in caplog.text
    check_the_same(job, expected)


def test_a_stopped_launcher_ends_the_job(cluster: Cluster, job: SlowJob) -> None:
    """Flink does not start its tasks again, as it would after an error."""
    launcher = start_launcher(cluster, job)
    job.gate.write_text("")
    launcher.send_signal(signal.SIGTERM)
    wait_until(lambda: states(cluster).count("RUNNING") == 0, 300)
    job.gate.unlink()
    assert launcher.wait(300) == 128 + signal.SIGTERM
    wait_until(lambda: set(states(cluster)) <= ENDED, 300)


def test_a_run_that_a_person_leaves_is_cancelled_from_elsewhere(
    cluster: Cluster, job: SlowJob
) -> None:
    """Ctrl-C asks, `l` leaves the run; then `status` shows it, and `cancel` ends its job."""
    terminal, theirs = pty.openpty()
    launcher = subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL + _LAUNCHER, *arguments(cluster, job)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    job.launchers.add(launcher.pid)
    read_terminal(terminal, lambda text: bool(re.search("[1-9][0-9]*/8000", text)), 300)
    job.gate.write_text("")
    os.write(terminal, b"\x03")
    read_terminal(terminal, lambda text: "[l]eave it running" in text)
    os.write(terminal, b"l\n")
    said = read_terminal(terminal, lambda _: False)
    os.close(terminal)
    assert launcher.wait(300) == 0, said
    assert "SUBMITTED run" in said

    (found,) = factory.run_json("status", job.output)["under_way"]
    assert (found["state"], found["engine"], found["detached"]) == ("scoring", "flink", True)
    assert jobs(cluster)[found["job"]] == "RUNNING"
    thread = threading.Thread(target=open_when_stopping, args=(cluster, job, found["job"]))
    thread.start()
    done = factory.run_json("cancel", job.output, found["run"])
    thread.join()
    assert (done["status"], done["exit_code"]) == ("interrupted", 0), done
    assert done["stopped"]["exit_code"] == 128 + signal.SIGTERM
    assert jobs(cluster)[found["job"]] == "CANCELED"
    assert not (job.output / "data").exists()
    assert holder_of(job).released
    assert factory.run_cli("wait", job.output, found["run"]).exit_code == 128 + signal.SIGTERM


def open_when_stopping(cluster: Cluster, job: SlowJob, jid: str) -> None:
    """Opens the gate once Flink ends a job, which waits for the worker's function."""
    wait_until(lambda: jobs(cluster)[jid] != "RUNNING", 300)
    job.gate.unlink()


def test_a_run_that_follows_a_cancelled_job_scores_what_is_left(
    cluster: Cluster, job: SlowJob, expected: SlowJob
) -> None:
    """It takes the slice over at once: Flink says that the job has ended, and nobody watches it."""
    done = kill_launcher(cluster, job)
    (alive,) = [each for each, state in jobs(cluster).items() if state not in ENDED]
    assert cancel_job(cluster.section()["rest"], alive, "")
    wait_until(lambda: jobs(cluster)[alive] in ENDED, 300)
    lease = job.output / "_batchscore/slices/small/lease/00000002.json"

    def open_gate() -> None:
        wait_until(lease.exists, 300)
        job.gate.unlink()

    thread = threading.Thread(target=open_gate)
    thread.start()
    found = run(cluster, job)
    thread.join()
    check_finished_once(job, done)
    assert found["reused_units"] >= len(done)
    assert set(states(cluster)) <= ENDED
    check_the_same(job, expected)
    runs = listed_runs(job)
    assert [each["status"] for each in runs] == ["published", "failed"]
    assert "engine flink ended its job, or lost it" in runs[1]["error"]


def test_a_run_that_must_fail_is_not_tried_again(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher cancels the job once a worker has met a bad shard; Flink would try it again."""
    monkeypatch.setattr(work, "UNIT_ROWS", UNIT_ROWS)
    bad = SlowJob(tmp_path / "job", 2, tmp_path / "out")
    bad.write(0.0)
    shard = bad.folder / "shards/01.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    before = len(states(cluster))
    done = factory.run_cli(*arguments(cluster, bad))
    assert done.exit_code == 1, done.output
    assert "shards/01.parquet" in done.stderr
    wait_until(lambda: set(states(cluster)) <= ENDED, 300)
    assert len(states(cluster)) == before + 1
    assert states(cluster)[-1] == "CANCELED"


def test_a_row_that_crashes_the_model_is_rejected_alone(cluster: Cluster, tmp_path: Path) -> None:
    """The model's process dies within the worker, which goes on; the row has the reason."""
    folder = tmp_path / "job"
    changes = {"runtime": {"model_process": "on"}, "rejects.max_ratio": 1.0, "input.path": "rows"}
    factory.write_job(folder, changes)
    crash = "        if (x > 900).any():\n            __import__('ctypes').string_at(0)\n"
    logit = "        logit: torch.Tensor"
    shutil.rmtree(folder / "model")
    factory.write_model(folder / "model", factory.NET.replace(logit, crash + logit))
    rows = factory.make_rows(3)
    a_n = [0.5, 1e3, 0.5]
    factory.write_shard(folder / "rows/0.parquet", rows.set_column(1, "a", pa.array(a_n)))
    found = run(cluster, SlowJob(folder, 1, tmp_path / "out"))
    assert (found["rows"]["scored"], found["rows"]["rejected"]) == (2, 1)
    (why,) = found["rejects"]["reasons"]
    assert why == "infer: ModelProcessDied: was killed by signal 11 (SIGSEGV)"
    ids = factory.published(tmp_path / "out")["id"].to_pylist()
    assert ids == [0, 2]


def test_nothing_listens_beyond_this_machine(cluster: Cluster) -> None:
    """Who reaches a pool, or a job server, can run code; Beam's servers of jobs go with them."""
    wait_until(lambda: open_ports(cluster) == [], 60)


def open_ports(cluster: Cluster) -> list[tuple[str, str, int]]:
    """Returns the ports of a cluster's processes that other machines can reach."""
    members = [(member.name, member.process()) for member in cluster.members()]
    return [
        (name, *each.laddr)
        for name, process in members
        if process is not None
        for each in process.net_connections("tcp")
        if each.status == "LISTEN" and each.laddr.ip.removeprefix("::ffff:") != HOST
    ]


def test_a_check_tries_all_slots(cluster: Cluster, job: SlowJob) -> None:
    """It names the cluster and what each worker found, and leaves nothing."""
    done = factory.run_cli("check", *arguments(cluster, job)[1:])
    assert done.exit_code == 0, done.output
    assert f"2 slots on {HOST}" in done.stdout
    assert done.stdout.count(", scores as here; ") == TASK_MANAGERS
    assert f"{TASK_MANAGERS} processes answered in" in done.stdout
    assert not job.output.exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("parallelism", 3, "runtime.flink.parallelism 3: Flink at {rest} has 2 slots"),
        ("pool", "{closed}", "no worker pool answers at runtime.flink.pool {closed}"),
        ("rest", "{closed}", "Flink does not answer at runtime.flink.rest {closed}"),
        ("job_service", "{closed}", "nothing answers at job_endpoint {closed}"),
    ],
)
def test_what_the_cluster_does_not_have_is_an_error_before_any_work(
    cluster: Cluster, job: SlowJob, key: str, value: Any, words: str
) -> None:
    """The launcher asks the cluster, and says what to start or correct."""
    closed = f"{HOST}:{free_port()}"
    value = value.format(closed=closed) if isinstance(value, str) else value
    asked = [*arguments(cluster, job)[1:], f"--set=runtime.flink.{key}={value}"]
    for command in ("check", "run"):
        done = factory.run_cli(command, *asked)
        assert done.exit_code == 2
        assert words.format(closed=closed, rest=cluster.section()["rest"]) in done.stderr
    assert not job.output.exists()
