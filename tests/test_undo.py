"""Test what decisions, damage and late wakers do to a slice, in combinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from batchscore.runs import layout
from batchscore.runs.lease import acquire
from batchscore.runs.publication import pending
from batchscore.storage.store import Store
from tests.factory import (
    change_job,
    make_rows,
    published,
    run_cli,
    run_json,
    write_model,
    write_shard,
)
from tests.spoils import published_bytes

pytestmark = pytest.mark.slow


def run(folder: Path, *args: object) -> dict[str, Any]:
    return run_json("run", folder / "job.yaml", *args)


def undo(folder: Path, name: str) -> dict[str, Any]:
    return run_json("rollback", folder / "out", "--undo", name)


def new_model(folder: Path, weight: float) -> None:
    state = {
        "linear.weight": torch.tensor([[weight, -0.25]]),
        "linear.bias": torch.tensor([0.125]),
    }
    write_model(folder / "model", state=state)


def is_sound(folder: Path) -> bool:
    return bool(run_json("verify", folder / "out")["exit_code"] == 0)


def test_an_old_run_is_not_undone_through_a_name_that_came_again(scored_job: Path) -> None:
    """Units that are scored again keep their names; only their attempts tell them apart."""
    first = run_json("show", scored_job / "out")
    for weight in (0.6, 0.7):
        new_model(scored_job, weight)
        last = run(scored_job)
    before = published_bytes(scored_job)
    found = undo(scored_job, first["run"])
    assert (found["exit_code"], last["run"] in found["error"]) == (2, True)
    assert published_bytes(scored_job) == before


def test_what_was_taken_back_does_not_come_back_with_the_next_shard(scored_job: Path) -> None:
    """A bad model stays away though the input grew; with the former one the slice goes on."""
    new_model(scored_job, 0.9)
    undo(scored_job, run(scored_job)["run"])
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    held = run(scored_job)
    assert (held["exit_code"], "revoked" in held["error"]) == (3, True)
    write_model(scored_job / "model")
    assert run(scored_job)["status"] == "published"
    assert len(published(scored_job / "out")) == 600


def test_a_late_shard_that_was_undone_stays_out(scored_job: Path) -> None:
    """Another late shard does not bring it back; --rescore publishes both, once and for all."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    undo(scored_job, run(scored_job)["run"])
    write_shard(scored_job / "in/3.parquet", make_rows(100, 600))
    assert run(scored_job)["exit_code"] == 3
    assert run(scored_job, "--rescore")["status"] == "published"
    assert run(scored_job)["status"] == "unchanged"
    assert is_sound(scored_job)


def test_undo_redo_and_undo_again(scored_job: Path) -> None:
    """However often, the run is there or not, revoked or not, and its files are found."""
    new_model(scored_job, 0.9)
    bad = run(scored_job)["run"]
    first = undo(scored_job, bad)["run"]
    second = undo(scored_job, first)["run"]
    assert run(scored_job)["status"] == "unchanged"
    assert undo(scored_job, second)["status"] == "rolled_back"
    assert run_json("show", scored_job / "out", bad)["status"] == "revoked"
    shown = run_cli("show", scored_job / "out", bad).stdout
    assert "the run was undone: what was published before it is published again" in shown
    assert "nothing was published" not in shown
    assert run(scored_job)["exit_code"] == 3
    assert is_sound(scored_job)


def test_a_run_that_was_undone_and_redone_is_undone_by_its_name(scored_job: Path) -> None:
    """What it replaced lies where the redo put it."""
    before = {k: v for k, v in published_bytes(scored_job).items() if k.startswith("data/")}
    new_model(scored_job, 0.9)
    bad = run(scored_job)["run"]
    undo(scored_job, undo(scored_job, bad)["run"])
    assert undo(scored_job, bad)["status"] == "rolled_back"
    after = {k: v for k, v in published_bytes(scored_job).items() if k.startswith("data/")}
    assert after == before
    assert run(scored_job)["exit_code"] == 3


def test_what_was_undone_is_not_called_damaged(scored_job: Path) -> None:
    """Its files were moved by the rollback: neither check nor the next run says they are lost."""
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    undo(scored_job, run(scored_job)["run"])
    found, held = run_json("check", scored_job / "job.yaml"), run(scored_job)
    for checks in (found["checks"], held["checks"]):
        names = [check["name"] for check in checks]
        assert ("revoked" in names, "damaged_files" in names) == (True, False)
    assert held["rescored"] == []


