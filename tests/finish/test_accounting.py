"""Test what a manifest says that a run used, and when a run is called slow."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from batchscore.cli.render.times import times, used
from batchscore.finish.accounting import accounted, find_slowness
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Pulse, Used
from batchscore.storage.store import Store
from batchscore.system.usage import Usage
from tests import factory
from tests.conftest import Published
from tests.manifests import ROWS, make_manifest

NOW = datetime(2026, 11, 30, 3, tzinfo=timezone.utc)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty output."""
    return Store(str(tmp_path))


def run_of(days_ago: int, seconds: float, **facts: Any) -> Manifest:
    """The manifest of a run of a night, of a thousand rows."""
    at = NOW - timedelta(days=days_ago)
    rows = {**ROWS, "input": 1_000, "scored": 1_000}
    known: dict[str, Any] = {"job": "j", "engine": "direct", "device": "cpu, tiles", "rows": rows}
    head = {"run": f"{at:%Y%m%d}-0000", "started": at.isoformat(), "seconds": seconds}
    return make_manifest(**{**known, **head, **facts})


def write(store: Store, *manifests: Manifest) -> None:
    """Write manifests to an output."""
    for each in manifests:
        store.write_json(layout.run_file(each.run, "manifest.json"), each.document)


def test_a_run_twice_as_slow_as_the_median_says_so(store: Store) -> None:
    """Of the last ten published runs; the eleventh night before was as slow, and does not count."""
    write(store, *(run_of(day, 40.0 + day) for day in range(1, 11)), run_of(11, 500.0))
    slow = run_of(0, 91.0)
    assert find_slowness(store, slow) == {"median_seconds": 45.5, "runs": 10, "times": 2.0}
    assert find_slowness(store, run_of(0, 90.9)) is None
    found = accounted(store, slow)
    assert times(found).endswith("; SLOW: 2 times the median of the last 10 runs like it, 46 s")


@pytest.mark.parametrize(
    "facts",
    [
        {"status": "failed"},
        {"status": "held"},
        {"engine": "flink"},
        {"device": "cuda, NVIDIA H200"},
        {"job": "another"},
        {"rows": {**ROWS, "input": 2_100, "scored": 2_100}},
        {"rows": {**ROWS, "input": 490, "scored": 490}},
        {"rows": {**ROWS, "input": 1_000, "scored": 1_000, "reused": 900}},
        {"rollback": {"at": NOW.isoformat(), "by": "a@b"}},
    ],
)
def test_only_runs_like_it_are_compared(store: Store, facts: dict[str, Any]) -> None:
    """Of the same job, engine and device, that published, and scored about as many rows."""
    write(store, *(run_of(day, 40.0, **facts) for day in range(1, 6)))
    assert find_slowness(store, run_of(0, 400.0)) is None
    write(store, *(run_of(day, 40.0) for day in range(6, 9)))
    assert find_slowness(store, run_of(0, 400.0)) == {
        **{"median_seconds": 40.0, "runs": 3, "times": 10.0}
    }


def test_two_runs_are_no_habit_and_seconds_are_no_trouble(store: Store) -> None:
    """At least three runs, and ten seconds more: the start of Python varies by seconds."""
    write(store, run_of(1, 40.0), run_of(2, 40.0))
    assert find_slowness(store, run_of(0, 400.0)) is None
    write(store, *(run_of(day, 4.0) for day in range(1, 5)))
    assert find_slowness(store, run_of(0, 13.9)) is None
    assert find_slowness(store, run_of(0, 14.1)) is not None


def test_a_damaged_manifest_is_left_out(store: Store) -> None:
    """The run has ended, and must not fail of another one's manifest."""
    write(store, *(run_of(day, 40.0) for day in range(1, 5)))
    store.write(layout.run_file("20261129-ffff", "manifest.json"), b"{")
    assert find_slowness(store, run_of(0, 400.0)) is not None


def test_what_workers_noted_is_added_up(store: Store) -> None:
    """CPU time and peaks of all processes; a GPU's share is their mean."""
    manifest = run_of(0, 1.0)
    store.write(layout.plan_file(manifest.run), b"{}")
    for used_ in (Used(2.0, 100, 150, 7, 0.5), Used(3.0, 300, 300, 9, 0.7)):
        Pulse(store, manifest.run).note_used(used_)
    found = accounted(store, manifest, Usage(1.5, 200, 200)).document["usage"]
    assert found == {
        **{"cpu_seconds": 6.5, "peak_memory_bytes": 300, "total_memory_bytes": 650},
        **{"processes": 2, "gpu_memory_bytes": 9, "gpu_busy_share": 0.6},
    }
    assert used(accounted(store, manifest, Usage(1.5, 200, 200))) == [
        "used   CPU 6.5 s, memory 300 B in the largest process, 650 B in all, GPU memory 9 B, "
        "GPU busy 60%"
    ]


def test_nothing_is_said_of_what_nobody_noted(store: Store) -> None:
    """As of a job whose engine has no such workers."""
    assert accounted(store, run_of(0, 1.0)).document["usage"] == {}


@pytest.mark.slow
def test_a_run_says_what_it_used(flights: Published) -> None:
    """Its CPU time is that of its process; bytes are those of its shards and files."""
    found = flights.manifest["usage"]
    shards = sum(each["size"] for each in flights.manifest["inputs"])
    files = sum(each["bytes"] for each in flights.manifest["files"])
    assert 0 < found["read_bytes"] <= shards
    assert files <= found["written_bytes"] < 2 * files
    assert found["rejected_share"] == 0
    assert 0.1 < found["cpu_seconds"] < 600
    assert 50e6 < found["peak_memory_bytes"] <= found["total_memory_bytes"]


@pytest.mark.slow
def test_workers_are_counted_with_what_their_functions_used(tmp_path: Path) -> None:
    """A function that spins for half a second in each of two workers costs a second."""
    (tmp_path / "spin.py").write_text(
        "import time\n\n\ndef spin(batch):\n    end = time.process_time() + 0.25\n"
        "    while time.process_time() < end:\n        pass\n    return batch\n"
    )
    factory.write_job(tmp_path)
    changes = {
        "preprocess": {"function": "spin.py:spin"},
        "runtime": {"workers": 2, "batch_rows": 100, "device": "cpu"},
    }
    job = factory.change_job(tmp_path, changes)
    before = time.process_time()
    found = factory.run_json("run", job)["usage"]
    own = time.process_time() - before
    assert found["processes"] == 2
    # Five batches of a hundred rows, next to what the launcher did.
    assert found["cpu_seconds"] > own + 1.0
    unchanged = factory.run_json("run", job)
    assert "usage" not in unchanged


@pytest.mark.slow
def test_the_command_says_that_its_run_was_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its last lines, in the manifest that stays, and in JSON; a run with nothing to do not."""
    monkeypatch.setattr("batchscore.finish.accounting._LEAST_MORE_S", 0.0)
    job, store = factory.write_job(tmp_path), Store(str(tmp_path / "out"))
    layout.claim_output(store)
    rows = {**ROWS, "input": 500, "scored": 500}
    write(
        store, *(run_of(day, 0.01, job="small", slice="small,d=1", rows=rows) for day in (1, 2, 3))
    )
    done = factory.run_cli("run", job)
    said = done.stdout
    assert done.exit_code == 0, done.output
    assert "times the median of the last 3 runs like it, 0.0 s" in said
    run = said.split()[2]
    assert factory.run_json("show", job, run)["slow"]["runs"] == 3
    assert "slow" not in factory.run_json("run", job)
