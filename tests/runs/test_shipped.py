"""Test that code and models in an output are kept for those who need them, and no longer."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batchscore.errors import RecordError
from batchscore.runs import layout, shipped
from batchscore.runs.history import Unreadable, read_history
from batchscore.runs.lease import acquire
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.publication import Publication, journal_path
from batchscore.runs.run_plan import RunPlan, encode_plan
from batchscore.runs.shipped import sweep_shipped
from batchscore.storage.store import Store
from tests.manifests import make_manifest

SLICE = "job"
AFTER, BEFORE = 4e9, 1e9
"""Instants that all objects are older, and newer, than."""
LISTS: dict[str, Any] = {"files": [], "units": [], "shards": [], "columns": [], "inputs": []}
HEAD = {
    "slice": SLICE,
    "score": "s",
    "fingerprint": "",
    "seconds": 1.0,
    "finished": "2026-11-20T02:00:00+00:00",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with two parts of a model, a file of code, and a file of somebody else's."""
    store = Store(str(tmp_path))
    store.write(f"{layout.MODELS}/{sha256('model')}", b"first part")
    store.write(f"{layout.MODELS}/{sha256('model')}.1", b"second part")
    store.write(f"{layout.CODE}/{sha256('code')}", b"code")
    store.write(f"{layout.CODE}/notes.txt", b"a person's own")
    return store


def sha256(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def left(store: Store) -> set[str]:
    """What is left: the texts whose objects are all there."""
    names = [*store.names(layout.MODELS), *store.names(layout.CODE)]
    texts = {"model": [sha256("model"), f"{sha256('model')}.1"], "code": [sha256("code")]}
    return {text for text, objects in texts.items() if {*objects} <= {*names}}


def manifest(**facts: Any) -> dict[str, Any]:
    """The manifest of a run that was scored with this model and code."""
    model = {"name": "m", "version": "1", "identity": "", "sha256": {"w.pt": sha256("model")}}
    scored = {"score_facts": {"code steps.py": sha256("code")}, "model": model}
    return make_manifest(**{**HEAD, **scored, **LISTS, **facts}).document


def test_what_nothing_names_is_removed(store: Store) -> None:
    """All parts of it go; what is no object stays, and so does what is newer than the instant."""
    sweep_shipped(store, SLICE, BEFORE)
    assert left(store) == {"model", "code"}
    sweep_shipped(store, SLICE, AFTER)
    assert store.names(layout.MODELS) == []
    assert store.names(layout.CODE) == ["notes.txt"]


def test_an_open_run_keeps_what_it_names(store: Store) -> None:
    """Of another slice, too, whether it is under way or was killed."""
    facts = {"slice": "other", "score": "s", "started": "2026-11-20T01:00:00+00:00"}
    plan = RunPlan(facts, 0, [], [], [], [], {}, [], [], None, [], shipped=[sha256("model")])
    store.write(layout.plan_file("r1"), encode_plan(plan))
    sweep_shipped(store, SLICE, AFTER)
    assert left(store) == {"model"}


def test_a_held_run_keeps_what_it_was_scored_with(store: Store) -> None:
    """A run that was published needs neither model nor code any more."""
    path = layout.run_file("r", "manifest.json")
    store.write_json(path, manifest(status="held"))
    sweep_shipped(store, SLICE, AFTER)
    assert left(store) == {"model", "code"}
    store.write_json(path, manifest(status="published"))
    sweep_shipped(store, SLICE, AFTER)
    assert left(store) == set()


def test_a_journal_keeps_what_its_run_was_scored_with(store: Store) -> None:
    """A publication that was interrupted names its run."""
    document = (layout.run_file("r", "manifest.json"), manifest())
    publication = Publication("r", None, (), (), (), (), (document,))
    store.write_json(journal_path(SLICE, "r"), publication.to_json())
    sweep_shipped(store, SLICE, AFTER)
    assert left(store) == {"model", "code"}


def test_nothing_is_removed_while_another_slice_is_held(store: Store) -> None:
    """Its run may be about to name an object that it found."""
    with acquire(store, "other", "run", "r2"):
        sweep_shipped(store, SLICE, AFTER)
        assert left(store) == {"model", "code"}
    with acquire(store, SLICE, "run", "r3"):
        sweep_shipped(store, SLICE, AFTER)
    assert left(store) == set()


def test_nothing_is_removed_that_a_new_run_may_have_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of another slice takes its lease, and names its files, while the history is read."""
    with ExitStack() as leases:

        def read_slowly(output: Store) -> list[Manifest | Unreadable]:
            found = read_history(output)
            leases.enter_context(acquire(store, "other", "run", "r2"))
            return found

        monkeypatch.setattr(shipped, "read_history", read_slowly)
        sweep_shipped(store, SLICE, AFTER)
    assert left(store) == {"model", "code"}


@pytest.mark.parametrize("path", [layout.plan_file("r1"), layout.run_file("r1", "manifest.json")])
def test_nothing_is_removed_where_a_name_may_be_lost(path: str, store: Store) -> None:
    """A plan or a manifest that cannot be read may be of a run that needs the objects."""
    store.write(path, b"{torn")
    with pytest.raises(RecordError):
        sweep_shipped(store, SLICE, AFTER)
    assert left(store) == {"model", "code"}
