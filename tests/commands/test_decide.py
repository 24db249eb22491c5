"""Test what a person decides about runs: what is refused, in which words, and what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batchscore.commands.decide import discard, release, undo
from batchscore.errors import InvalidError, RecordError, RetryError
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.runs.lease import acquire
from batchscore.runs.snapshot import snapshot
from batchscore.storage.store import Store
from tests.factory import (
    FaultyStore,
    Killed,
    change_job,
    make_rows,
    published,
    read_tree,
    run_cli,
    run_json,
    write_shard,
)

pytestmark = pytest.mark.slow

SLICE = "small"
FAR = {"checks.score_range": [0.9, 1]}


def ids(folder: Path) -> list[int]:
    """The published ids, sorted."""
    found: list[int] = published(folder / "out").column("id").to_pylist()
    return found


def standing(folder: Path) -> dict[str, bytes]:
    """All that readers see."""
    tree = read_tree(folder / "out")
    names = ("current.txt", "_SUCCESS")
    return {k: v for k, v in tree.items() if k.startswith("data/") or Path(k).name in names}


def run(folder: Path, *args: object) -> dict[str, Any]:
    return run_json("run", folder / "job.yaml", *args)


class Output:
    """A job whose first run is published, and what its output holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "out"))
        self.first = str(run_json("show", folder / "out")["run"])

    def hold(self, number: int = 2) -> str:
        """Adds a shard of 100 rows and runs into a check; returns the held run."""
        change_job(self.folder, FAR)
        write_shard(self.folder / f"in/{number}.parquet", make_rows(100, 300 + 100 * number))
        found = run(self.folder)
        assert found["status"] == "held", found
        change_job(self.folder, {"checks.score_range": None})
        return str(found["run"])

    def add(self, number: int = 3) -> str:
        """Adds a shard of 100 rows and publishes it; returns the run."""
        write_shard(self.folder / f"in/{number}.parquet", make_rows(100, 300 + 100 * number))
        found = run(self.folder)
        assert found["status"] == "published", found
        return str(found["run"])


@pytest.fixture
def output(scored_job: Path) -> Output:
    """A published run of the small job."""
    return Output(scored_job)


@pytest.fixture
def refused(output: Output) -> Iterator[None]:
    """What readers see does not change in the test."""
    before = standing(output.folder)
    yield
    assert standing(output.folder) == before


@pytest.mark.parametrize("decide", [release, discard, undo])
@pytest.mark.usefixtures("refused")
def test_an_unknown_run_is_refused(output: Output, decide: Any) -> None:
    """The error for a run that the output does not have names the newest ones."""
    with pytest.raises(InvalidError, match=f"'nope'.*no such run.*{output.first}"):
        decide(output.store, "nope", SLICE, "why")


@pytest.mark.parametrize("decide", [release, discard, undo])
@pytest.mark.usefixtures("refused")
def test_a_run_of_another_slice_is_refused(output: Output, decide: Any) -> None:
    """A job file's slice and the run's have to be the same."""
    with pytest.raises(
        InvalidError, match=f"'{output.first}': belongs to slice 'small', not to 'big'"
    ):
        decide(output.store, output.first, "big", "why")


@pytest.mark.parametrize("decide", [release, discard])
@pytest.mark.usefixtures("refused")
def test_only_a_held_run_is_released_or_discarded(output: Output, decide: Any) -> None:
    """A published run has nothing left to decide."""
    with pytest.raises(InvalidError, match=f"'{output.first}': is published, and only a held"):
        decide(output.store, output.first, SLICE, "why")


@pytest.mark.parametrize("decide", [release, discard, undo])
@pytest.mark.usefixtures("refused")
def test_a_failed_run_is_refused(output: Output, decide: Any) -> None:
    """What never passed a check that nobody may release stays unpublished."""
    change_job(output.folder, {"preprocess": {"function": "bad.py:f"}})
    (output.folder / "bad.py").write_text("def f(batch): return 1 / 0")
    assert run(output.folder)["status"] == "failed"
    failed = run_json("show", output.folder / "out")["run"]
    with pytest.raises(InvalidError, match=f"'{failed}': is failed"):
        decide(output.store, failed, SLICE, "why")


@pytest.mark.parametrize("decide", [release, discard, undo])
@pytest.mark.usefixtures("refused")
def test_a_slice_in_use_is_to_be_tried_again(output: Output, decide: Any) -> None:
    """While another run holds the slice nothing is decided."""
    with acquire(output.store, SLICE, "run", "20991231-0000"), pytest.raises(RetryError):
        decide(output.store, output.first, SLICE, "why")


