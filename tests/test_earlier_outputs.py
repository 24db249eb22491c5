"""Test that outputs which an earlier version wrote are read, extended and rolled back."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import duckdb
import numpy as np
import pytest

from batchscore.job import load_job
from batchscore.plan import Work, make_plan, settle
from tests.earlier.make import PLACE
from tests.factory import run_cli, run_json
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parent / "earlier/dc42d60.tar.xz"
LOCK_SECONDS = 600
KILLED = ("called.yaml", "--set", "output.path=out/killed")


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """Keeps other test processes from the folder, which has one name on every machine."""
    with open(f"{PLACE}.lock", "w") as lock:
        wait_until(lambda: _is_locked(lock), LOCK_SECONDS)
        yield
        shutil.rmtree(PLACE, ignore_errors=True)


def _is_locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@pytest.fixture
def versions(alone: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The restored folder; versions of packages are those that scored, and may be changed."""
    shutil.rmtree(PLACE, ignore_errors=True)
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(PLACE, filter="data")
    monkeypatch.chdir(PLACE)
    found: dict[str, str] = dict(published("fitted")["packages"])
    for module in ("fingerprint", "legacy_facts"):
        monkeypatch.setattr(f"batchscore.plan.{module}.version", found.__getitem__)
    return found


def published(output: str) -> dict[str, Any]:
    """The manifest of what is published."""
    (marker,) = Path("out", output).glob("_batchscore/slices/*/_SUCCESS")
    run = marker.read_text().strip()
    text = Path("out", output, "_batchscore/runs", run, "manifest.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def listed(*args: str) -> list[Any]:
    """What a command prints that answers with a list."""
    found: Any = run_json(*args)
    assert isinstance(found, list)
    return found


def run(*args: str) -> dict[str, Any]:
    return run_json("run", *args)


def bring(day: int) -> None:
    os.rename(f"late/day={day}", f"input/day={day}")


def inferences(manifest: dict[str, Any]) -> int:
    return sum(m["value"] for m in manifest["beam_metrics"] if m["name"] == "num_inferences")


def held_for(manifest: dict[str, Any]) -> list[str]:
    return [check["name"] for check in manifest["checks"] if not check["passed"]]


def rows_of(output: str, columns: str = "id") -> list[tuple[Any, ...]]:
    """The rows that `files` lists, as DuckDB reads them."""
    files = listed("files", f"out/{output}")
    query = f"select {columns} from read_parquet(?, union_by_name=true) order by id"
    return duckdb.execute(query, [files]).fetchall()


def scored_ids(*days: int) -> list[tuple[int]]:
    """The ids of rows that `called` can score: their amount is neither null nor infinite."""
    query = "select id from read_parquet(?) where amount < 'inf' order by id"
    return duckdb.execute(query, [[f"input/day={day}/part-0.parquet" for day in days]]).fetchall()


def rows_for_network(day: int) -> int:
    """The rows of a shard that reach the network of `called`: their amount is not null."""
    query = f"select count(amount) from 'input/day={day}/part-0.parquet'"
    ((count,),) = duckdb.execute(query).fetchall()
    return int(count)


def settled(job: str) -> Work:
    return settle(make_plan(load_job(job)))


@pytest.mark.usefixtures("versions")
def test_an_earlier_output_is_read() -> None:
    """History, manifests, files, checks and the origin of a row come from it as they always did."""
    history = listed("runs", "out/fitted")
    assert [each["status"] for each in history] == ["held", "published", "published"]
    shown = run_json("show", "out/fitted", published("fitted")["run"])
    assert (shown["rows"]["scored"], shown["rows"]["rejected"]) == (45, 3)
    assert len(rows_of("fitted")) == 45
    for output in ("fitted", "called"):
        assert run_cli("verify", f"out/{output}").exit_code == 0
    traced = run_json("trace", "out/fitted", "id=50")
    assert (traced["exit_code"], "day=1" in json.dumps(traced)) == (0, True)


@pytest.mark.parametrize(
    ("job", "others"),
    [
        ("fitted", ("pandas", "pyarrow", "safetensors", "apache-beam", "batchscore")),
        ("called", ("safetensors", "apache-beam", "batchscore")),
    ],
)
def test_an_unchanged_job_is_unchanged(versions: dict[str, str], job: str, others: Any) -> None:
    """So it is under other versions of packages that its scores do not depend on."""
    if job == "fitted":
        bring(2)
    for other in ("", *others):
        versions |= {other: "99"}
        assert run(f"{job}.yaml")["status"] == "unchanged", other


@pytest.mark.parametrize(
    ("job", "needed"), [("fitted", "torch numpy"), ("called", "torch numpy pandas pyarrow")]
)
def test_what_changes_scores_is_named_alone(
    versions: dict[str, str], job: str, needed: str
) -> None:
    """Another version of a package that scores depend on scores every row again, and says why."""
    for name in needed.split():
        before, versions[name] = versions[name], "99"
        work = settled(f"{job}.yaml")
        assert (work.changes.score, work.kept) == ((f"version of {name}",), {})
        versions[name] = before


@pytest.mark.usefixtures("versions")
def test_an_earlier_output_grows_shard_by_shard() -> None:
    """Each run scores the new shard alone and keeps the rest; the last one can be taken back."""
    before = rows_of("called", "id, score, percent")
    for day in (2, 3):
        bring(day)
        found = run("called.yaml")
        assert (found["status"], inferences(found)) == ("published", rows_for_network(day))
        assert found["rows"]["reused"] == 40 * (day - 1)
        assert found["changed"] == []
        assert run("called.yaml")["status"] == "unchanged"
    assert rows_of("called") == scored_ids(1, 2, 3)
    assert rows_of("called", "id, score, percent")[: len(before)] == before
    for id_, score, percent in rows_of("called", "id, score, percent"):
        amount = id_ % 17
        logit = 0.75 * amount / 10 - 0.5 * (id_ % 7) + 0.125
        assert (score, percent / 100) == pytest.approx([1 / (1 + np.exp(-logit))] * 2, rel=1e-5)
    undone = run_json("rollback", "out/called", "--undo", found["run"])
    assert (undone["status"], rows_of("called")) == ("rolled_back", scored_ids(1, 2))
    assert run_cli("verify", "out/called").exit_code == 0
    assert held_for(run("called.yaml")) == ["revoked"]


@pytest.mark.usefixtures("versions")
def test_what_an_earlier_held_run_scored_is_not_scored_again() -> None:
    """A run over the same shards judges its units again, and publishes them."""
    bring(2)
    bring(3)
    found = run("fitted.yaml")
    assert (found["status"], inferences(found), len(rows_of("fitted"))) == ("published", 0, 68)
    assert run_cli("verify", "out/fitted").exit_code == 0


@pytest.mark.usefixtures("versions")
def test_an_earlier_held_run_is_released() -> None:
    """It is published as it was scored, and the job is unchanged then."""
    bring(2)
    bring(3)
    (held,) = (r for r in listed("runs", "out/fitted") if r["status"] == "held")
    done = run_json("release", "out/fitted", held["run"], "--reason", "looked at")
    assert (done["status"], len(rows_of("fitted"))) == ("published", 68)
    assert run("fitted.yaml")["status"] == "unchanged"


@pytest.mark.usefixtures("versions")
def test_a_killed_earlier_run_resumes_though_it_published_nothing() -> None:
    """What it had scored is published by the next run, which scores nothing."""
    bring(2)
    found = run(*KILLED)
    assert (found["status"], inferences(found), found["rows"]["input"]) == ("published", 0, 80)
    assert rows_of("killed") == scored_ids(1, 2)


@pytest.mark.usefixtures("versions")
def test_an_earlier_run_is_taken_back_and_stays_so() -> None:
    """What it added goes, and no run publishes it again by itself."""
    bring(2)
    undone = run_json("rollback", "out/fitted", "--undo", published("fitted")["run"])
    assert (undone["rows"]["input"], undone["score_facts"].get("facts")) == (40, None)
    assert held_for(run("fitted.yaml")) == ["revoked"]
    assert run_cli("verify", "out/fitted").exit_code == 0
