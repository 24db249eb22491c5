"""What a person decides about runs: a held one is released or discarded, a published one undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from batchscore.commands.tidy import repair
from batchscore.commands.unwatched import take
from batchscore.commands.unwritable import writable
from batchscore.drift.table import TableProfile
from batchscore.errors import (
    BatchscoreError,
    FailedError,
    InvalidError,
    LeaseError,
    RecordError,
)
from batchscore.finish.finish import HELD, summarize_rejects
from batchscore.messages.wording import counted, of_count, reason
from batchscore.phases import Stopwatch, times
from batchscore.plan.fingerprint import fingerprint
from batchscore.runs import layout
from batchscore.runs.actor import actor
from batchscore.runs.contents import describe, files_of, find_damage, published_with, sidecars_of
from batchscore.runs.history import published_manifest, read_manifest, read_raw, reading
from batchscore.runs.lease import lost
from batchscore.runs.ledger import merge_records
from batchscore.runs.manifest_model import Manifest, build_manifest, decode_manifest
from batchscore.runs.manifest_parts import UnitEntry
from batchscore.runs.manifest_units import encode_units, published_records
from batchscore.runs.profiles import save_profile
from batchscore.runs.publication import Publication, pending
from batchscore.runs.publish import Held, publish
from batchscore.runs.reconcile import Rows
from batchscore.runs.revoked import (
    Revocation,
    encode_revocations,
    lifted,
    revocations,
    revoked_path,
)
from batchscore.runs.segments import compact
from batchscore.runs.snapshot import published_run, read_listing, snapshot
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord


@contextmanager
def _held_slice(
    store: Store, run: str, slice_: str | None, command: str
) -> Iterator[tuple[Manifest, Held]]:
    """Takes the lease of a run's slice, and puts the slice in order.

    Yields the run's manifest, and what tells whether the lease is still held.
    """
    manifest = read_manifest(store, run)
    found = manifest.slice
    if slice_ is not None and slice_ != found:
        raise InvalidError(
            f"run {run!r}: belongs to slice {found!r}, not to {slice_!r}; name the "
            "slice that it belongs to"
        )
    with writable(store), take(store, found, command) as lease:
        try:
            repair(store, found, lease.is_held)
            yield read_manifest(store, run), lease.is_held
        except LeaseError:
            raise
        except (BatchscoreError, OSError) as error:
            if lease.is_held():
                raise
            raise lost(found, run, published=False) from error


def _decision(reason: str | None) -> dict[str, str]:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return {"by": actor(), "at": now, "reason": reason or ""}


def release(store: Store, run: str, slice_: str | None, reason: str) -> Manifest:
    """Publishes a held run as it was scored, and records who decided so and why.

    Raises:
        InvalidError: The run is not held, was held before it scored, or what is published has
            changed since it was scored.
        FailedError: Files of the run do not hold what was written into them.
        RetryError: Another run holds the slice.
    """
    started = _is_started(store, run)
    with _held_slice(store, run, slice_, f"release {run}") as (manifest, held):
        if started and manifest.released:
            # A release that was killed is finished by now, and its decision counts.
            return manifest
        publication = _held_publication(store, manifest)
        _check_current(store, manifest, publication)
        publication = _released(store, manifest, publication, _decision(reason))
        publish(store, manifest.slice, publication, held, known=True)
        return read_manifest(store, run)


def _is_started(store: Store, run: str) -> bool:
    """Tells whether the publication of a run was started and not finished."""
    found = pending(store, read_manifest(store, run).slice)
    return found is not None and found.run == run


def _released(
    store: Store, manifest: Manifest, held: Publication, decision: dict[str, str]
) -> Publication:
    """Returns how a held run is published."""
    # What was published and taken back since the run was held left the same files.
    base = published_run(store, manifest.slice)
    checks = [asdict(check) for check in manifest.checks or ()]
    made = held.manifest.updated(base=base, checks=checks, released=decision)
    documents = {**dict(held.documents), _path(manifest): made.document}
    return replace(
        held,
        base=base,
        documents=tuple(documents.items()),
        leftovers=(layout.run_file(manifest.run, HELD),),
    )


def _held_publication(store: Store, manifest: Manifest) -> Publication:
    run, path = manifest.run, layout.run_file(manifest.run, HELD)
    if manifest.status != "held":
        raise InvalidError(
            f"run {run!r}: is {manifest.status}, and only a held run can be released or discarded"
        )
    try:
        publication = Publication.from_json(store.read_json(path))
        decode_manifest(dict(publication.documents)[_path(manifest)], run)
        _ = publication.contents
        for place in publication.places:
            store.path(place)
        return publication
    except FileNotFoundError as error:
        if manifest.units is not None:
            raise InvalidError(
                f"run {run!r}: its discard was started and not finished; discard it again"
            ) from error
        raise InvalidError(
            f"run {run!r}: was held before it scored anything, so there is nothing to publish; "
            "run the job again with the choice that its checks name"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"{store.url(path)}: damaged ({reason(error)}); run the job again: finished units are "
            "kept"
        ) from error


def _check_current(store: Store, manifest: Manifest, publication: Publication) -> None:
    run, slice_ = manifest.run, manifest.slice
    if not read_listing(store, slice_).lists(publication.before):
        raise InvalidError(
            f"run {run!r}: slice {slice_!r} was published by another run since it was held; run "
            "the job again"
        )
    staged = {source for source, _ in publication.moves}
    gone = store.missing(staged)
    if gone:
        are = of_count(len(gone), "is", "are")
        raise InvalidError(
            f"run {run!r}: {len(gone)} of its {counted(len(staged), 'scored file')} {are} missing "
            f"({sorted(gone)[0]}): a later run took them, or they were removed; run the job again"
        )
    targets = {source: publication.contents.get(target) for source, target in publication.moves}
    rest = published_with(store, publication.manifest, [target for _, target in publication.moves])
    damage = find_damage(store, {**targets, **rest}, read=True)
    if damage:
        raise FailedError(
            f"run {run!r}: {describe(damage)}; nothing was published. Run the job again: it "
            "scores damaged units again, and judges the result"
        )


def discard(store: Store, run: str, slice_: str | None, reason: str | None) -> Manifest:
    """Drops a held run and what it scored; the next run scores it again.

    Raises:
        InvalidError: The run is not held.
        RetryError: Another run holds the slice.
    """
    with _held_slice(store, run, slice_, f"discard {run}") as (manifest, _):
        if manifest.status != "held":
            raise InvalidError(
                f"run {run!r}: is {manifest.status}, and only a held run can be discarded"
            )
        published = published_manifest(store, manifest.slice)
        kept = published.attempts if published else {}
        with reading(store, run):
            units = manifest.read_units()
        for unit in units:
            if unit.unit not in kept and not _was_published(store, manifest, unit):
                _drop(store, manifest, unit)
        store.prune_empty([layout.staging(manifest.slice)])
        store.remove(layout.run_file(run, HELD))
        # Last: until all is dropped the run can be discarded again.
        decision = {"status": "discarded", "discarded": _decision(reason)}
        store.write_json(_path(manifest), read_raw(store, run).updated(**decision).document)
        return manifest.updated(**decision)


def _was_published(store: Store, manifest: Manifest, unit: UnitEntry) -> bool:
    """Tells a unit that an earlier run published, which may be needed to undo what replaced it."""
    slice_ = manifest.slice
    staged = store.exists(f"{layout.staging(slice_)}/{unit.attempt}")
    return not staged and store.exists(layout.record(slice_, manifest.score, unit.unit))


def _drop(store: Store, manifest: Manifest, unit: UnitEntry) -> None:
    slice_, score = manifest.slice, manifest.score
    # The record first: without it, whatever a crash leaves of the attempt is nobody's.
    store.remove(layout.record(slice_, score, unit.unit))
    store.remove(f"{layout.staging(slice_)}/{unit.attempt}")
    for path in (unit.rows_file, unit.keys_file, unit.rejects_file):
        if path is not None:
            store.remove(path)


@dataclass(frozen=True)
class _Undoing:
    """What is published once a run is taken back.

    Args:
        manifest: Manifest of the run.
        current: Manifest of what is published.
        like: Manifest of the run that what is published was scored as.
        records: Units that are published.
        back: Files that come back: from where, and to where.
        gone: Published files that are removed.
    """

    manifest: Manifest
    current: Manifest
    like: Manifest
    records: tuple[UnitRecord, ...]
    back: tuple[tuple[str, str], ...]
    gone: tuple[str, ...]


def undo(
    store: Store,
    run: str,
    slice_: str | None,
    reason: str | None,
    clock: Stopwatch | None = None,
) -> Manifest:
    """Takes back one run of a slice: what it added goes, what it replaced comes back.

    What later runs published in addition stays. The run is marked revoked, and a run that would
    publish the same again is held. Undoing the undo brings all of it back. The times of the new
    manifest are those of this command up to its publication.

    Raises:
        InvalidError: The run did not publish, was taken back before, or a later run built on it.
        RetryError: Another run holds the slice.
    """
    clock = clock or Stopwatch()
    with _held_slice(store, run, slice_, f"rollback --undo {run}") as (manifest, held):
        undoing = _find_undoing(store, manifest)
        name = layout.new_run_id(store)
        decision = _decision(reason)
        profile = TableProfile.empty()
        score = undoing.like.score
        places = [layout.record(manifest.slice, score, r.unit) for r in undoing.records]
        merge_records(store, places, profile)
        profiles = save_profile(store, name, profile)
        facts = _rollback_facts(name, undoing, decision, profile)
        made = build_manifest(**facts, **profiles, **times(clock.started_at()))
        planned = _rollback(store, undoing, made, decision)
        publish(store, manifest.slice, planned, held, known=True)
        return made


def _find_undoing(store: Store, manifest: Manifest) -> _Undoing:
    run, status = manifest.run, manifest.status
    current = published_manifest(store, manifest.slice)
    if status not in ("published", "empty") or current is None:
        raise InvalidError(f"run {run!r}: is {status}, and only a published run can be taken back")
    base = read_manifest(store, manifest.base) if manifest.base else None
    before, after, now = (_by_attempt(m) for m in (base, manifest, current))
    added, removed = set(after) - set(before), set(before) - set(after)
    if not added <= set(now) or removed & set(now):
        raise _built_upon(run, current, "replaced what it published")
    others = {unit: record for unit, record in now.items() if unit not in added}
    returned = {unit: before[unit] for unit in removed}
    like = base if base is not None and (removed or not others) else current
    if removed and others and like.score != current.score:
        raise _built_upon(run, current, "published more rows with the same model and job")
    records = tuple(sorted((others | returned).values(), key=lambda record: record.unit))
    if _overlap(records):
        raise _built_upon(run, current, "published rows of the same shards")
    return _Undoing(
        manifest,
        current,
        like,
        records,
        _returning(store, run, tuple(returned.values())),
        tuple(sorted(file.staged for unit in added for file in after[unit].files)),
    )


def _by_attempt(manifest: Manifest | None) -> dict[str, UnitRecord]:
    """Returns a manifest's units; one scored again may have an old name, an attempt never does."""
    records = published_records(manifest).values() if manifest else ()
    return {record.attempt: record for record in records}


