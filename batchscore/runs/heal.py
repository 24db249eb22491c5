"""A slice whose marker, list and files a late process changed, put right by its manifests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchscore.errors import RecordError
from batchscore.runs import layout
from batchscore.runs.manifest_model import decode_manifest
from batchscore.runs.publication import pending
from batchscore.runs.segments import expand
from batchscore.runs.snapshot import (
    MARKER,
    Listing,
    encode_listing,
    listing_path,
    published_run,
    put_marker,
    read_listing,
)
from batchscore.storage.store import Store

_THREADS = 16
_FILE = re.compile(r"/[0-9]{8}-[0-9a-f]{4}-([0-9a-f]{16})-[0-9]+\.parquet$")
_UNREADABLE = ""
_PUBLISHED = ("published", "empty")
_TOOK_EFFECT = (*_PUBLISHED, "revoked")


@dataclass(frozen=True)
class _Ran:
    """A run of the slice that was published once: its base, how it is now, and its files."""

    run: str
    base: str | None
    status: str
    finished: str
    files: Mapping[str, Mapping[str, Any]]


def heal(store: Store, slice_: str) -> None:
    """Puts marker, list and files of a slice in order where they contradict each other.

    A process that sleeps past its lease and wakes up in the middle of a publication may still do
    the one step that it was about to do: remove the marker, retire a file that a rollback brought
    back, or exchange a list that a rollback made what it was. Manifests do not go back to what
    they were, so they tell the run that counts: the one that is the base of no other. A list that
    is gone, empty or not text is written again. Where it was changed by hand otherwise, nothing is
    changed. A publication under way is left to its owner.
    """
    listing, marker = find_listing(store, slice_), _find_marker(store, slice_)
    if _is_edited(listing) or _agree(store, slice_, marker, listing):
        return
    ran = _ran(store, slice_)
    last = _last(ran)
    known = [each for each in ran if listing.lists(each.files)]
    is_known = bool(known) or (not listing.files and _is_certain(store, marker, last))
    if last is None or not is_known or _is_moving(store, slice_, marker):
        return
    if not listing.lists(last.files):
        store.exchange(listing_path(slice_), listing.raw, encode_listing(sorted(last.files)))
    if marker == _UNREADABLE:
        store.remove(layout.slice_file(slice_, MARKER))
    put_marker(store, slice_, last.run)
    _bring_back(store, last)


def _is_edited(listing: Listing) -> bool:
    """Tells whether a person changed a list: its lines are text, and some are no list's."""
    text = all(
        line.isprintable() and "\N{REPLACEMENT CHARACTER}" not in line for line in listing.wrong
    )
    return bool(listing.wrong) and (text or bool(listing.files))


def find_listing(store: Store, slice_: str) -> Listing:
    """Returns a slice's list; one that is damaged has its bytes, and no entries."""
    try:
        return read_listing(store, slice_)
    except RecordError:
        return Listing(_damaged_bytes(store, listing_path(slice_)), ())


def _damaged_bytes(store: Store, path: str) -> bytes | None:
    """Returns what a damaged file holds; None for a folder in its place, which is removed."""
    try:
        return store.read(path)
    except IsADirectoryError:
        store.remove(path)
        return None


def _find_marker(store: Store, slice_: str) -> str | None:
    try:
        return published_run(store, slice_)
    except RecordError:
        return _UNREADABLE


def _is_certain(store: Store, marker: str | None, last: _Ran | None) -> bool:
    """Tells whether the manifests alone tell what a list that is gone, or damaged, held.

    Either the marker names the run as well. Or there is no marker, all files of the run are in
    place, and no manifest that might say otherwise is damaged.
    """
    if last is None or marker == last.run:
        return last is not None
    if marker is not None or store.missing(last.files):
        return False
    names = store.names(f"{layout.HOME}/runs")
    with ThreadPoolExecutor(_THREADS) as pool:
        return not any(pool.map(lambda run: _is_damaged(store, run), names))


