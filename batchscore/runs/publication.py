"""A publication as its journal holds it, and which of a slice's journals still count."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.errors import RecordError
from batchscore.messages.wording import one_line, reason
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest, decode_manifest
from batchscore.runs.segments import inline
from batchscore.runs.snapshot import Listing, published_run, read_listing
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store, encode_json
from batchscore.storage.typed import require_version

_VERSION = "batchscore_journal"
_NEWEST = 1
# Earlier versions had one journal a slice, `journal.json`.
_NAME = re.compile(r"journal(-.+)?\.json")


@dataclass(frozen=True)
class Publication:
    """How a slice's snapshot becomes another.

    Args:
        run: The run that is published by it.
        base: The run that was published before, or None.
        before: The snapshot that it was made for. It is not put onto another one.
        files: The snapshot that it makes.
        moves: Files with their old and new paths, moved, before the snapshot is replaced.
        retire: Published files that go to `retired/RUN/`, after it was replaced.
        documents: JSON files to write, by path. The first is the run's manifest.
        marked: The run that the marker named when the journal was made, or None.
        found: SHA-256 of what each document replaces, by path; None where nothing was there.
            Journals of earlier versions do not tell.
        leftovers: Files that nobody needs once it is published.
    """

    run: str
    base: str | None
    before: tuple[str, ...]
    files: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]
    retire: tuple[str, ...]
    documents: tuple[tuple[str, Any], ...]
    marked: str | None = None
    found: tuple[tuple[str, str | None], ...] = ()
    leftovers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the publication as JSON-able values."""
        return {_VERSION: _NEWEST, **vars(self)}

    @staticmethod
    def from_json(facts: Any) -> Publication:
        """Reverses `to_json`.

        Raises:
            VersionError: A newer batchscore wrote it.
            KeyError, TypeError, ValueError: The facts are not a publication's.
        """
        run = one_line(repr(facts.get("run")))
        require_version(facts, _VERSION, _NEWEST, f"journal of run {run}")
        marked = facts.get("marked")
        return Publication(
            run=str(facts["run"]),
            base=None if facts["base"] is None else str(facts["base"]),
            before=tuple(facts["before"]),
            files=tuple(facts["files"]),
            moves=tuple((source, target) for source, target in facts["moves"]),
            retire=tuple(facts["retire"]),
            documents=tuple((path, value) for path, value in facts["documents"]),
            marked=None if marked is None else str(marked),
            found=tuple((path, sha256) for path, sha256 in facts.get("found", ())),
            leftovers=tuple(facts.get("leftovers", ())),
        )

    @property
    def contents(self) -> dict[str, Digest]:
        """What files of the snapshot hold, by path: at least those that its base does not have."""
        listed = inline(self.manifest).files if self.documents else ()
        return {str(f["path"]): Digest(int(f["bytes"]), str(f["sha256"])) for f in listed}

    @property
    def manifest(self) -> Manifest:
        """The manifest of its run."""
        return decode_manifest(self.documents[0][1], self.run)

    @property
    def predecessor(self) -> str | None:
        """The run that the marker names until the snapshot is replaced, or None."""
        return self.marked or self.base

    @property
    def places(self) -> list[str]:
        """Every path that it reads or writes."""
        moved = [place for move in self.moves for place in move]
        documents = [place for place, _ in self.documents]
        return [*moved, *self.files, *self.retire, *documents, *self.leftovers]


@dataclass(frozen=True)
class Journal:
    """A publication that was written down before it was done, and where."""

    path: str
    publication: Publication


def journal_path(slice_: str, run: str) -> str:
    """Where a run's publication is written down; no other run writes or removes that file."""
    return layout.slice_file(slice_, f"journal-{run}.json")


def journal_paths(store: Store, slice_: str) -> list[str]:
    """Returns the slice's journals: of publications that are not finished, or were overtaken."""
    names = store.names(f"{layout.HOME}/slices/{slice_}")
    return [layout.slice_file(slice_, name) for name in names if _NAME.fullmatch(name)]


def read_journals(store: Store, slice_: str) -> list[Journal]:
    """Returns the slice's journals; RecordError if one is damaged."""
    found = [(path, _read(store, path)) for path in journal_paths(store, slice_)]
    return [Journal(path, publication) for path, publication in found if publication is not None]


def _read(store: Store, path: str) -> Publication | None:
    try:
        publication = Publication.from_json(store.read_json(path))
        for place in publication.places:
            store.path(place)
        _ = publication.contents
    except FileNotFoundError:  # its publication was finished since the look
        return None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(
            f"journal {store.url(path)}: damaged ({reason(error)}); restore it from a "
            "copy, or remove it and run the job again"
        ) from error
    return publication


def pending(store: Store, slice_: str) -> Publication | None:
    """Returns the publication that was started and not finished, or None.

    Raises:
        RecordError: A journal is damaged.
    """
    found = pending_journal(store, slice_)
    return None if found is None else found.publication


def pending_journal(store: Store, slice_: str) -> Journal | None:
    """Returns the journal of `pending`, or None; RecordError if a journal is damaged."""
    journals = read_journals(store, slice_)
    listing = read_listing(store, slice_) if journals else Listing(None, ())
    return next((j for j in journals if not is_void(store, slice_, j, listing)), None)


def is_pending(store: Store, slice_: str) -> bool:
    """Tells whether the slice has a journal, so that staged files may be needed."""
    return bool(journal_paths(store, slice_))


def is_void(store: Store, slice_: str, journal: Journal, listing: Listing) -> bool:
    """Tells whether a journal was overtaken, so that it must not be finished any more.

    The list alone does not tell: a rollback makes it what it was before. The marker and the run's
    own manifest never are what they were before.
    """
    publication = journal.publication
    marker = published_run(store, slice_)
    if marker not in (None, publication.predecessor, publication.run):
        return True
    if not listing.lists(publication.before):
        return not listing.lists(publication.files)
    return not all(_may_write(store, publication, path) for path, _ in publication.documents[:1])


def _may_write(store: Store, publication: Publication, path: str) -> bool:
    found = dict(publication.found)
    written = encode_json(dict(publication.documents)[path])
    return path not in found or _digest(store, path) in (found[path], _sha256(written))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find_documents(
    store: Store, documents: Sequence[tuple[str, Any]]
) -> tuple[tuple[str, str | None], ...]:
    """Returns the SHA-256 of what there is at each document's path, or None."""
    return tuple((path, _digest(store, path)) for path, _ in documents)


def _digest(store: Store, path: str) -> str | None:
    """Returns a file's SHA-256, or None if it is not there."""
    old = _bytes(store, path)
    return None if old is None else _sha256(old)


def _bytes(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None


def write_documents(store: Store, publication: Publication) -> None:
    """Writes a publication's documents, each by compare-and-swap.

    A process that comes late finds other documents than it was made for and changes nothing.
    """
    found = dict(publication.found)
    for path, value in publication.documents:
        if path not in found:  # a journal of an earlier version
            store.write_json(path, value)
            continue
        old = _bytes(store, path)
        if (None if old is None else _sha256(old)) == found[path]:
            store.exchange(path, old, encode_json(value))
