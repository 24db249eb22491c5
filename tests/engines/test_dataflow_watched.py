"""What a run on Dataflow ends with if its job does not end well, or its launcher is gone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscore.engines import dataflow
from batchscore.engines.dataflow_ends import ended_badly
from tests import factory
from tests.dataflows import FakeDataflow, run_staged, serving_fake, write_job
from tests.pages import blocks, page, sessions, shape
from tests.servers import ObjectStore, running

pytest.importorskip("google.cloud.dataflow")
pytestmark = pytest.mark.slow
_ID = r"\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d-\d+|\b\d{8}-[0-9a-f]{4}\b"


@pytest.fixture(scope="module")
def buckets() -> Iterator[ObjectStore]:
    """A server of Google Cloud Storage, for all tests here."""
    with running("gcs") as found, found.at():
        found.make_bucket("staging")
        yield found


@pytest.fixture
def service() -> Iterator[FakeDataflow]:
    """A service that knows no job yet."""
    with serving_fake() as found:
        yield found


@pytest.fixture
def job(
    buckets: ObjectStore, service: FakeDataflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A job file of this engine; nobody waits for a late reason."""
    monkeypatch.setattr(dataflow, "_LATE_S", 0.0)
    return write_job(tmp_path, buckets, service)


FAILURES = [
    ("QUOTA_EXCEEDED: Quota 'CPUS' exceeded. Limit: 24.0", "lower runtime.dataflow.max_vms"),
    ("ZONE_RESOURCE_POOL_EXHAUSTED: zone europe-west4-b", "choose another runtime.dataflow.mach"),
    ("Error syncing pod: ErrImagePull", "correct runtime.dataflow.image"),
    ("The subnetwork resource could not be found", "correct runtime.dataflow.subnetwork"),
    ("Worker VM: out of memory, OOM killer", "runtime.dataflow.processes: vm"),
    ("7-compute does not have permission to write", "grant runtime.dataflow.service_account"),
    ("", "Dataflow does not say why; look at the job's log in the console, and run again"),
]


@pytest.mark.parametrize(("said", "remedy"), FAILURES)
def test_each_failure_has_its_remedy(said: str, remedy: str) -> None:
    """By the service's own words, which the message has too."""
    message = ended_badly("7", "JOB_STATE_FAILED", said)
    assert message.startswith(f"engine dataflow: job 7 failed: {said}")
    assert remedy in message


@pytest.mark.parametrize("code", [429, 403])
def test_a_quota_that_is_used_up_is_tried_again_later(
    code: int, job: Path, service: FakeDataflow
) -> None:
    """The job is refused with exit code 4, nothing is left under way, and the next run goes on."""
    service.rejections.append((code, "Quota exceeded: concurrent jobs in europe-west4"))
    done = factory.run_cli("run", job)
    assert done.exit_code == 4
    assert done.stderr.count("RETRY  ") == 1
    assert "Quota exceeded" in done.stderr
    assert "lower runtime.dataflow.max_vms, or ask for more quota" in done.stderr
    assert not service.jobs
    assert "nothing is under way" in factory.run_cli("status", job).stdout
    assert factory.run_cli("run", job, "--detach").exit_code == 0


@pytest.mark.parametrize(
    ("fate", "said", "words"),
    [
        ("FAILED", *FAILURES[0]),
        ("CANCELLED", "", "was cancelled at Dataflow, and not by batchscore"),
        ("DONE", "", "has no outcome, so its last step did not run"),
    ],
)
def test_a_job_that_ends_otherwise_ends_its_run(
    fate: str, said: str, words: str, job: Path, service: FakeDataflow
) -> None:
    """Exit code 1, for schedulers that try again; the message says what helps."""
    service.fate = fate
    service.messages += [said] if said else []
    done = factory.run_cli("run", job)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "run again" in done.stderr
    assert "Traceback" not in done.output
    assert factory.run_json("show", job)["status"] == "failed"


@pytest.mark.parametrize(
    ("fate", "said", "words"),
    [("FAILED", *FAILURES[0]), ("CANCELLED", "", "was cancelled at Dataflow, and not by batchs")],
)
def test_wait_says_what_a_watched_run_says(
    fate: str, said: str, words: str, job: Path, service: FakeDataflow
) -> None:
    """`status` says that the run is lost and changes nothing; `wait` closes it with the reason."""
    factory.run_json("run", job, "--detach")
    service.messages += [said] if said else []
    service.end(fate)
    for _ in range(2):
        seen = factory.run_cli("status", job)
        assert re.search(r"^LOST  run .* engine dataflow has ended its job", seen.stdout, re.M)
    done = factory.run_cli("wait", job)
    assert done.exit_code == 1
    assert words in done.stdout


