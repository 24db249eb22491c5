"""Staged files to a published snapshot of one slice, by a journal whose steps can be repeated."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from batchscore.errors import BatchscoreError, RecordError, RetryError
from batchscore.runs import layout
from batchscore.runs.contents import find_damage, published_with
from batchscore.runs.heal import bring_back, heal
from batchscore.runs.holder import last_holder
from batchscore.runs.lease import acquire, lost
from batchscore.runs.publication import (
    Journal,
    Publication,
    find_documents,
    is_pending,
    is_void,
    journal_path,
    read_journals,
    write_documents,
)
from batchscore.runs.snapshot import (
    MARKER,
    Listing,
    encode_listing,
    listing_path,
    published_run,
    put_marker,
    read_listing,
)
from batchscore.storage.store import Store, StoredFile, encode_json

Held = Callable[[], bool]
"""Tells whether the caller still holds the slice's lease."""


class _LeaseLostError(Exception):
    """Another process took the slice while this one was publishing."""


def _unfenced() -> bool:
    return True


def publish(
    store: Store,
    slice_: str,
    publication: Publication,
    held: Held = _unfenced,
    known: bool = False,
) -> None:
    """Makes the publication's files the slice's snapshot.

    What is to be done is written down first; `roll_forward` finishes it after a crash. A run
    that is published, or is being published, is only rolled forward.

    Args:
        store: The output.
        slice_: The slice.
        publication: What is to be done.
        held: Tells whether the caller still holds the slice.
        known: The caller, or its run, wrote or read the files before, so that only their size is
            compared. Else their SHA-256 is compared too.

    Raises:
        RecordError: Staged files are gone or damaged; what was moved is put back.
        RetryError: The slice was published by another run meanwhile.
        LeaseError: Another run took the slice over, since this process slept past its lease.
    """
    # Before the first look at the lease: another run's state must not be taken for what was here.
    planned = replace(
        publication,
        marked=published_run(store, slice_),
        found=find_documents(store, publication.documents),
    )
    try:
        _require(held)
        _publish(store, slice_, planned, held, known)
        _require(held)
    except (_LeaseLostError, BatchscoreError, OSError) as error:
        # Whatever went wrong, another run's steps may be the reason.
        if isinstance(error, _LeaseLostError) or not held():
            raise _give_way(store, slice_, publication) from error
        raise


def _require(held: Held) -> None:
    if not held():
        raise _LeaseLostError


def _publish(store: Store, slice_: str, publication: Publication, held: Held, known: bool) -> None:
    roll_forward(store, slice_, held)
    if _is_done(store, publication.run):
        return
    if not read_listing(store, slice_).lists(publication.before):
        raise _overtaken(slice_, publication.run)
    store.create_new(journal_path(slice_, publication.run), encode_json(publication.to_json()))
    roll_forward(store, slice_, held, known)
    if _is_done(store, publication.run):
        return
    if read_listing(store, slice_).lists(publication.before):
        raise RecordError(
            f"run {publication.run}: some of its scored files are missing or changed; nothing was "
            "published. Run the job again: it scores their units again"
        )
    raise _overtaken(slice_, publication.run)


def _is_done(store: Store, run: str) -> bool:
    """Tells whether a run was published already, whatever became of it since."""
    try:
        manifest = store.read_json(layout.run_file(run, "manifest.json"))
        return manifest["status"] in ("published", "empty", "revoked")
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return False


def _overtaken(slice_: str, run: str) -> RetryError:
    return RetryError(
        f"slice {slice_!r} was published by another run while run {run} was under way; nothing of "
        "it was published: run again, its finished units are kept"
    )


def roll_forward(
    store: Store, slice_: str, held: Held = _unfenced, known: bool = False
) -> str | None:
    """Finishes the publications that the slice's journals describe.

    Returns the run that was published by it, or None. Each step can be done again, also at the
    same time. A journal that was overtaken by another publication is dropped, and one whose
    staged files are gone or damaged is taken back; neither publishes anything. `known` is as in
    `publish`.

    Raises:
        LeaseError: Another run took the slice over, since this process slept past its lease.
    """
    done = None
    for journal in read_journals(store, slice_):
        try:
            if _finish(store, slice_, journal, held, known):
                done = journal.publication.run
        except _LeaseLostError as error:
            raise _give_way(store, slice_, journal.publication) from error
    return done


def _finish(store: Store, slice_: str, journal: Journal, held: Held, known: bool) -> bool:
    """Does what is left of a publication; False if it is taken back."""
    publication = journal.publication
    standing = read_listing(store, slice_)
    fresh = not standing.lists(publication.files)
    void = is_void(store, slice_, journal, standing)
    found = store.find(source for source, _ in publication.moves)
    read = fresh and not known
    lost_moves = set() if void else _lost(store, publication, found, read)
    spoiled = read and not void and _is_spoiled(store, publication)
    _require(held)
    if void or spoiled or (fresh and lost_moves):
        _take_back(store, slice_, journal)
        return False
    if published_run(store, slice_) != publication.run:
        store.remove(layout.slice_file(slice_, MARKER), flush=True)
    # Once the snapshot is replaced there is no way back: what is gone is scored again next time.
    _move(store, held, [move for move in publication.moves if move not in lost_moves], found)
    if fresh and not _replace(store, slice_, standing, publication.files):
        _require(held)
        _take_back(store, slice_, journal)
        return False
    _require(held)
    if store.exists(journal.path):  # else whoever did the same has finished
        _retire(store, held, publication, read_listing(store, slice_))
        write_documents(store, publication)
        for path in publication.leftovers:
            store.remove(path)
    if read_listing(store, slice_).lists(publication.files):
        put_marker(store, slice_, publication.run)
    store.remove(journal.path)
    return True