def _built_upon(run: str, current: Manifest, how: str) -> InvalidError:
    last = current.run
    return InvalidError(f"run {run!r}: a later run {how}; take back run {last!r} first")


def _overlap(records: Sequence[UnitRecord]) -> bool:
    groups = [(p.shard.path, group) for r in records for p in r.pieces for group in p.row_groups]
    return len(set(groups)) < len(groups)


def _returning(
    store: Store, run: str, records: Sequence[UnitRecord]
) -> tuple[tuple[str, str], ...]:
    """Returns from where the files of units come back: one undone and redone was retired again."""
    files = sorted(file.staged for record in records for file in record.files)
    runs = [run, *(name for name in store.names(f"{layout.HOME}/retired") if name != run)]
    found: dict[str, str] = {}
    for name in runs:
        places = {layout.retired(name, path): path for path in files if path not in found}
        found |= {places[place]: place for place in set(places) - store.missing(places)}
    gone = [path for path in files if path not in found]
    if gone:
        are = of_count(len(gone), "is", "are")
        raise InvalidError(
            f"run {run!r}: {len(gone)} of the files that it replaced {are} gone ({gone[0]}); "
            "replaced files are kept for output.retention_days only. Score with the former model "
            "or input instead"
        )
    back = tuple((found[path], path) for path in files)
    _check_returning(store, run, records, back)
    return back


