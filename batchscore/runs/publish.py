"""Staged files to a published snapshot of one slice, by a journal whose steps can be repeated."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

from batchscore.errors import RecordError
from batchscore.records import StagedFile
from batchscore.runs import layout
from batchscore.storage import Store

CURRENT = "current.txt"
MARKER = "_SUCCESS"
_JOURNAL = "journal.json"


def snapshot(store: Store, slice_: str) -> list[str]:
    """Returns the slice's published files, relative to the output; none before its first run."""
    try:
        return store.read(layout.slice_file(slice_, CURRENT)).decode().splitlines()
    except FileNotFoundError:
        return []


def published_run(store: Store, slice_: str) -> str | None:
    """Returns the run whose publication the slice's marker holds, or None."""
    try:
        return store.read(layout.slice_file(slice_, MARKER)).decode().strip()
    except FileNotFoundError:
        return None


def final_path(file: StagedFile, run: str, unit: str) -> str:
    """Returns the immutable name under `data/` of a staged file."""
    name = posixpath.basename(file.staged)
    return posixpath.join(layout.DATA, file.partition, f"{run}-{unit}-{name}")


def publish(
    store: Store,
    slice_: str,
    run: str,
    moves: Sequence[tuple[str, str]],
    manifest: dict[str, Any],
) -> None:
    """Makes a run's files the slice's snapshot.

    Args:
        moves: staged and final path of each file.
        manifest: written once the files stand.

    What is to be done is written down first; `roll_forward` finishes it after a crash. A run
    that is published, or is being published, is only rolled forward.
    """
    before = snapshot(store, slice_)
    # Asked after the look at the snapshot, which could be this run's own otherwise.
    if roll_forward(store, slice_) == run or store.exists(layout.run_file(run, "manifest.json")):
        return
    journal = {
        "run": run,
        "moves": list(moves),
        "retire": sorted(set(before) - {final for _, final in moves}),
        "manifest": manifest,
    }
    store.write_json(layout.slice_file(slice_, _JOURNAL), journal)
    roll_forward(store, slice_)


def roll_forward(store: Store, slice_: str) -> str | None:
    """Finishes the publication that the slice's journal describes, if there is one.

    Returns the run that was published by it. Each step can be done again, also at the same time.
    """
    journal_path = layout.slice_file(slice_, _JOURNAL)
    try:
        journal = _read_journal(store, journal_path)
    except FileNotFoundError:
        return None
    run = str(journal["run"])
    store.remove(layout.slice_file(slice_, MARKER))
    for staged, final in journal["moves"]:
        store.move(staged, final)
    files = sorted(final for _, final in journal["moves"])
    store.write(layout.slice_file(slice_, CURRENT), "".join(f"{f}\n" for f in files).encode())
    _retire(store, run, journal["retire"])
    store.write_json(layout.run_file(run, "manifest.json"), journal["manifest"])
    store.write(layout.slice_file(slice_, MARKER), f"{run}\n".encode())
    store.remove(journal_path)
    return run


def is_pending(store: Store, slice_: str) -> bool:
    """Tells whether a publication was begun and not finished; its staged files are needed."""
    return store.exists(layout.slice_file(slice_, _JOURNAL))


def _retire(store: Store, run: str, paths: Sequence[str]) -> None:
    for path in paths:
        if store.exists(path):
            store.move(path, layout.retired(run, path))
    store.prune_empty(sorted({posixpath.dirname(path) for path in paths}))


def _read_journal(store: Store, path: str) -> dict[str, Any]:
    try:
        journal = store.read_json(path)
        paths = [*(path for move in journal["moves"] for path in move), *journal["retire"]]
        {store.path(path) for path in paths}
        {key: journal[key] for key in ("run", "manifest")}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(
            f"journal {store.url(path)}: damaged ({error}); the slice stays unpublished until it "
            "is repaired or removed by hand"
        ) from error
    return dict(journal)