def test_discarding_spares_what_is_retired(scored_job: Path) -> None:
    """A held run's kept units are another run's; undoing what replaced them still works."""
    change_job(scored_job, {"checks.score_range": [0.9, 1]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    held = run(scored_job)
    change_job(scored_job, {"checks.score_range": [0, 1]})
    new_model(scored_job, 0.9)
    replacing = run(scored_job)
    assert run_json("discard", scored_job / "out", held["run"])["status"] == "discarded"
    assert undo(scored_job, replacing["run"])["status"] == "rolled_back"
    assert len(published(scored_job / "out")) == 500
    assert is_sound(scored_job)


def test_a_journal_whose_files_are_gone_is_rolled_back(scored_job: Path) -> None:
    """The slice is as it was before, and the next run scores what is gone again."""
    before = published_bytes(scored_job)
    change_job(scored_job, {"checks.score_range": [0.9, 1]})
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    held = run(scored_job)
    store = Store(str(scored_job / "out"))
    journal = store.read(layout.run_file(held["run"], "held.json"))
    store.write(layout.slice_file("small", "journal.json"), journal)
    store.remove(layout.slice_file("small", "_SUCCESS"))
    store.remove(layout.staging("small"))
    assert run(scored_job)["exit_code"] == 3
    assert pending(store, "small") is None
    assert published_bytes(scored_job) == before
    change_job(scored_job, {"checks.score_range": [0, 1]})
    assert run(scored_job)["status"] == "published"
    assert len(published(scored_job / "out")) == 600


def test_a_record_that_is_gone_is_made_again(scored_job: Path) -> None:
    """A unit without its ledger entry is scored again, once, and all is sound."""
    (record,) = [
        path
        for path in (scored_job / "out/_batchscore/ledger").rglob("*.parquet")
        if ".rows." not in path.name
    ]
    record.unlink()
    assert not is_sound(scored_job)
    assert run(scored_job)["status"] == "published"
    assert run(scored_job)["status"] == "unchanged"
    assert is_sound(scored_job)


def test_a_marker_of_another_slice_is_damage(scored_job: Path) -> None:
    """A run puts a marker right that names another slice's run, and touches no file of either."""
    other = run(scored_job, "--set", "name=other")
    before = published_bytes(scored_job)
    marker = scored_job / "out/_batchscore/slices/small/_SUCCESS"
    marker.write_text(f"{other['run']}\n")
    assert run(scored_job)["status"] == "unchanged"
    assert published_bytes(scored_job) == before
    assert run(scored_job, "--rescore")["status"] == "published"
    theirs = {k: v for k, v in before.items() if f"/{other['run']}-" in k}
    assert theirs.items() <= published_bytes(scored_job).items()


@pytest.mark.parametrize("key", ["units", "model", "seconds", "rows"])
def test_a_damaged_manifest_is_replaced_by_a_rescore(scored_job: Path, key: str) -> None:
    """The error says so, and so it is."""
    store = Store(str(scored_job / "out"))
    path = layout.run_file(run_json("show", scored_job / "out")["run"], "manifest.json")
    store.write_json(path, {**store.read_json(path), key: "damaged"})
    found = run(scored_job)
    assert (found["exit_code"], "--rescore" in found["error"]) == (1, True)
    assert run(scored_job, "--rescore")["status"] == "published"
    assert len(published(scored_job / "out")) == 500


def test_shards_next_to_the_code_are_no_code(scored_job: Path) -> None:
    """A late shard in the folder of a function does not change the function."""
    (scored_job / "in/f.py").write_text("def f(batch):\n    return batch\n")
    change_job(scored_job, {"postprocess": {"function": "in/f.py:f"}, "input.path": "in/*.parquet"})
    assert run(scored_job)["exit_code"] == 3
    change_job(scored_job, {"name": "again"})
    assert run(scored_job)["status"] == "published"
    write_shard(scored_job / "in/2.parquet", make_rows(100, 500))
    assert run(scored_job)["rows"]["reused"] == 500


def test_a_run_that_lost_its_slice_tidies_nothing_up(scored_job: Path) -> None:
    """One that wakes up late leaves the attempts of who took the slice over where they are."""
    from batchscore.commands.run import begin, put_away
    from batchscore.job import load_job
    from batchscore.plan import make_plan, settle

    plan = make_plan(load_job(str(scored_job / "job.yaml")))
    store = plan.spec.output
    with acquire(store, "small", "run"):
        # The number of a lease that is long over.
        spec = begin(plan, settle(plan), "20260101-0000", 0).spec
        attempt = f"{layout.staging('small')}/0123456789abcdef-00000000/0000.parquet"
        store.write(attempt, b"under way")
        put_away(spec)
        assert store.exists(attempt)
