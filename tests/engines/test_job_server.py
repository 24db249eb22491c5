"""The engines `prism` and `spark` up to Beam's job API: what they submit, and what they refuse."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from batchscore.engines.job_server import JobServerEngine, prism, spark
from batchscore.errors import InvalidError, JobFileError
from batchscore.job import load_job
from batchscore.plan import make_plan, settle
from tests import factory

BOTH = pytest.mark.parametrize("engine", [prism(), spark()], ids=lambda engine: engine.name)


@BOTH
@pytest.mark.slow
def test_a_job_is_scored_through_a_job_server(
    engine: JobServerEngine, job_server: str, tmp_path: Path
) -> None:
    """Workers of a pool of the launcher's publish the rows of the engine `direct`."""
    factory.run_json("run", factory.write_job(tmp_path / "direct"))
    runtime = {"engine": engine.name, "options": {"job_endpoint": job_server}}
    job = factory.write_job(tmp_path / "there", {"runtime": runtime})
    found = factory.run_json("run", job)
    assert (found["status"], found["engine"], found["workers"]) == ("published", engine.name, 1)
    rows = [factory.published(tmp_path / each / "out") for each in ("direct", "there")]
    assert rows[1].equals(rows[0])
    assert found["beam_metrics"]


@BOTH
def test_a_job_server_must_be_named_and_listen(engine: JobServerEngine) -> None:
    """The message names the key to set; a server that does not listen is found before any work."""
    with pytest.raises(InvalidError, match=rf"engine {engine.name}: no job server .*job_endpoint"):
        engine.parse_flags([])
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        flag = f"--job_endpoint=localhost:{closed.getsockname()[1]}"
        with pytest.raises(InvalidError, match=f"engine {engine.name}: nothing answers"):
            engine.parse_flags([flag])


@BOTH
def test_options_of_other_runners_are_refused(engine: JobServerEngine) -> None:
    """An option that the runner would ignore is an error that names whose it is."""
    with pytest.raises(JobFileError, match=f"Flink runner, and the engine is {engine.name}"):
        engine.parse_flags(["--flink_master=f:1"])


@BOTH
@pytest.mark.parametrize(("asked", "workers"), [("auto", 1), (5, 5)])
def test_workers_are_those_asked_for(
    engine: JobServerEngine, asked: Any, workers: int, tmp_path: Path
) -> None:
    """Nobody says how many the runner has; each has one thread."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path, {"runtime.workers": asked}))))
    plan = engine.place(plan, settle(plan).units)
    assert (plan.workers, plan.spec.execution.tile_threads) == (workers, 1)


@BOTH
def test_a_run_cannot_be_left(engine: JobServerEngine, tmp_path: Path) -> None:
    """Its workers end with the launcher, for which --detach is refused."""
    options = {"engine": engine.name, "options": {"job_endpoint": "localhost:1"}}
    job = factory.write_job(tmp_path, {"runtime": options})
    plan = make_plan(load_job(str(job)))
    assert engine.submission(plan, []) is None
