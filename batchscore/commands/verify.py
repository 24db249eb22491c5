"""What is published, read again and compared with its manifests; writes nothing."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from batchscore.errors import InvalidError, OutputError, RecordError, RetryError
from batchscore.messages.wording import counted, counted_were, reason
from batchscore.runs import layout
from batchscore.runs.contents import find_damage
from batchscore.runs.history import published_manifest
from batchscore.runs.ledger import decode_record
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.manifest_units import published_records
from batchscore.runs.open_table import open_table
from batchscore.runs.profiles import ProfileFile, read_profile, run_profile
from batchscore.runs.publication import journal_paths, pending, pending_journal
from batchscore.runs.snapshot import CURRENT, MARKER, read_listing, snapshot
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store, open_filesystem
from batchscore.units.record import StagedFile, UnitRecord

_THREADS = 8
_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 16_384
_REMEDY = "restore it from a copy, or score the slice again with --rescore"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was published: of which kind, where, and what to do."""

    kind: str
    path: str
    detail: str


@dataclass(frozen=True)
class SliceVerified:
    """What is published of one slice.

    Args:
        slice: The job with its parameters.
        run: The run that published it; None where nobody can tell.
        finished: When that run ended, in UTC.
        published_at: When it was published: at its release if it was held, else when it ended.
        released_by: The person who released it; None if no check had held it.
        files: Files in its manifest.
        rows: Rows of these files.
        bytes: Bytes of these files.
        problems: Problems of this slice.
    """

    slice: str
    run: str | None
    finished: str | None
    published_at: str | None
    released_by: str | None
    files: int
    rows: int
    bytes: int
    problems: tuple[Damage, ...]

    @property
    def status(self) -> str:
        """`ok` or `failed`."""
        return "failed" if self.problems else "ok"


