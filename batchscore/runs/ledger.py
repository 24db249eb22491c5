"""The ledger: finished units, each recorded once with its profile, found again and merged."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchscore.drift.profile_file import read_record, read_table, write_table
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError, VersionError
from batchscore.messages.wording import one_line
from batchscore.runs import layout
from batchscore.storage.documents import MOST_BYTES
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord

_THREADS = 16
_RECORD = re.compile(r"([0-9a-f]{16})\.parquet$")
_SEAL = "seal"
_SEALED = f'"{_SEAL}":"'.encode()
_BLANK = "0" * 64


def encode_record(record: UnitRecord, profile: TableProfile) -> bytes:
    """Returns a unit's record and profile as the bytes of one file.

    No other document tells its hash, so it holds that itself: the SHA-256 of its bytes with zeros
    in place of the hash.
    """
    return _seal(write_table(profile, {**record.to_json(), _SEAL: _BLANK}))


def decode_record(data: bytes) -> tuple[UnitRecord, TableProfile]:
    """Reverses `encode_record`; RecordError if the bytes are damaged."""
    profile, meta = read_table(data)
    return _unseal(data, meta), profile


def _seal(data: bytes) -> bytes:
    # The metadata lies behind all else, and within its texts quotes are escaped.
    start = data.rfind(_SEALED) + len(_SEALED)
    head, tail = data[:start], data[start + len(_BLANK) :]
    sha256 = hashlib.sha256(head + _BLANK.encode() + tail)
    return head + sha256.hexdigest().encode() + tail


def _unseal(data: bytes, meta: dict[str, Any]) -> UnitRecord:
    """Returns the record of a file that is as it was written; earlier versions did not seal it."""
    if meta.pop(_SEAL, None) is not None and _seal(data) != data:
        raise RecordError("a unit's record is damaged (its SHA-256 is not that of its bytes)")
    return UnitRecord.from_json(meta)


def enter(store: Store, address: str, record: UnitRecord, profile: TableProfile) -> bool:
    """Records a finished unit; False if another attempt was first, whose record then counts.

    A record that is damaged, or whose staged files are gone, counts for nothing and is replaced.
    """
    data = encode_record(record, profile)
    if store.create_new(address, data):
        return True
    first = _usable_head(store, address)
    if first is None or store.missing(file.staged for file in first.files):
        store.write(address, data)
        return True
    return False


def is_finished(store: Store, address: str, run: str) -> bool:
    """Tells whether a unit has a record that counts, so that a run need not score it.

    A late worker of a run whose slice was taken over may have made one whose files are gone.
    """
    if not store.exists(address):
        return False
    head = _usable_head(store, address)
    if head is None or head.run == run:
        return head is not None
    return not store.missing(file.staged for file in head.files)


def finished_units(store: Store, slice_: str, score: str) -> set[str]:
    """Returns the ids of all units that were ever finished in one way of scoring."""
    names = store.names(layout.ledger(slice_, score))
    return {match[1] for match in map(_RECORD.match, names) if match}


def read_heads(
    store: Store, slice_: str, score: str, units: Iterable[str]
) -> dict[str, UnitRecord]:
    """Returns units' records without their profiles; a damaged one is as if it were not there."""
    ids = sorted(units)
    paths = [layout.record(slice_, score, unit) for unit in ids]
    with ThreadPoolExecutor(_THREADS) as pool:
        heads = pool.map(lambda path: _usable_head(store, path), paths)
        pairs = zip(ids, heads, strict=True)
        return {unit: head for unit, head in pairs if head is not None and head.unit == unit}


def _usable_head(store: Store, address: str) -> UnitRecord | None:
    """Returns a record, or None if it is damaged; VersionError if a newer batchscore wrote it."""
    try:
        return read_head(store, address)
    except VersionError:
        raise
    except RecordError:
        return None


def read_head(store: Store, address: str) -> UnitRecord:
    """Returns one record without its profile; RecordError if it is damaged."""
    try:
        data = _read(store, address)
        return _unseal(data, read_record(data))
    except RecordError as error:
        raise _damaged(store, address, error) from error


