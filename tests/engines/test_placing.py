"""A device that the workers' machines have and the launcher's has not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.models.backends.registry import backend_of
from tests import factory
from tests.backends.accelerated import NAME
from tests.backends.installed import install, write_linear_model
from tests.engines.own_pools import own_pool

pytestmark = pytest.mark.slow

WEIGHTS = np.array([0.3, -1.7], np.float32)
GOLDEN = np.array([[0.1, 0.7], [3.3, 0.9]], np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that has a backend with a device; launcher and workers look there."""
    return install(tmp_path_factory.mktemp("site"), npz="tests.backends.accelerated:BACKEND")


@pytest.fixture(scope="module")
def pool(site: Path) -> Iterator[str]:
    """Workers whose machine has the device."""
    with own_pool(site / "log", {NAME: "Test 1"}, site) as address:
        yield address


@pytest.fixture(autouse=True)
def launcher(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The launcher knows the format, and its machine has no device."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv(NAME, raising=False)
    # Other modules of tests have another backend for the format.
    backend_of.cache_clear()
    yield
    backend_of.cache_clear()


def job_of(folder: Path, job_server: str, pool: str, score: float = 0.0) -> Path:
    """Writes a job for workers of a pool, with a model whose golden rows have a score too much."""
    factory.write_job(folder, {"model.inputs": {"x": ["a", "b"]}, "postprocess": []})
    known_b = (GOLDEN @ WEIGHTS + np.float32(0.125)).astype(np.float32) + score
    x = pa.array(GOLDEN.tolist(), pa.list_(pa.float32(), 2))
    file = io.BytesIO()
    pq.write_table(pa.table({"x": x, "score": pa.array(known_b, pa.float32())}), file)
    card, files = {"golden": "golden.parquet"}, {"golden.parquet": file.getvalue()}
    write_linear_model(folder / "line", WEIGHTS, 0.125, card, files)
    flink = {"job_service": job_server, "pool": pool}
    runtime = {"engine": "flink", "device": "cuda", "flink": flink}
    return factory.change_job(folder, {"model.path": "line", "runtime": runtime})


def in_device_order(table: pa.Table) -> np.ndarray[Any, Any]:
    """Returns what the device computes of published rows: sums in the other order."""
    a_b, b_b = (table[name].to_numpy().astype(np.float32) for name in ("a", "b"))
    score_b: np.ndarray[Any, Any] = b_b * WEIGHTS[1] + a_b * WEIGHTS[0] + np.float32(0.125)
    return score_b


def test_a_worker_resolves_the_device_and_scores_on_it(
    tmp_path: Path, job_server: str, pool: str
) -> None:
    """The manifest and each unit name the device; rows of a call are what the device takes."""
    job = job_of(tmp_path, job_server, pool)
    done = factory.run_json("run", job)
    assert done["status"] == "published", done
    assert done["device"].startswith("cuda, Test 1, asked for cuda; resolved and tried by the ")
    assert {unit["device"] for unit in done["units"]} == {"cuda, Test 1"}
    assert done["inference"]["call_rows"] == 256
    table = factory.published(tmp_path / "out")
    np.testing.assert_array_equal(table["score"].to_numpy(), in_device_order(table))
    assert factory.run_json("run", job)["status"] == "unchanged"


def test_a_check_has_workers_try_the_device(tmp_path: Path, job_server: str, pool: str) -> None:
    """It says what was tried where, compares golden rows there, and leaves nothing."""
    job = job_of(tmp_path, job_server, pool)
    done = factory.run_cli("check", job, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (worker,) = found["seen_by_workers"]["found"]
    assert (worker["device"], found["seen_by_workers"]["own"]["device"]) == ("cuda, Test 1", "cpu")
    assert found["choices"]["alone"].partition(", by the worker on ")[2]
    assert "golden_rows" in {check["name"] for check in found["checks"]}
    assert found["warnings"] == []
    assert not (tmp_path / "out").exists()


def test_golden_rows_are_compared_on_the_workers_device(
    tmp_path: Path, job_server: str, pool: str
) -> None:
    """A run would be held for them; the check says that workers found it."""
    done = factory.run_cli("check", job_of(tmp_path, job_server, pool, score=1.0))
    assert done.exit_code == 3
    assert "golden_rows" in done.stdout
    assert "on workers: " in done.stdout


def test_workers_without_the_device_end_a_check_and_a_run(
    tmp_path: Path, job_server: str, site: Path
) -> None:
    """Both end with one message of the worker before any work; nothing was computed on the CPU."""
    with own_pool(tmp_path / "log", {}, site) as address:
        job = job_of(tmp_path / "job", job_server, address)
        for command in ("check", "run"):
            done = factory.run_cli(command, job)
            assert done.exit_code == 2, done.output
            assert "runtime.device 'cuda': this machine has 0 usable GPUs" in done.stderr
            assert "(on worker " in done.stderr
    assert not (tmp_path / "job/out/data").exists()


def test_auto_is_the_cpu_where_workers_are_elsewhere(
    tmp_path: Path, job_server: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the launcher's device nor a worker's changes the bits that are published."""
    monkeypatch.setenv(NAME, "Test 2")
    job = job_of(tmp_path, job_server, pool)
    done = factory.run_json("run", job, "--set", "runtime.device=auto")
    assert done["status"] == "published", done
    assert done["device"] == "cpu, asked for auto"
    assert {unit.get("device") for unit in done["units"]} == {None}


def test_a_device_that_the_format_does_not_know_is_refused_here(
    tmp_path: Path, job_server: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker is asked for it."""
    monkeypatch.setattr("tests.backends.accelerated.BACKEND.other_devices", ())
    done = factory.run_cli("check", job_of(tmp_path, job_server, pool))
    assert done.exit_code == 2
    assert "(on worker " not in done.stderr