@pytest.mark.parametrize("key", ["output.path", "input.path", "runtime.dataflow.temp_location"])
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_bucket_ends_a_command_before_any_work(
    command: str, key: str, job: Path, service: FakeDataflow
) -> None:
    """`check` finds it as `run` does; both say which address is meant."""
    factory.change_job(job.parent, {key: "gs://no-such/folder"})
    done = factory.run_cli(command, job)
    assert done.exit_code == 2
    assert "gs://no-such/folder: there is no bucket 'no-such'" in done.stderr
    assert "create it, or correct the address" in done.stderr
    assert not service.jobs


def _killed_when_the_job_is_there(job: Path, service: FakeDataflow) -> str:
    """Starts a launcher, which is killed before it hears of its job; returns the job's id."""
    command = [sys.executable, "-m", "batchscore", "run", str(job), "--detach"]
    launcher = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    service.created = launcher.kill
    assert launcher.wait(60) == -9
    service.created = bool
    (found,) = service.jobs
    return found


def test_a_job_whose_launcher_was_killed_is_found_by_its_name(
    job: Path, service: FakeDataflow, tmp_path: Path
) -> None:
    """No second run starts, `status` shows it, and `wait` sees it publish all rows, once."""
    _killed_when_the_job_is_there(job, service)
    (found,) = service.jobs.values()
    again = factory.run_cli("run", job)
    assert again.exit_code == 4
    assert f"(engine dataflow, job {found['name']})" in again.stderr
    assert found["name"] in factory.run_cli("status", job).stdout
    run_staged(service.bodies[0])
    service.end()
    done = factory.run_json("wait", job)
    assert (done["status"], done["rows"]["scored"]) == ("published", 500)
    assert len(service.jobs) == 1


def test_a_job_whose_launcher_was_killed_is_cancelled_by_its_name(
    job: Path, service: FakeDataflow
) -> None:
    """The next run starts at once."""
    _killed_when_the_job_is_there(job, service)
    (found,) = service.jobs.values()
    assert factory.run_cli("cancel", job, found["name"]).exit_code == 0
    assert found["currentState"] == "JOB_STATE_CANCELLED"
    assert factory.run_cli("run", job, "--detach").exit_code == 0


def test_an_orphaned_job_is_cancelled_by_the_next_run_of_its_slice(
    job: Path, service: FakeDataflow, caplog: pytest.LogCaptureFixture
) -> None:
    """Its run was closed, so it could publish nothing; another slice's job is left alone."""
    factory.run_json("run", job, "--detach")
    (mine,) = service.jobs.values()
    orphan = {**mine, "id": "2026-11-29_00_00_00-7", "name": f"{mine['name'][:-8]}00000000"}
    other = {**mine, "id": "2026-11-29_00_00_00-8", "name": "batchscore-other-0123456789abcdef-1"}
    service.end("CANCELLED")
    service.jobs |= {each["id"]: each for each in (orphan, other)}
    done = factory.run_cli("run", job, "--detach")
    assert done.exit_code == 0
    assert "cancelled 1 job of earlier runs whose launchers are gone" in caplog.text
    assert orphan["currentState"] == "JOB_STATE_CANCELLED"
    assert other["currentState"] == "JOB_STATE_RUNNING"


def test_the_session_of_the_page_on_dataflow_can_be_followed(
    job: Path, service: FakeDataflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of docs/dataflow.md ends with 0 and prints the lines that the page shows."""
    monkeypatch.chdir(job.parent)
    factory.change_job(job.parent, {"name": "churn"})
    known = dict[str, str]()
    ran = 0
    for command, expected in sessions("".join(blocks("console", page("docs/dataflow.md")))):
        words = [known.get(word, word) for word in command.split()[1:]]
        if words[0] == "wait":
            run_staged(service.bodies[-1])
            service.end()
        done = factory.run_cli(*words)
        assert done.exit_code == 0, done.output
        text = done.stdout.replace("small", "churn")
        text = text.replace(service.endpoint, "https://dataflow.googleapis.com")
        printed = [shape(line) for line in text.splitlines()]
        assert [line for line in expected if shape(line) not in printed] == [], text
        known |= zip(re.findall(_ID, "\n".join(expected)), re.findall(_ID, text), strict=False)
        ran += 1
    assert ran == 5
    assert [each["currentState"] for each in service.jobs.values()] == [
        "JOB_STATE_DONE",
        "JOB_STATE_CANCELLED",
    ]
