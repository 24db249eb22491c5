"""What `run` leaves in an output, when it does nothing, and how it is stopped."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchscore.cli import watch as command_line
from batchscore.commands.launched import _stop
from batchscore.commands.run import begin, run_plan
from batchscore.commands.stop import Stop
from batchscore.engines import local
from batchscore.engines.background import Background
from batchscore.errors import FailedError, StoppedError
from batchscore.job import load_job
from batchscore.plan import make_plan, settle
from batchscore.plan.shipping import pack
from batchscore.runs import stalls
from batchscore.runs.actor import actor
from batchscore.runs.failures import recorded
from batchscore.runs.progress import Progress, request_stop
from batchscore.storage import local_locks as locks
from batchscore.storage.store import Store
from tests import factory
from tests.conftest import Published

pytestmark = pytest.mark.slow

SLEEPY = """import time


def sleep(batch):
    time.sleep(0.05)
    return batch
"""


def write_sleepy_job(folder: Path) -> Path:
    """A job of 50 batches that take two and a half seconds."""
    (folder / "sleepy.py").write_text(SLEEPY)
    runtime = {"batch_rows": 10, "workers": 1}
    changes = {"preprocess": {"function": "sleepy.py:sleep"}, "runtime": runtime}
    return factory.write_job(folder, changes)


def write_daily_job(folder: Path) -> Path:
    """A job for one day of a hive folder with two."""
    changes: dict[str, Any] = {
        "params": {"date": {"type": "date"}},
        "input": {"path": "days/date=${date}"},
    }
    factory.write_shard(folder / "days/date=2026-11-20/x.parquet")
    factory.write_shard(folder / "days/date=2026-11-21/x.parquet", factory.make_rows(200, 300))
    return factory.write_job(folder, changes)


def current(output: Path, slice_: str = "small") -> list[str]:
    """The lines of a slice's snapshot."""
    return (output / f"_batchscore/slices/{slice_}/current.txt").read_text().splitlines()


