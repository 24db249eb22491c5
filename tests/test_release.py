"""Test what a released run and a rollback report, and that a killed decision leaves nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.decide import discard, release, undo
from batchscore.errors import InvalidError
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.runs.publication import is_pending
from batchscore.runs.snapshot import snapshot
from batchscore.storage.store import Store
from tests.factory import (
    FaultyStore,
    Killed,
    change_job,
    make_rows,
    read_tree,
    run_cli,
    run_json,
    write_shard,
)

pytestmark = pytest.mark.slow

SLICE = "small"
LEASE = f"_batchscore/slices/{SLICE}/lease/"


def run(folder: Path, *args: object) -> dict[str, Any]:
    return run_json("run", folder / "job.yaml", *args)


def store_of(folder: Path) -> Store:
    return Store(str(folder / "out"))


def hold(folder: Path, number: int = 2) -> str:
    """Adds a shard of 100 rows that a check holds back; returns the held run."""
    change_job(folder, {"checks.score_range": [0.9, 1]})
    write_shard(folder / f"in/{number}.parquet", make_rows(100, 300 + 100 * number))
    found = run(folder)
    change_job(folder, {"checks.score_range": None})
    assert found["status"] == "held", found
    return str(found["run"])


@pytest.fixture
def released(scored_job: Path) -> dict[str, Any]:
    """The manifest of a run that was held a night before somebody released it, as JSON."""
    held, store = hold(scored_job), store_of(scored_job)
    for name in ("manifest.json", "held.json"):
        path = layout.run_file(held, name)
        text = store.read(path).decode()
        finished = str(read_manifest(store, held).finished) if name == "held.json" else None
        store.write(path, text.replace(finished or "\0", "2026-11-20T01:00:00.000+00:00").encode())
    return release(store, held, SLICE, "fine").document


def test_a_released_run_is_dated_by_its_release(scored_job: Path, released: dict[str, Any]) -> None:
    """`verify` and `trace` report the time and the person of the release."""
    decision = released["released"]
    assert released["finished"] < decision["at"]
    (slice_,) = run_json("verify", scored_job / "out")["slices"]
    assert (slice_["published_at"], slice_["released_by"]) == (decision["at"], decision["by"])
    assert slice_["finished"] == released["finished"]
    (row,) = run_json("trace", scored_job / "out", "id=550")["matches"]
    assert (row["published_by"], row["published_at"]) == (released["run"], decision["at"])
    assert row["released_by"] == decision["by"]


def test_a_release_is_in_what_people_read(scored_job: Path, released: dict[str, Any]) -> None:
    """Every command that names the run names the time and the person of the release."""
    decision, out = released["released"], scored_job / "out"
    for command in (("verify", out), ("trace", out, "id=550"), ("runs", out), ("show", out)):
        said = run_cli(*command).stdout
        assert f"{decision['at'][:19]}" in said, said
        assert f"released by {decision['by']}" in said or f"by {decision['by']}" in said, said
    same = run_cli("run", scored_job / "job.yaml").stdout
    assert f"published these rows at {decision['at']}" in same


def test_a_run_that_was_not_held_is_dated_by_its_end(scored_job: Path) -> None:
    """Nobody released it, and it was published when it ended."""
    (slice_,) = run_json("verify", scored_job / "out")["slices"]
    assert (slice_["published_at"], slice_["released_by"]) == (slice_["finished"], None)
    (row,) = run_json("trace", scored_job / "out", "id=7")["matches"]
    assert (row["published_at"], row["released_by"]) == (slice_["finished"], None)


def test_a_rollback_reports_that_it_rolled_back(scored_job: Path) -> None:
    """Text and JSON name the run taken back; the manifest of what remains is a published one."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    added = run(scored_job)["run"]
    done = run_cli("rollback", scored_job / "out", "--undo", added)
    made = snapshot_run(scored_job)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"ROLLED BACK run {added} by run {made} ")
    assert "files: 0 added, 1 kept, 1 replaced" in done.stdout
    redone = run_json("rollback", scored_job / "out", "--undo", made)
    assert (redone["status"], redone["exit_code"]) == ("rolled_back", 0)
    assert (redone["undoes"], redone["rows"]["scored"]) == (made, 600)
    assert read_manifest(store_of(scored_job), redone["run"]).status == "published"
    assert f"rollback of {made}" in run_cli("runs", scored_job / "out").stdout


def snapshot_run(folder: Path) -> str:
    """The published run's name, as the marker has it."""
    marker = folder / f"out/_batchscore/slices/{SLICE}/_SUCCESS"
    return marker.read_text().strip()


