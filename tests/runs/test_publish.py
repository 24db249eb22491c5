"""Test that a publication is whole, or not there, wherever it is interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import RecordError, RetryError
from batchscore.runs import layout
from batchscore.runs.manifest_units import final_path
from batchscore.runs.publication import Publication, is_pending
from batchscore.runs.publish import publish, roll_forward
from batchscore.runs.snapshot import published_run, snapshot
from batchscore.storage.store import Store
from batchscore.units.record import StagedFile
from tests.factory import FaultyStore, Killed, read_tree
from tests.manifests import make_manifest

SLICE = "job,date=2013-09-20"
OLD = {"data/day=1/r1-u-0.parquet": b"old one", "data/day=2/r1-u-0.parquet": b"old two"}
NEW = {"data/day=1/r2-u-0.parquet": b"new one", "data/day=3/r2-u-0.parquet": b"new three"}
OTHER = "data/day=1/other-slice.parquet"


def stage(store: Store, run: str, files: dict[str, bytes]) -> Publication:
    """Stages files and returns how they are to be published onto what is published."""
    moves = []
    for number, (final, data) in enumerate(files.items()):
        staged = f"{layout.staging(SLICE)}/{run}/{number}.parquet"
        store.write(staged, data)
        moves.append((staged, final))
    before = snapshot(store, SLICE)
    return Publication(
        run=run,
        base=published_run(store, SLICE),
        before=tuple(before),
        files=tuple(sorted(files)),
        moves=tuple(moves),
        retire=tuple(sorted(set(before) - set(files))),
        documents=((layout.run_file(run, "manifest.json"), manifest(run)),),
    )


def manifest(run: str) -> dict[str, Any]:
    """The manifest of a run, as JSON."""
    return make_manifest(run=run).document


def begin(folder: Path) -> Publication:
    """An output with a published run and another slice's file; returns the next publication."""
    store = Store(str(folder))
    store.write(OTHER, b"another slice")
    publish(store, SLICE, stage(store, "r1", OLD))
    return stage(store, "r2", NEW)


def visible(folder: Path) -> dict[str, bytes]:
    """The files below data/, with their bytes."""
    return {f"data/{path}": data for path, data in read_tree(folder / "data").items()}


def changes_of_a_publication(folder: Path) -> int:
    """How many changes an undisturbed publication makes."""
    store = FaultyStore(str(folder))
    publish(store, SLICE, begin(folder))
    return int(store.__dict__["changes"])


def test_a_run_replaces_the_one_before(tmp_path: Path) -> None:
    """New files are there, old ones are retired, and list, marker and manifest name the new run."""
    store = Store(str(tmp_path))
    publish(store, SLICE, begin(tmp_path))
    assert visible(tmp_path) == {**NEW, OTHER: b"another slice"}
    assert snapshot(store, SLICE) == sorted(NEW)
    assert published_run(store, SLICE) == "r2"
    assert store.read_json(layout.run_file("r2", "manifest.json")) == manifest("r2")
    assert {path: store.read(layout.retired("r2", path)) for path in OLD} == OLD
    assert not is_pending(store, SLICE)
    assert not (tmp_path / "data/day=2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_publication_killed_anywhere_is_finished_by_the_next_run(
    tmp_path: Path, done: bool
) -> None:
    """Killed before or after any change, it is rolled forward to the same bytes, or not started."""
    whole = tmp_path / "whole"
    count = changes_of_a_publication(whole)
    assert count > 10
    for at in range(count):
        folder = tmp_path / f"killed-{at}"
        planned = begin(folder)
        before = read_tree(folder)
        with pytest.raises(Killed):
            publish(FaultyStore(str(folder), at, done), SLICE, planned)
        store = Store(str(folder))
        if not is_pending(store, SLICE) and published_run(store, SLICE) == "r1":
            assert read_tree(folder) == before
            publish(store, SLICE, planned)
        roll_forward(store, SLICE)
        assert read_tree(folder) == read_tree(whole), f"killed at change {at}"


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_publication_can_be_asked_for_again(tmp_path: Path, done: bool) -> None:
    """Killed before or after any change and published again, it ends in the same bytes."""
    whole = tmp_path / "whole"
    for at in range(changes_of_a_publication(whole)):
        folder = tmp_path / f"killed-{at}"
        planned = begin(folder)
        with pytest.raises(Killed):
            publish(FaultyStore(str(folder), at, done), SLICE, planned)
        for _ in range(2):
            publish(Store(str(folder)), SLICE, planned)
        assert read_tree(folder) == read_tree(whole), f"killed at change {at}"


