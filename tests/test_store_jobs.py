"""Test whole runs on real object stores, also behind a proxy that misbehaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from tenacity import wait_fixed

from batchscore.commands.run import run_plan
from batchscore.commands.stop import Stop
from batchscore.errors import StoppedError
from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.storage import retries
from batchscore.storage.store import Store, open_filesystem
from tests.factory import (
    change_job,
    make_rows,
    run_cli,
    run_json,
    write_job,
    write_model,
    write_shard,
)
from tests.nights import add_night
from tests.servers import STORES, Fault, ObjectStore, running, running_proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is waited out for moments; `tests/storage` tests for how long."""
    monkeypatch.setattr(retries, "_WAIT", wait_fixed(0.05))


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """A server of each kind, for all tests here."""
    with running(request.param) as found:
        yield found


@pytest.fixture
def bucket(server: ObjectStore, tmp_path: Path) -> Path:
    """The folder of a bucket that holds a job's input and model; its job file is job.yaml."""
    name = tmp_path.name.replace("_", "-")[-40:].lower().strip("-")
    address = server.make_bucket(name)
    write_job(tmp_path)
    for part in ("in", "model"):
        for path in (tmp_path / part).iterdir():
            put(server, f"{name}/{part}/{path.name}", path.read_bytes())
    paths = {
        "input.path": f"{address}/in",
        "model.path": f"{address}/model",
        "output.path": f"{address}/out",
    }
    change_job(tmp_path, paths)
    return server.folder / name


def put(server: ObjectStore, path: str, data: bytes) -> None:
    """Puts an object past any proxy."""
    with server.at():
        folder, _, name = path.rpartition("/")
        Store(f"{server.scheme}://{folder}").write(name, data)


def put_shard(server: ObjectStore, bucket: Path, name: str, rows: pa.Table | None = None) -> None:
    """Puts a shard of rows 500 to 599, unless others are given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        write_shard(path, make_rows(100, 500) if rows is None else rows)
        put(server, f"{bucket.name}/{name}", path.read_bytes())


def files(folder: Path) -> list[Path]:
    """All files below, as the server keeps them."""
    return [path for path in folder.rglob("*") if path.is_file()]


def ids(bucket: Path) -> list[int]:
    found: list[int] = (
        ds.dataset(bucket / "out/data").to_table().sort_by("id").column("id").to_pylist()
    )
    return found


def test_a_slice_lives_on_a_store(server: ObjectStore, bucket: Path, tmp_path: Path) -> None:
    """Published, unchanged, added to, undone and verified, as on a disk."""
    job = tmp_path / "job.yaml"
    with server.at():
        assert run_json("run", job)["status"] == "published"
        assert run_json("run", job)["status"] == "unchanged"
        put_shard(server, bucket, "in/2.parquet")
        added = run_json("run", job)
        assert (added["status"], added["rows"]["reused"]) == ("published", 500)
        assert ids(bucket) == list(range(600))
        assert run_json("verify", job)["exit_code"] == 0
        traced = run_json("trace", job, "id=555")
        assert run_json("rollback", job, "--undo", added["run"])["exit_code"] == 0
        assert ids(bucket) == list(range(500))
        assert run_json("verify", job)["exit_code"] == 0
        next((bucket / "out/data").glob("*.parquet")).unlink()
        put_shard(server, bucket, "out/data/x", make_rows(10))
        spoiled = run_json("verify", job)
    assert [problem["kind"] for problem in spoiled["problems"]] == ["missing", "stranger"]
    assert "2.parquet" in str(traced)
    left = {path.relative_to(bucket / "out").parts[1] for path in files(bucket / "out/_batchscore")}
    assert left == {"format.json", "ledger", "retired", "runs", "slices"}


_SLEEPY = """import time


def sleep(batch):
    time.sleep(0.1)
    return batch