def _check_returning(
    store: Store,
    run: str,
    records: Sequence[UnitRecord],
    back: Sequence[tuple[str, str]],
) -> None:
    """Raises InvalidError where what would come back is not what was published."""
    sidecars = [sidecars_of(store, record) for record in records]
    expected = {path: digest for each in sidecars for path, digest in each.items()}
    published = {path: digest for r in records for path, digest in files_of(r).items()}
    damage = find_damage(store, expected | {at: published[path] for at, path in back}, read=True)
    if damage:
        raise InvalidError(
            f"run {run!r}: {describe(damage)}, and a rollback would bring it back; restore it "
            "from a copy, or score with the former model or input instead"
        )


# What tells how the units of a manifest were scored.
_SCORED_AS = (
    *("job", "slice", "params", "engine", "device", "workers"),
    *("batch_rows", "tile_rows", "job_sha256", "score", "score_facts", "model", "packages"),
)


def _rollback_facts(
    name: str, undoing: _Undoing, decision: dict[str, str], profile: TableProfile
) -> dict[str, Any]:
    """Returns what the manifest of a rollback says of what remains published."""
    like, records = undoing.like, undoing.records
    units, files, shards = encode_units(records, name)
    pieces = [piece for record in records for piece in record.pieces]
    rows = _rows(records)
    return {
        **{key: like.document[key] for key in _SCORED_AS},
        "run": name,
        "actor": decision["by"],
        "status": "published" if rows.scored else "empty",
        "fingerprint": fingerprint(like.score, pieces, ()),
        "undoes": undoing.manifest.run,
        "rollback": decision,
        "base": undoing.current.run,
        "rows": asdict(rows),
        "columns": [list(c) for c in next((r.columns for r in records if r.scored), ())],
        "files": files,
        "replaced": list(undoing.gone),
        "rejects": summarize_rejects(records),
        "bad_shards": [asdict(bad) for record in records for bad in record.bad_shards],
        "checks": [],
        "profile": profile.summary(),
        "stage_seconds": {},
        "limited_by": None,
        "reused_units": len(units),
        "units": units,
        "shards": shards,
        "inputs": sorted(shards, key=lambda shard: str(shard["path"])),
    }


