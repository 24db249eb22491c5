"""A slice whose marker, list and files a late process changed, put right by its manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchscore.runs import layout
from batchscore.runs.publication import pending
from batchscore.runs.snapshot import (
    Listing,
    encode_listing,
    listing_path,
    published_run,
    put_marker,
    read_listing,
)
from batchscore.storage import Store

_THREADS = 16
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
    they were, so they tell the run that counts: the one that is the base of no other. Where the
    list was changed by hand, nothing is changed. A publication under way is left to its owner.
    """
    listing, marker = read_listing(store, slice_), published_run(store, slice_)
    if listing.raw is None or listing.wrong or _agree(store, slice_, marker, listing):
        return
    ran = _ran(store, slice_)
    last = _last(ran)
    known = [each for each in ran if listing.lists(each.files)]
    if last is None or not known or _is_moving(store, slice_, marker):
        return
    if not listing.lists(last.files):
        store.exchange(listing_path(slice_), listing.raw, encode_listing(sorted(last.files)))
    put_marker(store, slice_, last.run)
    _bring_back(store, last)


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
    return pending(store, slice_) is not None or published_run(store, slice_) != marker


def _ran(store: Store, slice_: str) -> list[_Ran]:
    """Returns the runs of a slice that were ever published."""
    with ThreadPoolExecutor(_THREADS) as pool:
        names = store.names(f"{layout.HOME}/runs")
        found = pool.map(lambda run: _read(store, slice_, run), names)
        return [each for each in found if each is not None]


def _read(store: Store, slice_: str, run: str) -> _Ran | None:
    # A damaged manifest is an error where it is needed, and of no help here.
    with suppress(FileNotFoundError, KeyError, TypeError, ValueError, AttributeError):
        found = store.read_json(layout.run_file(run, "manifest.json"))
        if found["slice"] == slice_ and found["status"] in _TOOK_EFFECT:
            finished = str(found.get("released", {}).get("at") or found["finished"])
            files = {str(file["path"]): file for file in found["files"]}
            return _Ran(run, found["base"], found["status"], finished, files)
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