def _lost(
    store: Store,
    publication: Publication,
    found: Mapping[str, StoredFile],
    read: bool,
) -> set[tuple[str, str]]:
    """Returns the moves of files that are nowhere, or do not hold what was written into them.

    Args:
        store: The output.
        publication: What is moved.
        found: The sources that are there. They were looked for before the targets: who moves one
            at this moment has its target there before the source is gone.
        read: Compares not their size alone, but their SHA-256 too.
    """
    places = {move: move[0] if move[0] in found else move[1] for move in publication.moves}
    contents = publication.contents
    expected = {place: contents.get(move[1]) for move, place in places.items()}
    damage = find_damage(store, expected, read, dict(publication.moves))
    return {move for move, place in places.items() if place in damage}


def _is_spoiled(store: Store, publication: Publication) -> bool:
    """Tells whether sidecars or profiles do not hold what was written into them."""
    expected = published_with(
        store, publication.manifest, [target for _, target in publication.moves]
    )
    return bool(find_damage(store, expected, read=True))


def _take_back(store: Store, slice_: str, journal: Journal) -> None:
    """Undoes what was moved for a publication that is not finished, and drops its journal.

    What is published now stays, also where a later publication lists files of this one.
    """
    publication = journal.publication
    listed = set(read_listing(store, slice_).files)
    moves = [(source, target) for source, target in publication.moves if target not in listed]
    gone = store.missing(source for source, _ in moves)
    missing = store.missing(target for _, target in moves)
    there = [(source, target) for source, target in moves if target not in missing]
    store.move_all([(target, source) for source, target in there if source in gone])
    for source, target in there:
        if source not in gone:  # it was copied
            store.remove(target)
    _prune(store, (target for _, target in there))
    if publication.predecessor is not None and published_run(store, slice_) is None:
        put_marker(store, slice_, publication.predecessor)
    store.remove(journal.path)


def _give_way(store: Store, slice_: str, publication: Publication) -> BatchscoreError:
    """Leaves a slice to who took it over, in order; returns what its command ends with."""
    own = journal_path(slice_, publication.run)
    for journal in read_journals(store, slice_):
        if journal.path == own and is_void(store, slice_, journal, read_listing(store, slice_)):
            store.remove(own)
    bring_back(store, slice_, publication.retire)
    _drop_late_copies(store, slice_, publication)
    heal(store, slice_)
    _finish_for_nobody(store, slice_, publication.run)
    return lost(slice_, publication.run, _is_done(store, publication.run))


def _drop_late_copies(store: Store, slice_: str, publication: Publication) -> None:
    """Removes what was copied out of `retired/` on an object store after nobody wanted it any more.

    Who took the slice over may have finished this publication, and taken it back.
    """
    copies = {move[1]: move[0] for move in publication.moves if _is_retired(move)}
    late = set(copies) - _wanted(store, slice_)
    there = late - store.missing(late)
    sources = {copies[target] for target in there}
    gone = store.missing(sources)
    late = {target for target in there if copies[target] not in gone}
    for target in late:
        store.remove(target)
    # Who copied one again meanwhile had written its journal before.
    store.move_all([(copies[each], each) for each in late & _wanted(store, slice_)], keep=True)


def _wanted(store: Store, slice_: str) -> set[str]:
    """Returns the files that are published, or that a publication under way moves."""
    journals = read_journals(store, slice_)
    moved = {target for each in journals for _, target in each.publication.moves}
    return moved | set(read_listing(store, slice_).files)


def _finish_for_nobody(store: Store, slice_: str, run: str) -> None:
    """Finishes what is under way in a slice that nobody holds any more.

    Whoever took it over may have ended without it, since this process kept a lock while it slept.
    """
    last = last_holder(store, slice_)
    if last is not None and last.is_over and is_pending(store, slice_):
        with suppress(RetryError), acquire(store, slice_, "run", run) as lease:
            roll_forward(store, slice_, lease.is_held)


def _replace(store: Store, slice_: str, standing: Listing, files: Sequence[str]) -> bool:
    """Replaces the snapshot in one step; False if it is neither the old nor the new one."""
    done = store.exchange(listing_path(slice_), standing.raw, encode_listing(files))
    return done or read_listing(store, slice_).lists(files)


def _move(
    store: Store, held: Held, moves: Sequence[tuple[str, str]], found: Mapping[str, StoredFile]
) -> None:
    tags = {path: each.tag for path, each in found.items()}
    try:
        store.move_all([move for move in moves if not _is_retired(move)], tags=tags)
        # A copy stays, since a process that sleeps between the two steps of a move on an object
        # store would remove the only one.
        store.move_all([move for move in moves if _is_retired(move)], True, tags)
    except FileNotFoundError:
        # Whoever took the slice over has moved it on.
        _require(held)
        raise
    _prune(store, (source for source, _ in moves))


def _is_retired(move: tuple[str, str]) -> bool:
    return move[0].startswith(f"{layout.RETIRED}/")


def _retire(store: Store, held: Held, publication: Publication, listing: Listing) -> None:
    old = set(publication.retire) - set(listing.files)
    standing = sorted(old - store.missing(old))
    try:
        store.move_all([(path, layout.retired(publication.run, path)) for path in standing])
    except FileNotFoundError:
        _require(held)
        raise
    _prune(store, publication.retire)


def _prune(store: Store, paths: Iterable[str]) -> None:
    store.prune_empty(sorted({posixpath.dirname(path) for path in paths}))