def test_a_released_run_is_published_as_it_was_scored(output: Output) -> None:
    """Its rows are published with the others, and its manifest says who decided, when and why."""
    held = output.hold()
    released = release(output.store, held, SLICE, "it is fine")
    assert (released.status, released.document["released"]["reason"]) == ("published", "it is fine")
    assert released.releaser
    assert [check.name for check in released.failed_checks] == ["score_range"]
    assert read_manifest(output.store, held) == released
    assert ids(output.folder) == list(range(600))
    assert snapshot(output.store, SLICE) == sorted(released.paths)
    assert run(output.folder)["status"] == "unchanged"


def test_a_run_is_decided_on_once(output: Output) -> None:
    """Released or discarded, a run is not held any more, whatever is asked of it then."""
    released, dropped = output.hold(2), None
    release(output.store, released, SLICE, "fine")
    dropped = output.hold(3)
    discard(output.store, dropped, SLICE, None)
    before = standing(output.folder)
    for decide in (release, discard):
        with pytest.raises(InvalidError, match=f"'{released}': is published"):
            decide(output.store, released, SLICE, "again")
        with pytest.raises(InvalidError, match=f"'{dropped}': is discarded"):
            decide(output.store, dropped, SLICE, "again")
    assert standing(output.folder) == before


@pytest.mark.usefixtures("refused")
def test_a_run_held_before_it_scored_is_not_released(output: Output) -> None:
    """There is nothing to publish of it; the checks say how to go on. It can be discarded."""
    (output.folder / "in/1.parquet").unlink()
    held = run(output.folder)
    assert held["status"] == "held"
    with pytest.raises(InvalidError, match=r"held before it scored anything.*run the job again"):
        release(output.store, held["run"], SLICE, "why")
    assert discard(output.store, held["run"], SLICE, None).status == "discarded"


def test_an_overtaken_run_is_not_released(output: Output) -> None:
    """The published rows are no longer those that the run was judged with."""
    held = output.hold()
    later = output.add()
    before = standing(output.folder)
    with pytest.raises(InvalidError, match=f"'{held}'.*published by another run since"):
        release(output.store, held, SLICE, "why")
    assert standing(output.folder) == before
    assert run_json("show", output.folder / "out", later)["status"] == "published"


@pytest.mark.usefixtures("refused")
def test_a_run_whose_files_are_gone_is_not_released(output: Output) -> None:
    """Scored files that are not there any more are counted, and one of them is named."""
    held = output.hold()
    shutil.rmtree(output.folder / "out" / layout.staging(SLICE))
    with pytest.raises(InvalidError, match=r"1 of its 1 scored file is missing \(_batchscore/stag"):
        release(output.store, held, SLICE, "why")


@pytest.mark.usefixtures("refused")
def test_a_damaged_decision_is_reported(output: Output) -> None:
    """A publication that cannot be read is named by its full address."""
    held = output.hold()
    path = layout.run_file(held, "held.json")
    facts = output.store.read_json(path)
    (name, manifest), *rest = facts["documents"]
    damaged = [{**manifest, **each} for each in ({"own": {"files": ["a"]}}, {"rows": 1})]
    documents = [*([[name, each], *rest] for each in [*damaged, {**manifest, "run": "other"}]), 1]
    for wrong in documents:
        output.store.write_json(path, {**facts, "documents": wrong})
        with pytest.raises(RecordError, match=r"held\.json: damaged.*run the job again"):
            release(output.store, held, SLICE, "why")


def test_a_discarded_run_leaves_nothing_of_what_it_scored(output: Output) -> None:
    """Record, staged files, sidecars and rejects go; what is published and its records stay."""
    before = read_tree(output.folder / "out")
    held = output.hold()
    dropped = discard(output.store, held, SLICE, "no good")
    assert dropped.document["discarded"]["reason"] == "no good"
    after = read_tree(output.folder / "out")
    mine = f"_batchscore/runs/{held}/"
    # A segment lists what was published before.
    changed = {p for p in set(after) ^ set(before) if not {"lease", "segments"} & {*p.split("/")}}
    assert changed == {
        f"{mine}manifest.json",
        f"{mine}profile.parquet",
        f"{mine}profile.extra.parquet",
        f"{mine}profile.new.parquet",
    }
    again = run(output.folder)
    assert (again["status"], again["rows"]["reused"]) == ("published", 500)


