"""Code and models that workers fetch from an output: what is needed, and what is removed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import suppress

from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.runs.history import read_history
from batchscore.runs.holder import holder
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.publication import pending
from batchscore.runs.run_plan import read_plan
from batchscore.storage.by_content import file_of
from batchscore.storage.store import Store

_CODE = "code "
"""How a score's facts begin to name a file of the job's code."""


def sweep_shipped(store: Store, slice_: str, before: float) -> None:
    """Removes objects that are older than an instant and that no run needs.

    An open run, a held one, and a journal name what they need. Nothing is removed if one of them
    cannot be read, or if another slice is held, whose run may be about to name more.

    Args:
        slice_: The slice, whose lease the caller holds.
        before: The instant, in Unix seconds of the store's clock.

    Raises:
        RecordError: What is needed is not known. Nothing was removed.
    """
    stored = [
        f"{folder}/{name}"
        for folder in (layout.CODE, layout.MODELS)
        for name in store.names(folder)
        if file_of(name) is not None
    ]
    old = [path for path in stored if (store.written(path) or before) < before]
    needed = {*_named(store)} if old else set()
    unneeded = [path for path in old if file_of(posixpath.basename(path)) not in needed]
    # Last, since a run that took its lease meanwhile may have named what it found.
    if not unneeded or _is_used(store, slice_):
        return
    for path in unneeded:
        store.remove(path)


def _is_used(store: Store, slice_: str) -> bool:
    """Tells whether another slice is held."""
    others = (name for name in store.names(f"{layout.HOME}/slices") if name != slice_)
    return any(holder(store, name) is not None for name in others)


def _named(store: Store) -> Iterator[str]:
    """Yields the SHA-256 of each file that somebody needs."""
    for run in store.names(f"{layout.HOME}/work"):
        with suppress(FileNotFoundError):  # closed meanwhile
            yield from read_plan(store, run).shipped
    for slice_ in store.names(f"{layout.HOME}/slices"):
        publication = pending(store, slice_)
        if publication is not None:
            yield from _of(publication.manifest)
    for entry in read_history(store):
        if isinstance(entry, Manifest) and entry.status == "held":
            yield from _of(entry)
        if entry.status == "damaged":
            raise RecordError(f"run {entry.run}: its manifest cannot be read")


def _of(manifest: Manifest) -> Iterator[str]:
    """Yields the SHA-256 of what scored a run: its model's files and its code."""
    yield from manifest.model.sha256.values()
    yield from (str(v) for name, v in manifest.score_facts.items() if name.startswith(_CODE))
