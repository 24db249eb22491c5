"""`check` on workers of an engine that ships: what they find, and what they cannot do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from batchscore.worker.inspection import Findings, difference
from tests import factory
from tests.engines.pools import running_pool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Beam's own job server."""
    server = LocalJobServicer(staging_dir=str(tmp_path_factory.mktemp("staging")))
    yield f"localhost:{server.start_grpc_server()}"
    server.stop()


def changes(job_server: str, environment: str = "", kind: str = "EXTERNAL") -> dict[str, Any]:
    """What a job for the job server says of its engine."""
    options = {"job_endpoint": job_server, "environment_type": kind}
    options |= {"environment_config": environment} if environment else {}
    return {"runtime": {"engine": "flink", "options": options}}


def test_a_worker_tells_what_it_has(job_server: str, tmp_path: Path) -> None:
    """Host, versions, device, rows and scores; what it used is removed, with its folders."""
    job = factory.write_job(tmp_path, changes(job_server, kind="LOOPBACK"))
    before = factory.read_tree(tmp_path)
    done = factory.run_cli("check", job, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["seen_by_workers"]
    (worker,) = found["found"]
    assert worker["scores_sha256"] == found["own"]["scores_sha256"]
    assert (worker["rows"], worker["scored"], worker["device"]) == (64, 64, "cpu")
    assert {"batchscore", "Python", "apache-beam", "numpy", "pyarrow", "torch"} <= {
        *worker["versions"]
    }
    assert set(worker["seconds"]) == {"read", "load", "score", "write"}
    assert factory.read_tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_check_of_what_is_published_leaves_it_as_it_is(job_server: str, tmp_path: Path) -> None:
    """Its folder in the output is gone; where nothing is to be scored, no worker is asked."""
    job = factory.write_job(tmp_path)
    assert factory.run_json("run", job)["status"] == "published"
    factory.change_job(tmp_path, changes(job_server, kind="LOOPBACK"))
    factory.write_shard(tmp_path / "in/2.parquet", factory.make_rows(100, 600))
    before = factory.read_tree(tmp_path)
    assert ", scores as here" in factory.run_cli("check", job).stdout
    assert factory.read_tree(tmp_path) == before
    (tmp_path / "in/2.parquet").unlink()
    assert "worker " not in factory.run_cli("check", job).stdout


def test_a_code_that_fails_there_is_an_error(job_server: str, tmp_path: Path) -> None:
    """The message is the worker's, and names it; the exit code is that of a wrong job."""
    more = {"preprocess": {"function": "mine.py:fail"}}
    job = factory.write_job(tmp_path, {**changes(job_server, kind="LOOPBACK"), **more})
    (tmp_path / "mine.py").write_text(
        "def fail(batch):\n"
        "    if 'batchscore-shipped' in __file__:\n"
        "        raise ValueError('not here')\n"
        "    return batch\n"
    )
    done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert "tried on a worker: function mine.py:fail raised ValueError: not here" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "unseen", "code"),
    [("check", "output", 2), ("check", "input", 2), ("run", "input", 1)],
)
def test_a_path_that_a_worker_does_not_see_is_an_error(
    job_server: str, tmp_path: Path, command: str, unseen: str, code: int
) -> None:
    """A worker of another user does not see the launcher's own folders."""
    home = tmp_path / "home"
    job = factory.write_job(home)
    home.chmod(0o700)
    with running_pool({}) as pool:
        shared = pool.folder / "out"
        shared.mkdir()
        shutil.chown(shared, 65534, 65534)
        factory.change_job(home, changes(job_server, pool.address))
        target = f"--set=output.path={home / 'out' if unseen == 'output' else shared}"
        # As the pool's user may write what the launcher wrote there.
        main = "import os; os.umask(0); from batchscore.cli import main; main()"
        asked = [sys.executable, "-c", main, command, str(job), target]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert f"does not see {'the output' if unseen == 'output' else 'shard'} {home}" in done.stderr
    assert "that launcher and workers share" in done.stderr
    if command == "check":
        assert not [*shared.glob("**/*")] if shared.exists() else True


def test_a_pool_without_batchscore_is_an_error(job_server: str, tmp_path: Path) -> None:
    """The message says what the pool lacks."""
    with running_pool({}, root=tmp_path / "empty") as pool:
        job = factory.write_job(tmp_path, changes(job_server, pool.address))
        done = factory.run_cli("check", job)
    assert done.exit_code == 2
    assert "a worker has no module 'batchscore" in done.stderr


def findings(rows: int = 4, scored: int = 4, digest: str = "ab") -> Findings:
    """What a process found."""
    return Findings("host", 7, {}, "cpu", rows, scored, digest, {})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (findings(), None),
        (findings(scored=3), "3 of 4 rows scored, and 4 of 4 here"),
        (findings(digest="cd"), "other bits, as between kinds of processor or device"),
    ],
)
def test_scores_are_compared_with_the_launchers(found: Findings, words: str | None) -> None:
    """Rows and bits; a difference is a warning of the check."""
    assert difference(findings(), found) == words