def test_a_run_is_released_onto_what_a_rollback_restored(scored_job: Path) -> None:
    """Its base is the rollback, so that the chain of publications has no gap."""
    first, store = snapshot_run(scored_job), store_of(scored_job)
    held = hold(scored_job)
    made = undo(store, undo(store, first, SLICE, None).run, SLICE, None).run
    assert release(store, held, SLICE, "fine").base == made
    assert read_manifest(store, held).base == made
    undo(store, held, SLICE, "bad, too")
    assert run_json("verify", scored_job / "out")["exit_code"] == 0


def held_run(folder: Path) -> str:
    return hold(folder)


def added_run(folder: Path) -> str:
    write_shard(folder / "in/2.parquet", make_rows(100, 500))
    return str(run(folder)["run"])


def killed(folder: Path, decide: Any, name: str, at: int, done: bool) -> None:
    """Makes a decision whose process dies at a change; its lease is that of a dead process."""
    with pytest.raises(Killed):
        decide(FaultyStore(str(folder), at, done), name, SLICE, "why")
    for path in (folder / LEASE).glob("*.json"):
        text = path.read_text().replace('"released": true', '"released": false')
        path.write_text(text.replace('"started": "', '"started": "1'))


def files_of(output: Path) -> set[str]:
    """All files of an output, leases by their number of files."""
    found = read_tree(output)
    leases = {path for path in found if path.startswith(LEASE)}
    return {*(set(found) - leases), f"{len(leases)} leases"}


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("decide", "prepare"), [(release, held_run), (discard, held_run)])
def test_a_killed_decision_leaves_nothing_behind(
    scored_job: Path, tmp_path: Path, decide: Any, prepare: Any, done: bool
) -> None:
    """Killed at any change and asked for again, it leaves the files of an undisturbed one."""
    name = prepare(scored_job)
    store = FaultyStore(str(shutil.copytree(scored_job / "out", tmp_path / "whole")))
    status = decide(store, name, SLICE, "why").status
    expected = files_of(tmp_path / "whole")
    for at in range(store.__dict__["changes"]):
        folder = shutil.copytree(scored_job / "out", tmp_path / f"killed-{at}")
        killed(folder, decide, name, at, done)
        with suppress(InvalidError):  # that it was made already
            decide(Store(str(folder)), name, SLICE, "why")
        assert read_manifest(Store(str(folder)), name).status == status
        assert (files_of(folder), at) == (expected, at)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_killed_rollback_leaves_nothing_behind(
    scored_job: Path, tmp_path: Path, done: bool
) -> None:
    """Killed once it took effect it is finished, and before that it is made when asked again."""
    name = added_run(scored_job)
    store = FaultyStore(str(shutil.copytree(scored_job / "out", tmp_path / "whole")))
    made = undo(store, name, SLICE, "why").run
    expected = {path.replace(made, "MADE") for path in files_of(tmp_path / "whole")}
    for at in range(store.__dict__["changes"]):
        folder = shutil.copytree(scored_job / "out", tmp_path / f"killed-{at}")
        killed(folder, undo, name, at, done)
        marker = folder / f"_batchscore/slices/{SLICE}/_SUCCESS"
        taken_effect = is_pending(Store(str(folder)), SLICE) or marker.read_text().strip() != name
        with suppress(InvalidError):  # that it was made already
            undo(Store(str(folder)), name, SLICE, "why")
        if not taken_effect:
            continue
        found = {path.replace(marker.read_text().strip(), "MADE") for path in files_of(folder)}
        assert (found, at) == (expected, at)


def test_a_release_that_is_killed_late_was_made(scored_job: Path) -> None:
    """The same release again reports PUBLISHED with the first reason; a run has nothing to do."""
    held, store = hold(scored_job), FaultyStore(str(scored_job / "out"))
    shutil.copytree(scored_job / "out", scored_job / "copy")
    release(store, held, SLICE, "fine")
    changes = store.__dict__["changes"]
    whole = files_of(scored_job / "out")
    for command in ("release", "run"):
        for at in range(changes - 6, changes):
            shutil.rmtree(scored_job / "out")
            shutil.copytree(scored_job / "copy", scored_job / "out")
            killed(scored_job / "out", release, held, at, True)
            if command == "release":
                with suppress(InvalidError):
                    found = release(store_of(scored_job), held, SLICE, "again")
                    assert found.document["released"]["reason"] == "why"
            else:
                assert run(scored_job)["status"] == "unchanged"
            assert (files_of(scored_job / "out"), at) == (whole, at)
            assert len(snapshot(store_of(scored_job), SLICE)) == 2