@pytest.mark.parametrize("at", range(0, 12, 3))
def test_a_publication_killed_twice_is_finished(tmp_path: Path, at: int) -> None:
    """A roll-forward that is killed itself is rolled forward, too."""
    changes_of_a_publication(tmp_path / "whole")
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        publish(FaultyStore(str(folder), 4), SLICE, begin(folder))
    try:
        roll_forward(FaultyStore(str(folder), at), SLICE)
    except Killed:
        roll_forward(Store(str(folder)), SLICE)
    assert read_tree(folder) == read_tree(tmp_path / "whole")


def test_readers_of_the_snapshot_see_one_run(tmp_path: Path) -> None:
    """Before each change current.txt names the old files or the new ones, and each is there."""
    seen: list[list[str]] = []

    def look() -> None:
        names = snapshot(Store(str(tmp_path)), SLICE)
        seen.append(names)
        if published_run(Store(str(tmp_path)), SLICE) is not None:
            assert all((tmp_path / name).exists() for name in names)

    planned = begin(tmp_path)
    publish(FaultyStore(str(tmp_path), look=look), SLICE, planned)
    assert {tuple(names) for names in seen} == {tuple(sorted(OLD)), tuple(sorted(NEW))}


def test_what_was_made_for_another_snapshot_is_not_published(tmp_path: Path) -> None:
    """Where another run published meanwhile, a publication changes nothing and says so."""
    store = Store(str(tmp_path))
    late = begin(tmp_path)
    publish(store, SLICE, stage(store, "r3", {"data/r3-u-0.parquet": b"third"}))
    before = visible(tmp_path)
    with pytest.raises(RetryError, match="by another"):
        publish(store, SLICE, late)
    assert (visible(tmp_path), published_run(store, SLICE)) == (before, "r3")
    assert not is_pending(store, SLICE)


def test_a_journal_that_was_overtaken_is_dropped(tmp_path: Path) -> None:
    """A journal written late, onto a snapshot that gave way, publishes nothing."""
    store = Store(str(tmp_path))
    late = begin(tmp_path)
    publish(store, SLICE, stage(store, "r3", {"data/r3-u-0.parquet": b"third"}))
    store.write_json(layout.slice_file(SLICE, "journal.json"), late.to_json())
    before = visible(tmp_path)
    assert roll_forward(store, SLICE) is None
    assert (visible(tmp_path), published_run(store, SLICE)) == (before, "r3")
    assert not is_pending(store, SLICE)


def test_nothing_to_roll_forward(tmp_path: Path) -> None:
    """Without a journal nothing is done, and nothing is written."""
    assert roll_forward(Store(str(tmp_path)), SLICE) is None
    assert read_tree(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "r"}', "null", "\xff"])
def test_a_damaged_journal_is_named(tmp_path: Path, text: str) -> None:
    """What is no journal ends in an error that names the file, and changes nothing."""
    store = Store(str(tmp_path))
    store.write(layout.slice_file(SLICE, "journal.json"), text.encode("latin-1"))
    before = read_tree(tmp_path)
    with pytest.raises(RecordError, match="journal"):
        roll_forward(store, SLICE)
    assert read_tree(tmp_path) == before


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "data/../../outside"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("moves", lambda path: (("staged", path),)),
        ("moves", lambda path: ((path, "data/x"),)),
        ("files", lambda path: (path,)),
        ("retire", lambda path: (path,)),
        ("documents", lambda path: ((path, {}),)),
    ],
)
def test_a_journal_cannot_leave_the_output(
    tmp_path: Path, path: str, field: str, value: Any
) -> None:
    """A journal whose moves lead out of the output moves nothing."""
    store = Store(str(tmp_path / "out"))
    store.write("staged", b"x")
    good = Publication("r", None, (), (), (("staged", "data/x"),), (), ())
    bad = replace(good, **{field: value(path)})
    store.write_json(layout.slice_file(SLICE, "journal.json"), bad.to_json())
    with pytest.raises(RecordError, match="leaves the folder"):
        roll_forward(store, SLICE)
    assert json.loads(store.read(layout.slice_file(SLICE, "journal.json")))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@given(st.lists(st.tuples(st.text("ab", max_size=2), st.integers(0, 3)), unique=True))
def test_final_names_differ_where_staged_ones_do(staged: list[tuple[str, int]]) -> None:
    """Files of one unit never get the same final name, whatever their partitions."""
    files = [StagedFile(f"s/{n:04d}.parquet", f"k={part}", 1, 1, "") for part, n in staged]
    assert len({final_path(file, "r", "u") for file in files}) == len(files)