def merge_records(
    store: Store, addresses: Sequence[str], profile: TableProfile
) -> dict[str, UnitRecord]:
    """Returns each unit's record, and merges their profiles into one; some are in memory at a time.

    Raises:
        RecordError: A record is damaged.
    """
    found: dict[str, UnitRecord] = {}
    paths = sorted(set(addresses))
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), _THREADS):
            some = paths[start : start + _THREADS]
            for path, data in zip(
                some, pool.map(lambda p: _read_or_explain(store, p), some), strict=True
            ):
                record, part = _decode(store, path, data)
                found[record.unit] = record
                _absorb(profile, part)
    return found


def _absorb(profile: TableProfile, part: TableProfile) -> None:
    """Merges a part that nobody else holds, so that the first need not be copied."""
    if profile.columns:
        profile.merge(part)
    else:
        profile.columns = part.columns


def _read_or_explain(store: Store, address: str) -> bytes:
    try:
        return _read(store, address)
    except RecordError as error:
        raise _damaged(store, address, error) from error


def _decode(store: Store, address: str, data: bytes) -> tuple[UnitRecord, TableProfile]:
    try:
        record, profile = decode_record(data)
        if posixpath.basename(address) != f"{record.unit}.parquet":
            raise RecordError(f"it belongs to unit {one_line(record.unit)}")
    except RecordError as error:
        raise _damaged(store, address, error) from error
    return record, profile


def _read(store: Store, address: str) -> bytes:
    try:
        return store.read(address, MOST_BYTES)
    except FileNotFoundError as error:
        raise RecordError("it does not exist") from error
    except IsADirectoryError as error:
        raise RecordError("a folder is in its place") from error
    except ValueError as error:
        raise RecordError(str(error)) from error


def _damaged(store: Store, address: str, error: RecordError) -> RecordError:
    if isinstance(error, VersionError):
        return VersionError(f"ledger {store.url(address)}: {error}")
    return RecordError(
        f"ledger {store.url(address)}: {error}; restore it from a copy, or remove it and run the "
        "job again: its unit is scored again"
    )


def sweep_attempts(store: Store, slice_: str) -> None:
    """Removes attempts of a slice that ended before their record was written, with their sidecars.

    Nobody else may be at work on the slice.
    """
    folder = layout.staging(slice_)
    for place in (folder, _home(slice_)):
        store.abort_uploads(place)
    staged = store.names(folder)
    if not staged:
        return
    ledgers = [f"{_home(slice_)}/{score}" for score in store.names(_home(slice_))]
    units = {attempt.partition("-")[0] for attempt in staged}
    paths = [f"{ledger}/{unit}.parquet" for ledger in ledgers for unit in sorted(units)]
    there = set(paths) - store.missing(paths)
    heads = {path: _usable_head(store, path) for path in there}
    recorded = {head.attempt for head in heads.values() if head is not None}
    # Whose record is damaged may be of a run that is held: its release does without the record.
    kept = {posixpath.basename(path)[:16] for path, head in heads.items() if head is None}
    orphaned = {each for each in staged if each.partition("-")[0] not in kept}
    for attempt in orphaned - recorded:
        for ledger in ledgers:
            for kind in ("rows", "keys"):
                store.remove(f"{ledger}/{attempt}.{kind}.parquet")
        # Last, since without it nobody would look for the sidecars any more.
        store.remove(f"{folder}/{attempt}")
    store.prune_empty([folder])


def sweep_records(store: Store, slice_: str, needed: set[tuple[str, str]]) -> None:
    """Removes a slice's records and staged attempts, but those that are needed.

    Args:
        needed: Score and attempt of each unit that is published, or may be again.
    """
    attempts = {attempt for _, attempt in needed}
    for score in store.names(_home(slice_)):
        ledger = f"{_home(slice_)}/{score}"
        kept = {attempt for name, attempt in needed if name[:16] == score[:16]}
        if not kept:
            store.remove(ledger)
            continue
        units = {attempt.partition("-")[0] for attempt in kept}
        for name in store.names(ledger):
            stem = name.partition(".")[0]
            if stem not in units | kept and not name.startswith(layout.GOLDEN):
                store.remove(f"{ledger}/{name}")
    for attempt in store.names(layout.staging(slice_)):
        if attempt not in attempts:
            store.remove(f"{layout.staging(slice_)}/{attempt}")
    store.prune_empty([layout.staging(slice_)])


def _home(slice_: str) -> str:
    return f"{layout.HOME}/ledger/{slice_}"