def metric(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """One of Beam's metrics."""
    return next(m for m in manifest["beam_metrics"] if m["name"] == name)


def test_beams_metrics_are_in_the_manifest(flights: Published) -> None:
    """Beam counts as many inferences as there are rows, and the latency of each batch."""
    assert metric(flights.manifest, "num_inferences")["value"] == 309_772
    sizes = metric(flights.manifest, "inference_request_batch_size")
    assert (sizes["sum"], sizes["max"]) == (309_772, flights.manifest["batch_rows"])
    latency = metric(flights.manifest, "inference_batch_latency_micro_secs")
    assert latency["count"] == sizes["count"]
    assert 0 < latency["max"] <= latency["sum"]
    assert metric(flights.manifest, "load_model_latency_milli_secs")["count"] == 1


def test_the_manifest_describes_each_file(flights: Published) -> None:
    """The manifest lists every published file with its rows, bytes, hash and unit."""
    units = {unit["unit"] for unit in flights.manifest["units"]}
    described = {str(flights.output / f["path"]): f for f in flights.manifest["files"]}
    assert set(described) == {str(path) for path in flights.data.rglob("*") if path.is_file()}
    for path, facts in described.items():
        data = Path(path).read_bytes()
        assert facts["rows"] == pq.read_metadata(path).num_rows
        assert (facts["bytes"], facts["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert facts["unit"] in units


def test_the_manifest_says_how_the_run_was_made(flights: Published) -> None:
    """Job, model, inputs, engine, versions, checks and times can be read from the manifest."""
    manifest = flights.manifest
    assert (manifest["job"], manifest["slice"], manifest["params"]) == (
        "flight_delays",
        "flight_delays",
        {},
    )
    assert (manifest["engine"], manifest["tile_rows"]) == ("direct", 1024)
    assert manifest["model"]["version"] == "1.0.0"
    assert len(manifest["inputs"]) == 24
    assert all(set(s) == {"path", "size", "mark", "rows", "keys"} for s in manifest["inputs"])
    assert {"batchscore", "python", "apache-beam", "torch", "pyarrow"} <= set(manifest["packages"])
    assert {check["name"]: check["passed"] for check in manifest["checks"]} == {
        "rows": True,
        "rejects": True,
        "scored": True,
        "not_empty": True,
        "golden_rows": True,
        "drift": True,
    }
    assert set(manifest["profile"]) > {"score", "month", "distance"}
    assert all(seconds >= 0 for seconds in manifest["stage_seconds"].values())


def test_snapshot_and_marker_name_what_is_published(flights: Published) -> None:
    """current.txt lists the manifest's files, sorted, and _SUCCESS holds the run."""
    home = flights.output / "_batchscore"
    assert current(flights.output, "flight_delays") == sorted(
        file["path"] for file in flights.manifest["files"]
    )
    marker = (home / "slices/flight_delays/_SUCCESS").read_text()
    assert marker == f"{flights.manifest['run']}\n"
    names = {path.name for path in (home / f"runs/{marker.strip()}").iterdir()}
    assert names == {"manifest.json", "profile.parquet", "profile.extra.parquet"}
    assert not (home / "work").exists()
    assert not (home / "staging").exists()


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    """The same job again says so, exits 0, and leaves every file of the output as it was."""
    job = factory.write_job(tmp_path)
    first = factory.run_json("run", job)
    before = factory.read_tree(tmp_path)
    second = factory.run_json("run", job)
    assert (second["status"], second["exit_code"], second["run"]) == ("unchanged", 0, first["run"])
    assert "nothing to do" in factory.run_cli("run", job).stdout
    assert factory.read_tree(tmp_path) == before


@pytest.mark.parametrize("key", ["input", "model", "job", "file"])
def test_a_change_is_scored_again(key: str, tmp_path: Path) -> None:
    """A new shard, a new model, a changed job, or a lost file makes the job run again."""
    job = factory.write_job(tmp_path)
    first = factory.run_json("run", job)
    if key == "input":
        factory.write_shard(tmp_path / "in/2.parquet", factory.make_rows(10, 500))
    elif key == "model":
        factory.write_model(tmp_path / "model", version="1.1")
    elif key == "job":
        factory.change_job(tmp_path, {"input.filters": [["id", ">=", 0]]})
    else:
        (tmp_path / "out" / first["files"][0]["path"]).unlink()
    second = factory.run_json("run", job)
    assert second["status"] == "published"
    assert second["run"] != first["run"]
    assert len(factory.published(tmp_path / "out")) == (510 if key == "input" else 500)


def test_rescore_replaces_and_retires(tmp_path: Path) -> None:
    """--rescore publishes new files of the same rows and moves the old ones out of data/."""
    job, output = factory.write_job(tmp_path), tmp_path / "out"
    first = factory.run_json("run", job)
    rows = factory.published(output)
    second = factory.run_json("run", job, "--rescore")
    old, new = first["files"][0], second["files"][0]
    assert second["status"] == "published"
    assert second["replaced"] == [old["path"]]
    assert current(output) == [new["path"]]
    assert [str(p.relative_to(output)) for p in (output / "data").iterdir()] == [new["path"]]
    retired = output / "_batchscore/retired" / second["run"] / old["path"]
    assert hashlib.sha256(retired.read_bytes()).hexdigest() == old["sha256"]
    assert factory.published(output).equals(rows)


def test_dates_of_one_output_do_not_see_each_other(tmp_path: Path) -> None:
    """Each date is a slice of its own: scoring one again leaves the other's files and snapshot."""
    job, output = write_daily_job(tmp_path), tmp_path / "out"
    first = factory.run_json("run", job, "--param", "date=2026-11-20")
    second = factory.run_json("run", job, "--param", "date=2026-11-21")
    assert factory.published(output)["id"].to_pylist() == list(range(500))
    assert second["replaced"] == []
    theirs = (output / second["files"][0]["path"]).read_bytes()
    factory.run_json("run", job, "--param", "date=2026-11-20", "--rescore")
    assert factory.published(output)["id"].to_pylist() == list(range(500))
    assert current(output, first["slice"]) != [first["files"][0]["path"]]
    assert current(output, second["slice"]) == [second["files"][0]["path"]]
    assert (output / second["files"][0]["path"]).read_bytes() == theirs
    again = factory.run_json("run", job, "--param", "date=2026-11-21")
    assert again["status"] == "unchanged"


def test_a_run_tells_how_far_it_is(tmp_path: Path) -> None:
    """The watcher sees rows grow from nothing to at most all, and the seconds that passed."""
    plan = make_plan(load_job(str(write_sleepy_job(tmp_path)), (), ()))
    seen: list[Progress] = []
    run_plan(plan, (), False, seen.append, Stop())
    rows = [progress.rows for progress in seen]
    assert {progress.total for progress in seen} == {500}
    assert rows == sorted(rows)
    assert any(0 < count < 500 for count in rows)
    assert seen[-1].seconds > seen[0].seconds


def test_progress_is_plain_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where stderr is no terminal, a line now and then tells rows, share, speed and time left."""
    monkeypatch.setattr(command_line, "_LINE_SECONDS", 0.0)
    done = factory.run_cli("run", write_sleepy_job(tmp_path))
    lines = [line for line in done.stderr.splitlines() if "scored" in line]
    assert done.exit_code == 0
    assert len(lines) >= 3
    assert "of 500 rows (" in lines[0]
    assert any("rows/s, about" in line and "s left" in line for line in lines)
    assert "\x1b" not in done.stderr
    assert "scored" not in done.stdout.partition("\n")[0]


def test_a_unit_without_progress_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names unit, shards and worker, and the run goes on."""
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.01)
    done = factory.run_cli("run", write_sleepy_job(tmp_path))
    assert done.exit_code == 0
    assert "(shards 0.parquet, 1.parquet): no batch was finished for 0 seconds" in caplog.text
    assert f"on worker {platform.node()}, process {os.getpid()}" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_between_batches(number: int, tmp_path: Path) -> None:
    """A stopped run publishes nothing and says so; what was published before stays."""
    job, output = write_sleepy_job(tmp_path), tmp_path / "out"
    plan = make_plan(load_job(str(job), (), ()))
    stop = Stop()

    def interrupt(progress: Progress) -> None:
        if progress.rows:
            stop.signal = number

    with pytest.raises(StoppedError, match="nothing was published") as caught:
        run_plan(plan, (), False, interrupt, stop)
    assert caught.value.exit_code == 128 + number
    assert not (output / "data").exists()
    assert not (output / "_batchscore/staging").exists()
    assert not (output / "_batchscore/work").exists()
    (manifest,) = json.loads(factory.run_cli("runs", output, "--json").stdout)
    assert manifest["status"] == "interrupted"
    assert (manifest["stopped"]["by"], manifest["stopped"]["exit_code"]) == (actor(), 128 + number)


def test_a_run_that_somebody_elsewhere_cancels_ends_as_by_sigterm(tmp_path: Path) -> None:
    """Its command says who cancelled it, and so does its manifest."""
    output = tmp_path / "out"
    plan = make_plan(load_job(str(write_sleepy_job(tmp_path)), (), ()))

    def cancel(progress: Progress) -> None:
        if progress.rows:
            (run,) = (path.name for path in (output / "_batchscore/work").iterdir())
            request_stop(Store(str(output)), run, "etl@elsewhere")

    with pytest.raises(StoppedError, match="cancelled by etl@elsewhere; nothing was") as caught:
        run_plan(plan, (), False, cancel, Stop())
    assert caught.value.exit_code == 143
    assert not (output / "_batchscore/work").exists()
    (manifest,) = json.loads(factory.run_cli("runs", output, "--json").stdout)
    assert (manifest["status"], manifest["error"]) == ("interrupted", str(caught.value))
    assert manifest["stopped"] == {
        **{"by": "etl@elsewhere", "at": manifest["finished"], "exit_code": 143}
    }


def test_a_signal_before_the_first_batch(tmp_path: Path) -> None:
    """A run that is stopped while it starts up builds no graph, publishes nothing and says so."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    stop = Stop()
    stop.signal = signal.SIGINT
    with pytest.raises(StoppedError) as caught:
        run_plan(plan, (), False, lambda _: None, stop)
    assert caught.value.exit_code == 130
    assert not (tmp_path / "out/data").exists()
    assert factory.run_json("run", tmp_path / "job.yaml")["status"] == "published"


def test_a_worker_elsewhere_that_stopped_ends_the_run(tmp_path: Path) -> None:
    """Its engine would start it again, and again, while the launcher waits."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    opened = begin(plan, settle(plan), "r1", 1, shipment=pack(plan))
    over = threading.Event()
    work = Background(lambda _: [{}] if over.wait(5) else [])
    work.start()
    with suppress(StoppedError), recorded(plan.spec.output, "r1"):
        raise StoppedError("stopped")
    stop = Stop()
    stop.signal = signal.SIGINT
    with pytest.raises(StoppedError, match="finished and kept: 0 of 1 unit"):
        _stop(opened, work, stop)
    assert work.is_alive()
    over.set()


def test_what_was_published_is_never_called_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the last step, such as a worker killed then, leaves the run published."""

    def fail(*given: Any) -> None:
        whole(*given)
        raise RuntimeError("the engine went down")

    whole = local.run
    monkeypatch.setattr(local, "run", fail)
    manifest = factory.run_json("run", factory.write_job(tmp_path))
    assert (manifest["status"], manifest["exit_code"]) == ("published", 0)
    assert factory.run_json("show", tmp_path / "out")["status"] == "published"


def fill_disk(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    """Let a function find the disk full."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{module}.{name}", fail)


@pytest.mark.parametrize("name", ["_replace", "_retire"])
def test_a_publication_that_a_full_disk_cuts_off_is_not_called_failed(
    name: str, tmp_path: Path
) -> None:
    """Its run says that it is unfinished, leaves no manifest of a failure, and the next ends it."""
    job = factory.write_job(tmp_path)
    plan = make_plan(load_job(str(job), (), ()))
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, "batchscore.runs.publish", name)
        with pytest.raises(
            FailedError, match=r"started and is not finished \(.*make room"
        ) as caught:
            run_plan(plan, (), False, lambda _: None, Stop())
    assert "nothing was published" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("manifest.json"))
    again = factory.run_json("run", job)
    assert again["status"] == "unchanged"
    assert f"publication of run {again['run']} " in str(caught.value)
    assert len(factory.published(tmp_path / "out")) == 500