def _is_damaged(store: Store, run: str) -> bool:
    try:
        raw = store.read_json(layout.run_file(run, "manifest.json"))
        expand(store, decode_manifest(raw, run))
    except FileNotFoundError:
        return False
    except (RecordError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return True
    return False


def relist(store: Store, slice_: str) -> None:
    """Writes a slice's list again by the names of the files under `data/`.

    For a list that is gone or damaged, where no manifest tells what it held: whoever publishes
    next would leave the old files to readers of the folder. A file is the slice's if its name has
    one of the slice's units, and no other slice lists it.
    """
    listing, home = find_listing(store, slice_), f"{layout.HOME}/ledger/{slice_}"
    units = {name[:16] for score in store.names(home) for name in store.names(f"{home}/{score}")}
    if listing.files or not units or pending(store, slice_) is not None:
        return
    others = [name for name in store.names(f"{layout.HOME}/slices") if name != slice_]
    listed = {path for name in others for path in find_listing(store, name).files}
    files = [path for path in store.walk(layout.DATA) if _unit_of(path) in units]
    mine = sorted(set(files) - listed)
    if listing.raw is not None or mine:
        store.exchange(listing_path(slice_), listing.raw, encode_listing(mine))


def _unit_of(path: str) -> str | None:
    found = _FILE.search(path)
    return found[1] if found else None


def bring_back(store: Store, slice_: str, paths: Iterable[str]) -> None:
    """Brings published files back that a late process retired although they are listed."""
    wanted = set(read_listing(store, slice_).files).intersection(paths)
    if store.missing(wanted):
        last = _last(_ran(store, slice_))
        if last is not None:
            _bring_back(store, last)


def _agree(store: Store, slice_: str, marker: str | None, listing: Listing) -> bool:
    found = None if marker is None else _read(store, slice_, marker)
    return found is not None and found.status in _PUBLISHED and listing.lists(found.files)


def _is_moving(store: Store, slice_: str, marker: str | None) -> bool:
    """Tells whether the slice is being published, or was since the marker was read."""
    return pending(store, slice_) is not None or _find_marker(store, slice_) != marker


def _ran(store: Store, slice_: str) -> list[_Ran]:
    """Returns the runs of a slice that were ever published."""
    with ThreadPoolExecutor(_THREADS) as pool:
        names = store.names(f"{layout.HOME}/runs")
        found = pool.map(lambda run: _read(store, slice_, run), names)
        return [each for each in found if each is not None]


def _read(store: Store, slice_: str, run: str) -> _Ran | None:
    # A damaged manifest is an error where it is needed, and of no help here.
    with suppress(
        RecordError, LookupError, TypeError, ValueError, AttributeError, FileNotFoundError
    ):
        raw = store.read_json(layout.run_file(run, "manifest.json"))
        manifest = decode_manifest(raw, run)
        if manifest.slice == slice_ and manifest.status in _TOOK_EFFECT:
            found = expand(store, manifest)
            files = dict(zip(found.paths, found.files, strict=True))
            return _Ran(run, found.base, found.status, str(found.public_since), files)
    return None


def _last(ran: list[_Ran]) -> _Ran | None:
    """Returns the run that no other one builds upon; the newest one if there are several."""
    bases = {each.base for each in ran}
    last = [each for each in ran if each.run not in bases and each.status in _PUBLISHED]
    return max(last, key=lambda each: each.finished, default=None)


def _bring_back(store: Store, last: _Ran) -> None:
    gone = store.missing(last.files)
    for run in store.names(layout.RETIRED) if gone else ():
        places = {layout.retired(run, path): path for path in gone}
        for place in sorted(set(places) - store.missing(places)):
            path = places[place]
            if _is_as_published(store, place, last.files[path]):
                store.move_all([(place, path)], keep=True)
                gone.discard(path)


def _is_as_published(store: Store, place: str, file: Mapping[str, Any]) -> bool:
    data = store.read(place)
    return hashlib.sha256(data).hexdigest() == file.get("sha256")
