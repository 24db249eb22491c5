"""Which error a run ends with, where its workers wrote none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchscore.commands.ending import explained
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.runs.progress import Pulse, working_on
from batchscore.runs.worker_logs import LogLine, WorkerLog, write_log
from batchscore.worker.spec import RunSpec, Shipment
from tests import factory

FLINK = RuntimeError("Pipeline x failed in state FAILED: CANCELLED: client cancelled")

ENDED = "the engine ended the job as FAILED: CANCELLED: client cancelled"


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """A run whose workers are elsewhere."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path))))
    return replace(factory.run_spec(plan), shipment=Shipment({}, {}, {}, {}))


def test_workers_that_ended_in_silence_are_named(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit that most of them were on, the last of them, and what it logged last."""
    run = spec.identity.run
    spec.output.write_json(f"_batchscore/work/{run}/plan.json", {})
    for pid, name in ((7, "a"), (8, "b"), (9, "b")):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        pulse = Pulse(spec.output, run)
        monkeypatch.setattr("platform.node", lambda: "host-a")
        with working_on(run, replace(factory.make_unit(5, f"in/{name}.parquet"), id=name)):
            pulse.begin()
        del pulse
    lines = [LogLine(1.0, "INFO", "stdout", text) for text in ("one", "two", "three", "four")]
    write_log(spec.output, spec.slice, run, "9", WorkerLog("host-a", 9, 1.0, 0, lines))
    message = str(explained(spec, FLINK))
    assert message.startswith(
        "unit b (shard b.parquet) was under way on 2 worker processes that ended without an error, "
        "the last on host-a, process 9, which last logged: stdout: two; stdout: three; stdout: four"
    )
    assert "runtime.model_process: on rejects a row that crashes the model" in message
    assert "finished units are kept" in message
    assert message.endswith(ENDED)


def test_without_a_unit_under_way_the_engine_has_the_word(spec: RunSpec) -> None:
    """So it is where the workers are the launcher's own, too."""
    assert str(explained(spec, FLINK)) == ENDED
    assert "unit" not in str(explained(replace(spec, shipment=None), FLINK))
