"""Test that a run whose results come late, as from a GPU, publishes what any other does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import DeviceError
from batchscore.job import load_job
from batchscore.models.backends.facts import Call
from batchscore.models.backends.remembered import cache_file
from batchscore.models.backends.torch.forward import Forward
from batchscore.models.backends.torch.micro_batch import MicroBatches
from batchscore.models.backends.torch.predictor import TorchPredictor
from batchscore.models.backends.torch.staging import Staging
from batchscore.models.backends.torch.tuning import FILE, remembered_rows
from batchscore.plan import make_plan
from batchscore.worker import scoring
from tests import factory

POISONED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        if (x[:, 0] == 3e8).any():
            raise ValueError("three hundred million")
        if len(x) > {most}:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.linear(x).squeeze(1)
"""

# Its numbers are others each time it is built.
RANDOM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("noise", torch.rand(2), persistent=False)

    def forward(self, x):
        return self.linear(x + self.noise).squeeze(1)
"""


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Makes runs go the way of a device, over the CPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = TorchPredictor.called

    def late_forward(self: TorchPredictor, call: Call) -> Forward:
        calls = MicroBatches(Staging("cpu"), "model", call.halved)
        return replace(plain(self, call), begin=calls.begin)

    def patch() -> None:
        monkeypatch.setattr(TorchPredictor, "called", late_forward)
        # A device is called from one thread.
        monkeypatch.setattr(TorchPredictor, "enter", lambda _: None)

    return patch


def job_of(folder: Path, most: int) -> Path:
    folder.mkdir()
    job = factory.write_job(folder, {"runtime.batch_rows": 64, "rejects.max_ratio": 0.1})
    table = factory.make_rows(300)
    a = table.column("a").to_numpy().copy()
    a[[17, 70, 299]] = 3e8
    factory.write_shard(folder / "in/0.parquet", table.set_column(1, "a", [a]))
    factory.write_model(folder / "model", net=POISONED.format(most=most))
    return job


def outcome(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": manifest["rows"],
        "rejects": manifest["rejects"]["reasons"],
        "profile": manifest["profile_sha256"],
        "status": manifest["status"],
    }


@pytest.mark.slow
def test_late_results_are_published_as_others_are(
    tmp_path: Path, as_on_a_gpu: Callable[[], None]
) -> None:
    """Rows, rejects, their reasons and the profile are the same, over many small blocks."""
    plain = factory.run_json("run", job_of(tmp_path / "plain", 10_000))
    as_on_a_gpu()
    late = factory.run_json("run", job_of(tmp_path / "late", 10_000))
    assert outcome(late) == outcome(plain)
    assert late["rows"]["rejected"] == 3
    assert "wait_infer" in late["stage_seconds"]
    assert late["inference"]["halved_to"] is None
    assert factory.published(tmp_path / "late/out").equals(
        factory.published(tmp_path / "plain/out")
    )


def test_a_run_whose_memory_runs_out_ends_with_every_row(
    tmp_path: Path, as_on_a_gpu: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are halved until they fit, which is logged and remembered; no row is lost."""
    as_on_a_gpu()
    done = factory.run_json("run", job_of(tmp_path / "job", 100))
    assert done["rows"] == {**done["rows"], "scored": 497, "rejected": 3}
    assert "64 rows a call from here on" in caplog.text
    assert done["inference"]["halved_to"] == 64
    assert done["inference"]["call_rows"] == 1024
    (key,) = [
        line.split('"')[1] for line in cache_file(FILE).read_text().splitlines() if '"' in line
    ]
    assert remembered_rows(key, 64) == 64


def test_a_given_size_that_was_halved_is_not_remembered(
    tmp_path: Path, as_on_a_gpu: Callable[[], None]
) -> None:
    """What fitted of a size that was asked for says nothing of the best one."""
    as_on_a_gpu()
    job = job_of(tmp_path / "job", 40)
    factory.change_job(tmp_path / "job", {"runtime.micro_batch": 64})
    done = factory.run_json("run", job)
    assert done["inference"]["halved_to"] == 32
    assert not cache_file(FILE).exists()


@pytest.mark.parametrize(("net", "threads"), [(factory.NET, 4), (RANDOM, 1)])
@pytest.mark.slow
def test_threads_are_as_many_as_the_network_allows(tmp_path: Path, net: str, threads: int) -> None:
    """Tiles run side by side where each thread has a module of its own, else one by one."""
    job = factory.write_job(tmp_path)
    factory.write_model(tmp_path / "model", net=net)
    spec = make_plan(load_job(str(job))).spec
    spec = replace(spec, execution=replace(spec.execution, device="cpu", tile_threads=4))
    calls = scoring.make_calls(spec, scoring.load(spec))
    assert isinstance(calls, Forward)
    assert calls.threads == threads


def test_a_failed_run_publishes_nothing(tmp_path: Path, as_on_a_gpu: Callable[[], None]) -> None:
    """An error that comes late ends the run, with the place of its rows."""
    as_on_a_gpu()
    job = job_of(tmp_path / "job", 10_000)
    factory.change_job(tmp_path / "job", {"rejects.max_ratio": 0.002})
    done = factory.run_json("run", job)
    assert done["status"] == "failed"
    assert "three hundred million" in done["error"] or "rejected so far" in done["error"]
    assert not (tmp_path / "job/out/data").exists()


def test_a_device_that_is_not_here_is_never_replaced(tmp_path: Path) -> None:
    """A worker whose machine lacks the run's device ends with one error, not on the CPU."""
    spec = make_plan(load_job(str(factory.write_job(tmp_path)))).spec
    spec = replace(spec, execution=replace(spec.execution, device="cuda:99"))
    with pytest.raises(DeviceError, match="usable GPUs"):
        scoring.load(spec)