@dataclass(frozen=True)
class Verified:
    """Slices that were verified, and the problems of the folder that they share."""

    slices: tuple[SliceVerified, ...]
    shared: tuple[Damage, ...]

    @property
    def problems(self) -> list[Damage]:
        """All that was found, slice by slice."""
        return [*(problem for each in self.slices for problem in each.problems), *self.shared]

    @property
    def exit_code(self) -> int:
        """0, or 1 where something is wrong."""
        return 1 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-able values."""
        slices = [{**asdict(each), "status": each.status} for each in self.slices]
        for each in slices:
            del each["problems"]
        return {
            "status": "failed" if self.problems else "ok",
            "exit_code": self.exit_code,
            "slices": slices,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class _Opened:
    """A slice with what its manifest says, and the problems found on the way to it."""

    name: str
    manifest: Manifest | None
    records: tuple[UnitRecord, ...]
    problems: tuple[Damage, ...]

    @property
    def files(self) -> list[StagedFile]:
        return [file for record in self.records for file in record.files]


# What changes of a slice whenever it is published.
_STATE = (CURRENT, MARKER)
# What the ledger tells of a unit as the manifest does; its files were moved when published.
_SAME = ("attempt", "pieces", "read", "filtered", "scored", "rejected", "rows_file", "keys_file")

_Look = Callable[[], Iterator[Damage]]


def verify_output(store: Store, slice_: str | None) -> Verified:
    """Reads everything that is published, and what belongs to it, and compares it with manifests.

    If a slice's manifest is damaged, only that is reported; the other slices are verified.

    Args:
        store: The output.
        slice_: The slice to verify, or None for all.

    Raises:
        InvalidError: Nothing is published.
        RetryError: A slice was published while it was read.
    """
    before = _states(store)
    names = [slice_] if slice_ else sorted(before)
    with ThreadPoolExecutor(_THREADS) as pool:
        shared = list(_look_at_folder(store, sorted(before)))
        opened = [each for each in pool.map(partial(_open, store), names) if each is not None]
        looks = [(each.name, look) for each in opened for look in _looks(store, each)]
        found = defaultdict[str, list[Damage]](list)
        for (name, _), problems in zip(looks, pool.map(_run, looks), strict=True):
            found[name] += problems
    slices = tuple(_conclude(each, found[each.name]) for each in opened)
    verified = Verified(slices, tuple(shared))
    _require_something(store, slice_, verified)
    if verified.problems and _states(store) != before:
        raise RetryError(f"output {store.address}: changed while it was verified; verify again")
    return verified


def _run(look: tuple[str, _Look]) -> list[Damage]:
    return list(look[1]())


def _require_something(store: Store, slice_: str | None, verified: Verified) -> None:
    if not verified.slices and not verified.problems:
        what = f"slice {slice_!r} of {store.address}" if slice_ else store.address
        raise InvalidError(f"{what}: nothing is published yet; run the job first")


def _conclude(opened: _Opened, problems: Sequence[Damage]) -> SliceVerified:
    manifest = opened.manifest
    return SliceVerified(
        opened.name,
        manifest.run if manifest else None,
        manifest.finished if manifest else None,
        manifest.public_since if manifest else None,
        manifest.releaser if manifest else None,
        len(opened.files),
        sum(file.rows for file in opened.files),
        sum(file.bytes for file in opened.files),
        (*opened.problems, *problems),
    )


def _states(store: Store) -> dict[str, tuple[bytes | None, ...]]:
    """Returns what tells of each slice whether it was published again."""
    return {name: _state(store, name) for name in store.names(f"{layout.HOME}/slices")}


def _state(store: Store, name: str) -> tuple[bytes | None, ...]:
    paths = [*(layout.slice_file(name, file) for file in _STATE), *journal_paths(store, name)]
    return tuple(_read(store, path) for path in paths)


def _read(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None


def _open(store: Store, name: str) -> _Opened | None:
    """Reads a slice's manifest; None if nothing of it was ever published."""
    try:
        journal = pending_journal(store, name)
        manifest = published_manifest(store, name)
        if manifest is None:
            problems = _look_at_marker(store, name)
            return _Opened(name, None, (), problems) if problems else None
        records = tuple(published_records(manifest).values())
        _check_paths(store, records)
        problems = (
            *_look_at_snapshot(store, name, manifest),
            *_look_at_sums(manifest, records),
        )
    except (RecordError, ValueError, TypeError, KeyError, AttributeError) as error:
        detail = str(error) if isinstance(error, RecordError) else f"damaged ({error!r}); {_REMEDY}"
        return _Opened(name, None, (), (Damage("manifest", layout.slice_file(name, ""), detail),))
    if journal is not None:
        run = journal.publication.run
        detail = f"a publication of run {run} was interrupted; the next run finishes it"
        problems = (Damage("journal", journal.path, detail), *problems)
    return _Opened(name, manifest, records, problems)


def _check_paths(store: Store, records: Sequence[UnitRecord]) -> None:
    """Raises ValueError where a path leaves the output."""
    for record in records:
        for path in (record.rows_file, record.keys_file, record.rejects_file):
            store.path(path or "")
        for file in record.files:
            store.path(file.staged)


def _look_at_marker(store: Store, name: str) -> tuple[Damage, ...]:
    if not store.exists(layout.slice_file(name, CURRENT)):
        return ()
    detail = f"is missing, although a snapshot is published; {_REMEDY}"
    return (Damage("marker", layout.slice_file(name, MARKER), detail),)


def _look_at_snapshot(store: Store, name: str, manifest: Manifest) -> Iterator[Damage]:
    """Compares the published run's files with the snapshot."""
    run, path = manifest.run, layout.slice_file(name, CURRENT)
    listing = read_listing(store, name)
    listed = Counter([*listing.files, *listing.wrong])
    described = Counter(manifest.paths)
    for file in sorted((listed - described) + (described - listed)):
        detail = (
            f"lists {file!r} {counted(listed[file], 'time')}, and run {run} published it "
            f"{counted(described[file], 'time')}; write the manifest's files into it, one per "
            "line, or score again with --rescore"
        )
        yield Damage("snapshot", path, detail)


