"""Staged files to a published snapshot of one slice, by a journal whose steps can be repeated."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchscore.errors import RecordError, RetryError
from batchscore.runs import layout
from batchscore.storage import Store, encode_json

CURRENT = "current.txt"
JOURNAL = "journal.json"
MARKER = "_SUCCESS"
_REVOKED = "revoked.json"


@dataclass(frozen=True)
class Publication:
    """How a slice's snapshot becomes another.

    Args:
        run: what is published by it.
        base: the run that was published before, or None.
        before: the snapshot that it was made for; onto another it is not put.
        files: the snapshot that it makes.
        moves: from where and to where files go, before the snapshot is replaced.
        retire: published files that go to `retired/RUN/`, after it was.
        documents: JSON files to write, by path; manifests among them.
    """

    run: str
    base: str | None
    before: tuple[str, ...]
    files: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]
    retire: tuple[str, ...]
    documents: tuple[tuple[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the publication as JSON-able values."""
        return asdict(self)

    @staticmethod
    def from_json(facts: Any) -> Publication:
        """Reverses `to_json`; KeyError, TypeError or ValueError if the facts are not one's."""
        return Publication(
            run=str(facts["run"]),
            base=None if facts["base"] is None else str(facts["base"]),
            before=tuple(facts["before"]),
            files=tuple(facts["files"]),
            moves=tuple((source, target) for source, target in facts["moves"]),
            retire=tuple(facts["retire"]),
            documents=tuple((path, value) for path, value in facts["documents"]),
        )


def snapshot(store: Store, slice_: str) -> list[str]:
    """Returns the slice's published files, relative to the output; none before its first run."""
    try:
        return store.read(layout.slice_file(slice_, CURRENT)).decode().splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise _no_text(store, slice_, CURRENT) from error


def published_run(store: Store, slice_: str) -> str | None:
    """Returns the run whose publication the slice's marker holds, or None."""
    try:
        return store.read(layout.slice_file(slice_, MARKER)).decode().strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _no_text(store, slice_, MARKER) from error


def _no_text(store: Store, slice_: str, name: str) -> RecordError:
    path = store.url(layout.slice_file(slice_, name))
    return RecordError(f"{path}: damaged, it holds no text; restore it from a copy")


def revocations(store: Store, slice_: str) -> list[dict[str, Any]]:
    """Returns what was taken back of a slice: run, how it scored which shards, who, when, why."""
    path = layout.slice_file(slice_, _REVOKED)
    try:
        found = store.read_json(path)
        return [
            {**{key: str(each[key]) for key in _REVOKED_KEYS}, "shards": _shards(each["shards"])}
            for each in found
        ]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{store.url(path)}: damaged ({error!r}); restore it, or remove it to forget what was "
            "taken back"
        ) from error


_REVOKED_KEYS = ("run", "score", "by", "at", "reason")


def _shards(found: Any) -> list[list[Any]]:
    return [[str(path), int(size), str(mark)] for path, size, mark in found]


def revoked_path(slice_: str) -> str:
    """Where a slice's revocations are written."""
    return layout.slice_file(slice_, _REVOKED)


def publish(store: Store, slice_: str, publication: Publication) -> None:
    """Makes the publication's files the slice's snapshot.

    What is to be done is written down first; `roll_forward` finishes it after a crash. A run
    that is published, or is being published, is only rolled forward.

    Raises:
        RecordError: staged files are gone; what was moved is put back.
        RetryError: the slice was published by another meanwhile.
    """
    done = layout.run_file(publication.run, "manifest.json")
    if roll_forward(store, slice_) == publication.run or _is_done(store, done):
        return
    if sorted(snapshot(store, slice_)) != sorted(publication.before):
        raise _overtaken(slice_, publication.run)
    path = layout.slice_file(slice_, JOURNAL)
    store.create_new(path, encode_json(publication.to_json()))
    if roll_forward(store, slice_) == publication.run or _is_done(store, done):
        return
    if sorted(snapshot(store, slice_)) == sorted(publication.before):
        raise RecordError(
            f"run {publication.run}: scored files of it are gone; nothing was published: run the "
            "job again, and what is gone is scored again"
        )
    raise _overtaken(slice_, publication.run)


def _is_done(store: Store, manifest: str) -> bool:
    """Tells whether a run was published already, whatever became of it since."""
    try:
        return store.read_json(manifest)["status"] in ("published", "empty", "revoked")
    except FileNotFoundError:
        return False