def _rows(records: Sequence[UnitRecord]) -> Rows:
    planned = sum(record.planned for record in records)
    return Rows(
        planned,
        sum(record.filtered for record in records),
        sum(record.scored for record in records),
        sum(record.rejected for record in records),
        sum(bad.rows for record in records for bad in record.bad_shards),
        planned,
    )


def _rollback(
    store: Store, undoing: _Undoing, made: Manifest, decision: dict[str, str]
) -> Publication:
    slice_, base = undoing.manifest.slice, undoing.current.run
    documents: list[tuple[str, Any]] = [
        (_path(made), compact(store, made, read_raw(store, base)).document)
    ]
    revoked = {each.run: each for each in revocations(store, slice_)}
    is_published, each = False, read_raw(store, undoing.manifest.run)
    while True:
        turned = _turned(each, is_published, {**decision, "run": made.run})
        documents.append((_path(each), turned.document))
        if each.run in revoked:
            revoked[each.run] = lifted(revoked[each.run])
        if not each.undoes:
            break
        # To undo an undo is to keep what it took back, and so on down.
        is_published, each = not is_published, read_raw(store, each.undoes)
    if not is_published:
        revoked[each.run] = _revocation(store, read_manifest(store, each.run), decision)
    return Publication(
        run=made.run,
        base=base,
        before=tuple(snapshot(store, slice_)),
        files=tuple(sorted(made.paths)),
        moves=undoing.back,
        retire=undoing.gone,
        documents=(*documents, (revoked_path(slice_), encode_revocations([*revoked.values()]))),
    )


def _turned(manifest: Manifest, is_published: bool, decision: dict[str, str]) -> Manifest:
    """Returns the manifest of a run that is published again, or is taken back.

    Who decided so stays in both, so that a manifest never has the same bytes twice.
    """
    if not is_published:
        return manifest.updated(status="revoked", revoked=decision)
    status = "published" if manifest.rows.scored else "empty"
    return manifest.without("revoked").updated(status=status, restored=decision)


def _revocation(store: Store, manifest: Manifest, decision: Mapping[str, str]) -> Revocation:
    """Returns what is not to be published again by itself: the shards that the run scored so."""
    base = read_manifest(store, manifest.base) if manifest.base else None
    before = _by_attempt(base)
    added = [r for attempt, r in _by_attempt(manifest).items() if attempt not in before]
    shards = {(p.shard.path, p.shard.size, p.shard.mark) for r in added for p in r.pieces}
    return Revocation(manifest.run, manifest.score, tuple(sorted(shards)), **decision)


def _path(manifest: Manifest) -> str:
    return layout.run_file(manifest.run, "manifest.json")