def _look_at_sums(manifest: Manifest, records: Sequence[UnitRecord]) -> Iterator[Damage]:
    """Adds up the files of each unit, and the units of the run."""
    rows, path = manifest.rows, layout.run_file(manifest.run, "manifest.json")
    went = rows.scored + rows.rejected + rows.filtered + rows.quarantined
    sums = [
        ("the files of all units", len(manifest.files), sum(len(r.files) for r in records)),
        ("the rows of all units' scores", rows.scored, sum(r.scored for r in records)),
        ("the rows of all units' rejects", rows.rejected, sum(r.rejected for r in records)),
        ("the rows that were scored, rejected, filtered and left out", rows.input, went),
        *(
            (f"the rows of the files of unit {r.unit}", r.scored, sum(f.rows for f in r.files))
            for r in records
        ),
    ]
    for what, stated, found in sums:
        if stated != found:
            detail = f"{what} add up to {found:,}, but the manifest counts {stated:,}; {_REMEDY}"
            yield Damage("sum", path, detail)


def _looks(store: Store, opened: _Opened) -> Iterator[_Look]:
    """Yields what there is to look at of a slice, a file each, to be done side by side."""
    manifest = opened.manifest
    if manifest is None:
        return
    for file in opened.files:
        yield partial(_look_at_file, store, file)
    for record in opened.records:
        address = layout.record(opened.name, manifest.score, record.unit)
        yield partial(_look_at_record, store, address, record)
        yield partial(_look_at_lineage, store, address, record)
        yield partial(_look_at_rejects, store, address, record)
        if record.keys_file is not None:
            yield partial(_look_at_table, store, "keys", record.keys_file, None)
        for kind, path, digest in _sidecars(record):
            yield partial(_look_at_digest, store, kind, path, digest)
    for name, facts in manifest.profile_files.items():
        path = layout.run_file(manifest.run, name)
        yield partial(_look_at_digest, store, "profile", path, Digest(facts.bytes, facts.sha256))
    yield partial(_look_at_profile, run_profile(store, manifest.run), manifest.profile_sha256)


def _sidecars(record: UnitRecord) -> Iterator[tuple[str, str, Digest]]:
    """Yields the kind, path and digest of each file that goes with a unit's scored ones.

    Records of earlier versions have no digests.
    """
    kinds = (("rejects", "rejects_file"), ("lineage", "rows_file"), ("keys", "keys_file"))
    for kind, name in kinds:
        path, digest = getattr(record, name), record.sidecars.get(name)
        if path is not None and digest is not None:
            yield kind, path, digest


def _look_at_digest(store: Store, kind: str, path: str, digest: Digest) -> Iterator[Damage]:
    """Compares the bytes of a file with their digest in the manifest."""
    damage = find_damage(store, {path: digest}, read=True)
    if damage:
        yield Damage(kind, path, f"{damage[path]}; {_REMEDY}")


def _look_at_file(store: Store, file: StagedFile) -> Iterator[Damage]:
    """Compares a published file's bytes, hash and rows with the manifest."""
    try:
        digest = store.digest(file.staged)
    except FileNotFoundError:
        detail = f"{counted_were(file.rows, 'row')} published in it, and it is missing; {_REMEDY}"
        yield Damage("missing", file.staged, detail)
        return
    except OSError as error:
        yield Damage("unreadable", file.staged, f"cannot be read ({reason(error)}); try again")
        return
    if digest.bytes != file.bytes:
        detail = (
            f"has {counted(digest.bytes, 'byte')}, but {file.bytes:,} were published; {_REMEDY}"
        )
        yield Damage("size", file.staged, detail)
    elif digest.sha256 != file.sha256:
        detail = f"its SHA-256 is {digest.sha256}, but {file.sha256} was published; {_REMEDY}"
        yield Damage("sha256", file.staged, detail)
    yield from _look_at_table(store, "rows", file.staged, file.rows)


def _look_at_table(store: Store, kind: str, path: str, rows: int | None) -> Iterator[Damage]:
    """Reads every page of a Parquet file, and counts its rows where a number is expected."""
    try:
        with open_table(store, path) as file:
            promised, found = file.metadata.num_rows, 0
            for batch in _batches(file):
                found += batch.num_rows
    except RecordError as error:
        yield Damage("damaged" if kind == "rows" else kind, path, str(error))
        return
    expected = promised if rows is None else rows
    if (promised, found) != (expected, expected):
        detail = (
            f"its footer counts {counted(promised, 'row')}, {found:,} can be read, and "
            f"{expected:,} were written; {_REMEDY}"
        )
        yield Damage(kind, path, detail)