@pytest.mark.parametrize("decide", [release, discard])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_decision_that_is_killed_can_be_made_again(
    output: Output, tmp_path: Path, decide: Any, done: bool
) -> None:
    """Killed at any change, it is made by asking again, or was made, and nothing is half done."""
    held = output.hold()
    store = FaultyStore(str(shutil.copytree(output.folder / "out", tmp_path / "whole")))
    status = decide(store, held, SLICE, "why").status
    expected = files_of(tmp_path / "whole")
    for at in range(store.__dict__["changes"]):
        folder = shutil.copytree(output.folder / "out", tmp_path / f"killed-{at}")
        with pytest.raises(Killed):
            decide(FaultyStore(str(folder), at, done), held, SLICE, "why")
        shutil.rmtree(folder / "_batchscore/slices" / SLICE / "lease", ignore_errors=True)
        with suppress(InvalidError):  # that it was made already
            decide(Store(str(folder)), held, SLICE, "why")
        assert read_manifest(Store(str(folder)), held).status == status
        assert (files_of(folder), at) == (expected, at)


def files_of(output: Path) -> set[str]:
    """All files of an output but leases."""
    return {path for path in read_tree(output) if "/lease/" not in path}


def test_an_undone_run_is_marked_with_who_and_why(output: Output) -> None:
    """The run is revoked, and the published one names what it undoes and what was before it."""
    added = output.add()
    made = undo(output.store, added, SLICE, "it was bad")
    assert (made.undoes, made.base) == (added, added)
    assert made.document["rollback"]["reason"] == "it was bad"
    undone = read_manifest(output.store, added)
    assert (undone.status, undone.document["revoked"]["run"]) == ("revoked", made.run)
    assert ids(output.folder) == list(range(500))
    assert made.rows.scored == made.rows.reused == 500


def test_a_run_is_undone_once(output: Output) -> None:
    """A run that was taken back is not published any more."""
    added = output.add()
    undo(output.store, added, SLICE, None)
    with pytest.raises(InvalidError, match=f"'{added}': is revoked, and only a published run"):
        undo(output.store, added, SLICE, None)


@pytest.mark.usefixtures("refused")
def test_a_held_run_is_not_undone(output: Output) -> None:
    """What was never published cannot be taken back."""
    held = output.hold()
    with pytest.raises(InvalidError, match=f"'{held}': is held, and only a published run"):
        undo(output.store, held, SLICE, None)


def test_the_first_run_can_be_undone(output: Output) -> None:
    """Nothing was published before it, so nothing is left, and it is not published by itself."""
    made = undo(output.store, output.first, SLICE, None)
    assert (made.status, snapshot(output.store, SLICE)) == ("empty", [])
    assert not (output.folder / "out/data").exists()
    assert run(output.folder)["exit_code"] == 3


def test_a_run_that_a_later_one_replaced_is_not_undone(output: Output) -> None:
    """The later run is named: it has to be taken back first."""
    later = run(output.folder, "--rescore")["run"]
    before = standing(output.folder)
    with pytest.raises(InvalidError, match=f"'{output.first}'.*take back run '{later}' first"):
        undo(output.store, output.first, SLICE, None)
    assert standing(output.folder) == before


def test_files_past_retention_do_not_come_back(output: Output) -> None:
    """A run whose replaced files are gone is not undone; the key that keeps them is named."""
    later = run(output.folder, "--rescore")["run"]
    shutil.rmtree(output.folder / "out/_batchscore/retired" / later)
    before = standing(output.folder)
    with pytest.raises(InvalidError, match=r"1 of the files that it replaced.*retention_days"):
        undo(output.store, later, SLICE, None)
    assert standing(output.folder) == before


def test_decisions_are_commands(output: Output) -> None:
    """Each command ends with 0 and lines that tell it, or with 2 and one message."""
    job, where = output.folder / "job.yaml", output.folder / "out"
    held = output.hold()
    done = run_cli("release", job, held, "--reason", "a quiet night")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"PUBLISHED run {held} ")
    assert ": a quiet night" in done.stdout
    undone = run_cli("rollback", where, "--undo", held, "--reason", "it was bad")
    assert undone.exit_code == 0
    assert "rollback by " in undone.stdout
    again = run_cli("discard", where, held)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr.startswith(f"INVALID  run '{held}': is revoked")


def test_a_release_wants_a_reason(output: Output) -> None:
    """Nobody publishes what a check held back without saying why."""
    held = output.hold()
    done = run_cli("release", output.folder / "out", held)
    assert done.exit_code == 2
    assert "--reason" in done.stderr
