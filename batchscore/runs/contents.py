"""Whether files still hold what was written into them: by their size, then by their SHA-256."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from batchscore.messages.wording import counted
from batchscore.runs import layout
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_units import published_records
from batchscore.runs.segments import inline
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store, StoredFile
from batchscore.units.record import UnitRecord

_THREADS = 8
_GONE = "is gone"

Expected = Mapping[str, Digest | None]
"""What files hold, by path; None where a record of an earlier version does not tell."""


def find_damage(
    store: Store,
    expected: Expected,
    read: bool,
    moved: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Returns what is wrong with each file that does not hold what was written, by path.

    Args:
        store: The output.
        expected: What the files hold.
        read: Reads the files and compares their SHA-256; without, compares their size alone.
        moved: Where a file goes that another process may be moving, by path.
    """
    damage = _look(store, expected, read)
    gone = {path for path, wrong in damage.items() if wrong == _GONE and path in moved}
    there = _look(store, {moved[path]: expected[path] for path in gone}, read)
    return {path: wrong for path, wrong in damage.items() if path not in gone} | {
        path: there[moved[path]] for path in gone if moved[path] in there
    }


def _look(store: Store, expected: Expected, read: bool) -> dict[str, str]:
    found = store.find(expected)
    sized = {path: _size_damage(found.get(path), digest) for path, digest in expected.items()}
    damage = {path: wrong for path, wrong in sized.items() if wrong is not None}
    left = [(p, d) for p, d in expected.items() if read and d is not None and p not in damage]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = pool.map(lambda each: _hash_damage(store, *each), left)
        wrongs = zip(left, hashed, strict=True)
        return damage | {path: wrong for (path, _), wrong in wrongs if wrong is not None}


def _size_damage(found: StoredFile | None, digest: Digest | None) -> str | None:
    if found is None:
        return _GONE
    if digest is not None and found.bytes != digest.bytes:
        return f"has {counted(found.bytes, 'byte')}, and {digest.bytes:,} were written"
    return "is empty" if not found.bytes else None


def _hash_damage(store: Store, path: str, digest: Digest) -> str | None:
    try:
        found = store.digest(path)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return f"cannot be read ({error})"
    if found == digest:
        return None
    return f"has other bytes than were written (SHA-256 {found.sha256[:12]}…)"


def sidecars_of(store: Store, record: UnitRecord) -> dict[str, Digest | None]:
    """Returns what the rejects, rows and keys files of a unit hold, by where they are now."""
    paths = {name: getattr(record, name) for name in ("rejects_file", "rows_file", "keys_file")}
    rejects = paths["rejects_file"]
    if rejects is not None and not store.exists(rejects):
        # The run that scored the unit moved them before it published, or did not.
        paths["rejects_file"] = layout.rejects(record.run, record.unit)
    return {path: record.sidecars.get(name) for name, path in paths.items() if path is not None}


def settled_rejects(records: Iterable[UnitRecord]) -> dict[str, str]:
    """Returns where the rejected rows of units go before they are published, by path."""
    return {r.rejects_file: layout.rejects(r.run, r.unit) for r in records if r.rejects_file}


def published_with(store: Store, manifest: Manifest, moved: Collection[str]) -> Expected:
    """Returns what sidecars and profiles hold that are published with files, by path.

    Args:
        store: The output.
        manifest: Manifest of the run that publishes.
        moved: The final paths of the files that it moves. Units that have others were published
            before, and what belongs to them is not looked at again.
    """
    added = inline(manifest)
    records = published_records(added).values() if added.units is not None else ()
    mine = [r for r in records if not r.files or {f.staged for f in r.files} & {*moved}]
    expected = {path: d for record in mine for path, d in sidecars_of(store, record).items()}
    for name, digest in manifest.profile_files.items():
        expected[layout.run_file(manifest.run, name)] = Digest(digest.bytes, digest.sha256)
    return expected


def files_of(record: UnitRecord) -> dict[str, Digest | None]:
    """Returns what the scored files of a unit hold, by path."""
    return {file.staged: Digest(file.bytes, file.sha256) for file in record.files}


def describe(damage: Mapping[str, str]) -> str:
    """Says of damaged files how many there are, and what is wrong with the first by name."""
    path = min(damage)
    more = f", and {len(damage) - 1:,} more" if len(damage) > 1 else ""
    return f"{path} {damage[path]}{more}"