"""


def test_a_run_on_a_store_is_followed_and_cancelled(
    server: ObjectStore, bucket: Path, tmp_path: Path
) -> None:
    """Whoever sees the bucket sees how far the run is, and can stop it."""
    (tmp_path / "sleepy.py").write_text(_SLEEPY)
    runtime = {"batch_rows": 10, "workers": 1}
    changes = {"preprocess": {"function": "sleepy.py:sleep"}, "runtime": runtime}
    job, ended = load_job(str(change_job(tmp_path, changes)), (), ()), list[str]()
    output = job.job.output.path

    def score() -> None:
        try:
            plan = make_plan(job)
            run_plan(plan, (), False, lambda _: None, Stop())
        except StoppedError as error:
            ended.append(str(error))

    with server.at():
        thread = threading.Thread(target=score)
        thread.start()
        wait_until(lambda: any(bucket.glob("out/_batchscore/work/*/progress/*.json")))
        (found,) = run_json("status", output)["under_way"]
        late = run_cli("wait", output, found["run"], "--timeout", "0")
        done = run_json("cancel", output, found["run"])
        thread.join()
        after = run_json("status", output)
    assert (found["state"], found["total"]) == ("scoring", 500)
    assert late.exit_code == 4
    assert (done["status"], done["exit_code"]) == ("interrupted", 0)
    assert ended == [done["error"]]
    assert (after["under_way"], after["undecided"][0]["run"]) == ([], found["run"])


def test_a_folder_of_outputs_is_watched(server: ObjectStore) -> None:
    """Ages are by the dates of the store's answers; other folders of the bucket are left out."""
    address = server.make_bucket(f"b{uuid.uuid4().hex[:8]}")
    with server.at():
        for name in ("one", "two"):
            add_night(Store(f"{address}/{name}"), "2026-11-30", 40, job=name)
        Store(address).write("raw/part.parquet", b"")
        found = run_json("status", address, "--max-age", "1h")
    assert [(each["job"], each["last"]["status"]) for each in found["jobs"]] == [
        ("one", "published"),
        ("two", "published"),
    ]
    assert all(each["newest_published"]["age_s"] < 300 for each in found["jobs"])
    assert found["late"] == []


STORMS: list[list[Fault]] = [["500", "503", "429"], ["drop", "reset", "lose", "cut"], ["slow"]]


@pytest.mark.parametrize("faults", STORMS, ids="-".join)
def test_a_store_that_stumbles_is_waited_for(
    server: ObjectStore, bucket: Path, tmp_path: Path, faults: list[Fault]
) -> None:
    """Answers that fail now and then, come late, or are lost, cost time and nothing else."""
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        for method, fault in product(("HEAD", "GET", "PUT", "POST", "DELETE"), faults):
            proxy.fail(fault, 1, method, "out/")
        found = run_json("run", tmp_path / "job.yaml")
        assert found["status"] == "published", found["error"]
        assert not [rule for rule in proxy.left() if rule.method in ("GET", server.writes)]
    assert ids(bucket) == list(range(500))


@pytest.mark.parametrize("what", ["model", "out/_batchscore/ledger", "out/_batchscore/slices"])
def test_bytes_that_are_damaged_on_their_way_are_asked_for_again(
    server: ObjectStore, bucket: Path, tmp_path: Path, what: str
) -> None:
    """An answer of the right length with a wrong byte is known by the object's checksum."""
    job = tmp_path / "job.yaml"
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        run_json("run", job)
        put_shard(server, bucket, "in/2.parquet")
        proxy.fail("wrong", 1, "GET", f"{what}/")
        found = run_json("run", job)
        assert (found["status"], proxy.left()) == ("published", []), found["error"]
    assert ids(bucket) == list(range(600))