def test_what_comes_after_publication_cannot_fail_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when old files are purged leaves the run published."""
    fill_disk(monkeypatch, "batchscore.commands.run", "purge")
    assert factory.run_json("run", factory.write_job(tmp_path))["status"] == "published"


def test_a_publication_under_way_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is asked to stop while it publishes ends published, however long that takes."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path)), (), ()))
    monkeypatch.setattr("batchscore.commands.launched._GRACE_SECONDS", 0.0)
    stop, exchange = Stop(), Store.exchange

    def slow(*given: Any, **options: Any) -> bool:
        stop.signal = signal.SIGINT
        time.sleep(1.5)
        return exchange(*given, **options)

    monkeypatch.setattr(Store, "exchange", slow)
    assert run_plan(plan, (), False, lambda _: None, stop).status == "published"


def test_a_lock_that_stays_is_no_failure(scored_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that cannot publish since a process was stopped ends with 4; the next run publishes."""
    monkeypatch.setattr(locks, "_SECONDS", 0.2)
    job, slice_ = scored_job / "job.yaml", scored_job / "out/_batchscore/slices/small"
    before = current(scored_job / "out")
    factory.write_shard(scored_job / "in/2.parquet", factory.make_rows(100, 500))
    with open(slice_ / ".current.txt.lock", "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = factory.run_json("run", job)
    assert (found["exit_code"], found["status"]) == (4, "retry"), found
    assert "has held this lock" in found["error"]
    assert current(scored_job / "out") == before
    assert factory.run_json("run", job)["status"] == "unchanged"
    assert len(factory.published(scored_job / "out")) == 600
