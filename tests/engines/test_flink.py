"""The engine `flink` up to Beam's job API: what it submits, and what it refuses."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.prepared import all_flags
from batchscore.engines.flink import FlinkEngine
from batchscore.errors import InvalidError, JobFileError
from batchscore.job import load_job
from batchscore.plan import make_plan, settle
from batchscore.storage.store import Store
from tests import factory

JAR = ["--flink_master=f:1", "--flink_job_server_jar=https://example.org/server.jar"]


@pytest.mark.slow
def test_a_job_is_scored_through_a_job_server(job_server: str, tmp_path: Path) -> None:
    """A job server is sent the pipeline, and publishes the rows of the engine `direct`."""
    expected = factory.run_json("run", factory.write_job(tmp_path / "direct"))
    options = {"job_endpoint": job_server, "environment_type": "LOOPBACK"}
    changes = {"runtime": {"engine": "flink", "options": options}}
    job = factory.write_job(tmp_path / "flink", changes)
    checked = factory.run_cli("check", job)
    assert checked.exit_code == 0
    assert "64 rows, scores as here" in checked.stdout
    assert not (tmp_path / "flink/out").exists()
    found = factory.run_json("run", job)
    assert (found["status"], found["engine"], found["workers"]) == ("published", "flink", 1)
    rows = [factory.published(tmp_path / engine / "out") for engine in ("direct", "flink")]
    assert rows[1].equals(rows[0])
    assert found["rows"] == expected["rows"]
    assert found["beam_metrics"]


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        ([], InvalidError, ("runtime.flink.job_service", "flink_master: HOST:PORT")),
        (["--flink_master=f:1"], InvalidError, ("set flink_job_server_jar", "set job_endpoint")),
        (["--flink_master=f:1", "--flink_job_server_jar=x.jar"], InvalidError, ("file: x.jar",)),
        (
            [*JAR, "--job_server_java_launcher=no-such-java"],
            InvalidError,
            ("no-such-java is not found; install Java", "set job_endpoint"),
        ),
        (["--parallelism=2"], JobFileError, ("--parallelism", "runtime.flink.parallelism")),
        (["--flink_mastr=f:8081"], JobFileError, ("--flink_mastr", "no such option")),
    ],
)
def test_options_that_cannot_work_are_errors(
    flags: list[str], kind: type[Exception], words: tuple[str, ...]
) -> None:
    """Without a cluster nothing is downloaded; what the job file sets is no option."""
    with pytest.raises(kind) as caught:
        FlinkEngine().parse_flags(flags)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("section", "flags"),
    [
        ({}, []),
        ({"job_service": "f:8099", "rest": "f:8081"}, ["--job_endpoint=f:8099"]),
        (
            {"pool": "localhost:50000"},
            ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"],
        ),
        ({"container": "scorer:1"}, ["--environment_type=DOCKER", "--environment_config=scorer:1"]),
    ],
)
def test_the_section_stands_for_options(
    section: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    """Options of the job file, and those of the command line, come after the section's."""
    runtime = {"engine": "flink", "flink": section, "options": {"streaming": True}}
    job = load_job(str(factory.write_job(tmp_path, {"runtime": runtime}))).job
    assert all_flags(job.runtime, ["--a"]) == [*flags, "--streaming", "--a"]
    other = job.runtime.model_copy(update={"engine": "direct"})
    assert all_flags(other, []) == ["--streaming"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"job_service": "flink"}, "runtime.flink.job_service: expected HOST:PORT, found 'flink'"),
        ({"job_service": "a:s3cret@f:1"}, "expected HOST:PORT, found '***@f:1'"),
        ({"pool": "localhost:65536"}, "runtime.flink.pool: expected HOST:PORT, found"),
        ({"rest": "http://f/?key=s3cret"}, "neither user nor query, found 'http://f/?key=***'"),
        ({"rest": "ftp://flink"}, "runtime.flink.rest: expected HOST:PORT, or an address"),
        ({"pool": "a:1", "container": "b"}, "pool and container exclude each other; keep one"),
        ({"paralelism": 2}, "runtime.flink.paralelism: unknown key; nearest: 'parallelism'"),
        ("flink:8081", "runtime.flink: expected a mapping with keys such as job_service, rest"),
    ],
)
def test_a_wrong_section_is_an_error_on_every_engine(
    section: Any, words: str, tmp_path: Path
) -> None:
    """One file serves all engines, so that what is wrong shows before the job is moved."""
    with pytest.raises(JobFileError) as caught:
        load_job(str(factory.write_job(tmp_path, {"runtime": {"flink": section}})))
    assert words in str(caught.value)


def test_a_cluster_with_a_jar_is_enough() -> None:
    """With the jar and Java, Beam starts its job server; a jar of Flink's own needs no Java."""
    FlinkEngine().parse_flags([*JAR, f"--job_server_java_launcher={sys.executable}"])
    uber = ["--flink_submit_uber_jar", "--job_server_java_launcher=no-such-java"]
    FlinkEngine().parse_flags([*JAR, *uber])


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid"])
def test_a_job_server_that_does_not_listen_is_an_error(host: str) -> None:
    """It is one before any work, not after the minutes for which Beam would try."""
    with socket.socket() as closed:
        closed.bind(("localhost", 0))  # a port that nobody else takes meanwhile
        flag = f"--job_endpoint={host}:{closed.getsockname()[1]}"
        with pytest.raises(InvalidError, match=f"nothing answers at job_endpoint {host}:"):
            FlinkEngine().parse_flags([flag])


@pytest.mark.parametrize(("asked", "workers"), [("auto", 1), (5, 5)])
def test_workers_are_those_asked_for(asked: Any, workers: int, tmp_path: Path) -> None:
    """The cluster's size is not known here, nor are its cores: a worker has one thread."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path, {"runtime.workers": asked}))))
    plan = FlinkEngine().place(plan, settle(plan).units)
    assert (plan.workers, plan.spec.execution.tile_threads) == (workers, 1)


def test_a_store_without_conditional_puts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that finish one unit could both be first, and the message names such stores."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path))))
    monkeypatch.setattr(Store, "is_conditional", False)
    with pytest.raises(InvalidError, match=r"conditional puts, .* S3 or Google"):
        FlinkEngine().place(plan, ())


def test_memory_of_this_process_is_refused(tmp_path: Path) -> None:
    """Workers elsewhere do not see it, and the message says what they do see."""
    output = {"output.path": f"memory://{tmp_path.name}"}
    plan = make_plan(load_job(str(factory.write_job(tmp_path, output))))
    with pytest.raises(InvalidError, match="use a shared folder"):
        FlinkEngine().place(plan, ())