def test_a_server_that_is_killed_and_comes_back_loses_nothing(
    server: ObjectStore, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for it, and publishes every row once."""
    monkeypatch.setattr(retries, "_WAIT", wait_fixed(1))
    (tmp_path / "sleepy.py").write_text(_SLEEPY)
    runtime = {"batch_rows": 50, "workers": 1}
    changes = {"preprocess": {"function": "sleepy.py:sleep"}, "runtime": runtime}

    def restart() -> None:
        wait_until(lambda: any(bucket.glob("out/_batchscore/work/*/progress/*.json")))
        server.daemon.kill()
        time.sleep(1)
        server.daemon.start()

    with server.at(), ThreadPoolExecutor(1) as pool:
        restarted = pool.submit(restart)
        found = run_json("run", change_job(tmp_path, changes))
        restarted.result()
        assert found["status"] == "published", found["error"]
        assert run_json("verify", tmp_path / "job.yaml")["exit_code"] == 0
    assert ids(bucket) == list(range(500))


def test_publishing_waits_longer_than_other_steps(
    server: ObjectStore, bucket: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many answers of 503 in a row end no run whose rows are scored; one line says why it waits."""
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        proxy.fail("503", 30, server.writes, "journal-")
        found = run_json("run", tmp_path / "job.yaml")
        assert found["status"] == "published", found["error"]
        assert not proxy.left()
    assert "each request is tried for 5 minutes" in caplog.text
    assert ids(bucket) == list(range(500))


def test_a_store_that_stays_away_publishes_nothing(
    server: ObjectStore, bucket: Path, tmp_path: Path
) -> None:
    """When puts fail for good the run fails clearly, and what was published before stays."""
    job = tmp_path / "job.yaml"
    with server.at():
        assert run_json("run", job)["status"] == "published"
    put_shard(server, bucket, "in/2.parquet")
    with running_proxy(server.port) as proxy, server.at(proxy.port):
        proxy.fail("503", 10_000, server.writes, "staging")
        found = run_json("run", job)
        assert (found["status"], found["exit_code"]) == ("failed", 1)
        assert f"{server.scheme}://" in found["error"]
    assert ids(bucket) == list(range(500))
    with server.at():
        assert run_json("run", job)["status"] == "published"
        assert ids(bucket) == list(range(600))
        assert run_json("verify", job)["exit_code"] == 0


_UPLOAD = """import os, signal, sys

from batchscore.storage.store import Store

file = Store(sys.argv[1]).create("_batchscore/staging/small/0123456789abcdef-1/0000.parquet")
file.write(bytes(60_000_000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def uploads(server: ObjectStore, bucket: Path) -> list[Any]:
    """What S3 keeps of uploads that were not ended; Google's store lists none."""
    filesystem, _ = open_filesystem(f"{server.scheme}://{bucket.name}")
    return list(filesystem.list_multipart_uploads(bucket.name)) if server.scheme == "s3" else []


def test_an_upload_that_was_killed_leaves_nothing(
    server: ObjectStore, bucket: Path, tmp_path: Path
) -> None:
    """An upload whose process got -9 in its middle is not seen, and the next run removes it."""
    with server.at():
        store = f"{server.scheme}://{bucket.name}/out"
        done = subprocess.run([sys.executable, "-c", _UPLOAD, store], check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(uploads(server, bucket)) == (server.scheme == "s3")
        assert Store(store).walk("") == []
        assert run_json("run", tmp_path / "job.yaml")["status"] == "published"
        assert uploads(server, bucket) == []
    assert ids(bucket) == list(range(500))


@pytest.mark.parametrize("what", ["bucket", "prefix"])
def test_an_output_that_is_removed_fails_the_run(
    server: ObjectStore, bucket: Path, tmp_path: Path, what: str
) -> None:
    """The run ends with 1 and names the output, whether its bucket is gone or all objects in it."""
    address = server.make_bucket(f"{bucket.name}-out"[-40:].lstrip("-"))
    folder = server.folder / address.partition("://")[2]
    gone = folder if what == "bucket" else folder / "out"
    remove = f"shutil.rmtree({str(gone)!r}, True)"
    # What is scored before the run's first unit is scored before the run has a work folder.
    remove = f"if os.path.exists({str(folder / 'out/_batchscore/work')!r}): {remove}"
    code = f"import os, shutil\n\ndef f(batch):\n    {remove}\n    return batch\n"
    (tmp_path / "features.py").write_text(code)
    function = {"preprocess": {"function": "features.py:f"}, "runtime.workers": 1}
    change_job(tmp_path, {"output.path": f"{address}/out", **function})
    with server.at():
        found = run_json("run", tmp_path / "job.yaml")
    assert (found["exit_code"], found["status"]) == (1, "failed")
    assert f"output {address}/out: was removed while run " in found["error"]
    assert not folder.exists() or files(folder) == []


def damage(bucket: Path, pattern: str) -> str:
    """Flips a bit of the one file of a pattern, behind the server's back; returns its path."""
    (path,) = (bucket / "out/_batchscore").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return str(path.relative_to(bucket / "out"))


def test_damaged_objects_are_neither_released_nor_resumed_nor_brought_back(
    server: ObjectStore, bucket: Path, tmp_path: Path
) -> None:
    """A release and a rollback fail and name the object; the next run scores its unit again."""
    job = tmp_path / "job.yaml"
    with server.at():
        run_json("run", job)
        put_shard(server, bucket, "in/2.parquet")
        change_job(tmp_path, {"checks.score_range": [0.9, 1]})
        held = run_json("run", job)["run"]
        path = damage(bucket, "staging/small/*/0000.parquet")
        refused = run_cli("release", job, held, "--reason", "why")
        assert (refused.exit_code, path in refused.stderr) == (1, True)
        assert ids(bucket) == list(range(500))
        change_job(tmp_path, {"checks.score_range": None})
        again = run_json("run", job)
        assert [*again["damaged"]] == [path]
        assert ids(bucket) == list(range(600))
        later = run_json("run", job, "--rescore")["run"]
        path = damage(bucket, f"retired/{later}/data/{again['run']}-*.parquet")
        refused = run_cli("rollback", job, "--undo", later)
        assert (refused.exit_code, path in refused.stderr) == (2, True)
        assert ids(bucket) == list(range(600))
        assert run_json("verify", job)["exit_code"] == 0


def test_an_object_that_was_replaced_since_it_was_looked_at_is_not_moved(
    server: ObjectStore, bucket: Path
) -> None:
    """A copy has the version that was looked at as its condition."""
    with server.at():
        store = Store(f"{server.scheme}://{bucket.name}/out")
        store.write("a", b"seen")
        tags = {path: found.tag for path, found in store.find(["a", "none"]).items()}
        assert [*tags] == ["a"]
        store.write("a", b"else")
        with pytest.raises(OSError, match="reconditio"):
            store.move_all([("a", "b")], tags=tags)
        assert (store.read("a"), store.exists("b")) == (b"else", False)
        tags = {path: found.tag for path, found in store.find(["a"]).items()}
        store.move_all([("a", "b")], tags=tags)
        assert (store.exists("a"), store.read("b")) == (False, b"else")


def test_a_first_job_may_lie_in_a_store_with_all_that_it_names(
    server: ObjectStore, tmp_path: Path
) -> None:
    """`init` takes data, a model and the job's folder at addresses, and the job can be run."""
    with server.at(server.port):
        bucket = server.make_bucket(f"b-{uuid.uuid4().hex}")
        folder = write_model(tmp_path / "model")
        write_shard(tmp_path / "rows.parquet")
        filesystem, _ = open_filesystem(bucket)
        for file in folder.iterdir():
            filesystem.put_file(str(file), f"{bucket}/model/{file.name}")
        for day in ("2026-01-01", "2026-01-02"):
            filesystem.put_file(
                str(tmp_path / "rows.parquet"), f"{bucket}/data/date={day}/a.parquet"
            )
        words = ("init", f"{bucket}/data", f"{bucket}/model", "-o", f"{bucket}/jobs")
        done = run_cli(*words, "--inputs", "x=a,b")
        assert done.exit_code == 0, done.output
        assert f"check {bucket}/jobs/job.yaml --param date=2026-01-02" in done.output
        done = run_cli("run", f"{bucket}/jobs/job.yaml", "--param", "date=2026-01-01")
        assert done.exit_code == 0, done.output
        assert "scored 300 + rejected 0" in done.output
        again = run_cli(*words, "--inputs", "x=a,b")
        assert "there is a job file already" in again.output