def _overtaken(slice_: str, run: str) -> RetryError:
    return RetryError(
        f"slice {slice_!r} was published by another while run {run} was under way; nothing of it "
        "was published: run again, its finished units are kept"
    )


def pending(store: Store, slice_: str) -> Publication | None:
    """Returns the publication that was begun and not finished, or None.

    Raises:
        RecordError: the journal is damaged.
    """
    path = layout.slice_file(slice_, JOURNAL)
    try:
        publication = Publication.from_json(store.read_json(path))
        moved = [place for move in publication.moves for place in move]
        documents = [place for place, _ in publication.documents]
        for place in (*moved, *publication.files, *publication.retire, *documents):
            store.path(place)
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(
            f"journal {store.url(path)}: damaged ({error}); the slice stays unpublished until it "
            "is repaired or removed by hand"
        ) from error
    return publication


def roll_forward(store: Store, slice_: str) -> str | None:
    """Finishes the publication that the slice's journal describes, if there is one.

    Returns the run that was published by it. Each step can be done again, also at the same time.
    A journal whose snapshot gave way to another's is dropped, and one whose staged files are gone
    is taken back; neither publishes anything.
    """
    publication = pending(store, slice_)
    if publication is None:
        return None
    standing = snapshot(store, slice_)
    fresh = standing != list(publication.files)
    if fresh and sorted(standing) != sorted(publication.before):
        store.remove(layout.slice_file(slice_, JOURNAL))
        return None
    lost = _lost(store, publication.moves)
    if lost and fresh:
        _roll_back(store, slice_, publication)
        return None
    store.remove(layout.slice_file(slice_, MARKER))
    # Once the snapshot is replaced there is no way back: what is gone is scored again next time.
    _move_all(store, [move for move in publication.moves if move not in lost])
    if fresh and not _replace(store, slice_, standing, publication.files):
        return None
    if is_pending(store, slice_):  # else whoever did the same has finished
        _retire(store, publication.run, publication.retire)
        for path, value in publication.documents:
            store.write_json(path, value)
    if snapshot(store, slice_) == list(publication.files):
        store.write(layout.slice_file(slice_, MARKER), f"{publication.run}\n".encode())
    store.remove(layout.slice_file(slice_, JOURNAL))
    return publication.run


def _lost(store: Store, moves: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Returns the moves of files that are neither where they were nor where they go."""
    # Sources first: who moves one at this moment has its target there before the source is gone.
    gone = store.missing(source for source, _ in moves)
    missing = store.missing(target for source, target in moves if source in gone)
    return {move for move in moves if move[0] in gone and move[1] in missing}


def _roll_back(store: Store, slice_: str, publication: Publication) -> None:
    """Undoes what was moved for a publication that cannot be finished."""
    gone = store.missing(source for source, _ in publication.moves)
    there = [(source, target) for source, target in publication.moves if source in gone]
    missing = store.missing(target for _, target in there)
    store.move_all([(target, source) for source, target in there if target not in missing])
    if publication.base is not None:
        store.write(layout.slice_file(slice_, MARKER), f"{publication.base}\n".encode())
    store.remove(layout.slice_file(slice_, JOURNAL))


def is_pending(store: Store, slice_: str) -> bool:
    """Tells whether a publication was begun and not finished; its staged files are needed."""
    return store.exists(layout.slice_file(slice_, JOURNAL))


def _replace(store: Store, slice_: str, before: Sequence[str], files: Sequence[str]) -> bool:
    """Replaces the snapshot in one step; False where neither the old nor the new one stands."""
    path = layout.slice_file(slice_, CURRENT)
    old = _lines(before) if store.exists(path) else None
    return store.exchange(path, old, _lines(files)) or snapshot(store, slice_) == list(files)


def _lines(files: Sequence[str]) -> bytes:
    return "".join(f"{file}\n" for file in files).encode()


def _move_all(store: Store, moves: Sequence[tuple[str, str]]) -> None:
    store.move_all(moves)
    store.prune_empty(sorted({posixpath.dirname(source) for source, _ in moves}))


def _retire(store: Store, run: str, paths: Sequence[str]) -> None:
    standing = sorted(set(paths) - store.missing(paths))
    store.move_all([(path, layout.retired(run, path)) for path in standing])
    store.prune_empty(sorted({posixpath.dirname(path) for path in paths}))