def _batches(file: Any, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yields a file's rows, one row group after the other, and releases each one's buffers."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, [group], columns, use_threads=False)


def _look_at_record(store: Store, path: str, record: UnitRecord) -> Iterator[Damage]:
    """Compares a unit's record in the ledger with what was published of the unit."""
    remedy = "without it the next run scores the unit again"
    try:
        kept, _ = decode_record(store.read(path))
    except FileNotFoundError:
        yield Damage("record", path, f"no such file; {remedy}")
        return
    except (RecordError, OSError) as error:
        yield Damage("record", path, f"damaged ({reason(error)}); {remedy}")
        return
    for name in _SAME:
        is_, was = getattr(kept, name), getattr(record, name)
        if is_ != was:
            detail = f"its {name} is {is_!r}, but {was!r} was published; remove it: {remedy}"
            yield Damage("record", path, detail)


def _look_at_lineage(store: Store, address: str, record: UnitRecord) -> Iterator[Damage]:
    """Counts the rows of each published file that the rows file leads back to the source."""
    path, counts = record.rows_file, Counter[int]()
    if path is None:
        if record.scored:
            rows = counted(record.scored, "row")
            yield Damage("lineage", address, f"no rows file for {rows}; {_REMEDY}")
        return
    try:
        with open_table(store, path) as file:
            for batch in _batches(file, ["file", "row"]):
                for each in batch.column("file").value_counts().to_pylist():
                    counts[each["values"]] += each["counts"]
    except RecordError as error:
        yield Damage("lineage", path, str(error))
        return
    if sorted(counts.values()) != sorted(file.rows for file in record.files):
        detail = (
            f"lists {counted(counts.total(), 'row')} of {counted(len(counts), 'file')}, but "
            f"{record.scored:,} of {len(record.files)} were published; {_REMEDY}"
        )
        yield Damage("lineage", path, detail)


def _look_at_rejects(store: Store, address: str, record: UnitRecord) -> Iterator[Damage]:
    """Reads a unit's rejected rows."""
    if record.rejects_file is not None:
        yield from _look_at_table(store, "rejects", record.rejects_file, record.rejected)
    elif record.rejected:
        yield Damage(
            "rejects", address, f"no file for {counted(record.rejected, 'row')}; {_REMEDY}"
        )


def _look_at_profile(file: ProfileFile, sha256: str | None) -> Iterator[Damage]:
    try:
        read_profile(file, sha256)
    except RecordError as error:
        yield Damage("profile", file.name, f"{error}; {_REMEDY}")


def _look_at_folder(store: Store, names: Sequence[str]) -> Iterator[Damage]:
    """Finds a format that is not known, files that no slice published, and those that two did."""
    try:
        layout.check_output(store)
    except OutputError as error:
        yield Damage("format", layout.FORMAT, str(error))
    owners, known = defaultdict[str, list[str]](list), set[str]()
    standing = _list_data(store)
    for name in names:
        for path in set(_snapshot(store, name)):
            owners[path].append(name)
        known |= _under_way(store, name)
    for path in sorted(standing - set(owners) - known):
        detail = "no slice published it, and a reader of the folder may read it; move it elsewhere"
        yield Damage("stranger", path, detail)
    for path, found in sorted(owners.items()):
        if len(found) > 1:
            detail = f"is published by slices {', '.join(found)}; score all but one with --rescore"
            yield Damage("shared", path, detail)


def _list_data(store: Store) -> set[str]:
    """Returns all files under `data/`, hidden and unfinished ones among them."""
    filesystem, root = open_filesystem(store.address)[0], store.path("")
    found = filesystem.find(store.path(layout.DATA))
    return {posixpath.relpath(str(path), root) for path in found}


def _snapshot(store: Store, name: str) -> list[str]:
    try:
        return snapshot(store, name)
    except RecordError:  # which is reported where the slice is opened
        return []


def _under_way(store: Store, name: str) -> set[str]:
    """Returns the files that an interrupted publish has moved, or will."""
    try:
        publication = pending(store, name)
    except RecordError:  # which is reported where the slice is opened
        return set()
    if publication is None:
        return set()
    targets = (target for _, target in publication.moves)
    return {*targets, *publication.retire, *publication.files}
