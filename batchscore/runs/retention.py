"""Which replaced files, records and shipped objects of a slice nobody can need any more."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from batchscore.errors import InvalidError
from batchscore.runs import layout
from batchscore.runs.history import published_manifest, read_history, read_manifest, reading
from batchscore.runs.ledger import sweep_records
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.order import is_ahead
from batchscore.runs.shipped import sweep_shipped
from batchscore.runs.worker_logs import remove_logs
from batchscore.storage.store import Store

_PROBE_SECONDS = 24 * 3600.0


def purge(store: Store, slice_: str, days: int) -> None:
    """Removes a slice's retired files past retention, and what nothing can need again.

    That is records of units, and code and models that no run ships any more.

    Raises:
        RecordError: A manifest of a run that retired files cannot be read. Nothing was removed.
    """
    instant = datetime.now(timezone.utc) - timedelta(days=days)
    before = instant.isoformat(timespec="milliseconds")
    inside = {f"{layout.HOME}/{name}" for name in store.names(layout.HOME)}
    runs = store.names(layout.RETIRED) if layout.RETIRED in inside else []
    found = [each for run in runs if (each := _manifest_of(store, run, slice_)) is not None]
    expired = [each.run for each in found if _replaced_at(store, slice_, each) < before]
    bases = [each.base for each in found if each.base and each.run not in expired]
    kept = [_manifest_of(store, base, slice_) for base in bases]
    needed = [_units(store, each) for each in (published_manifest(store, slice_), *kept)]
    for run in expired:
        store.remove(f"{layout.HOME}/retired/{run}")
    if None not in kept:  # else which records a run needs is unknown, and all are kept
        sweep_records(store, slice_, set().union(*needed))
    sweep_probes(store, inside)
    if layout.LOGS in inside:
        remove_logs(store, slice_, days)
    if inside & {layout.CODE, layout.MODELS}:
        sweep_shipped(store, slice_, instant.timestamp())


def sweep_probes(store: Store, inside: Iterable[str]) -> None:
    """Removes what checks that were killed left behind a day ago, of what is in the home folder."""
    for path in inside:
        if posixpath.basename(path).startswith(layout.PROBE):
            files = store.walk(path)
            written = [sign for file in files if (sign := store.written(file)) is not None]
            if written and max(written) < time.time() - _PROBE_SECONDS:
                store.remove(path)


def _replaced_at(store: Store, slice_: str, manifest: Manifest) -> str:
    """Returns when a run retired files: where its clock was ahead, when a later one was published.

    A base that was published later shows that the run's clock was behind.
    """
    at = str(manifest.public_since)
    base = _manifest_of(store, str(manifest.base), slice_)
    if not is_ahead(at):
        earlier = str(base.public_since or "") if base else ""
        return at if is_ahead(earlier) else max(at, earlier)
    runs = read_history(store, slice_)
    later = runs[: [run.run for run in runs].index(manifest.run)]
    ended = [run for run in reversed(later) if isinstance(run, Manifest) and run.status != "held"]
    known = [str(run.public_since) for run in ended]
    return next((each for each in known if not is_ahead(each)), at)


def _manifest_of(store: Store, run: str, slice_: str) -> Manifest | None:
    """Returns a run's manifest; None where it left none, or is of another slice."""
    try:
        manifest = read_manifest(store, run)
    except InvalidError:
        return None
    return manifest if manifest.slice == slice_ else None


def _units(store: Store, manifest: Manifest | None) -> set[tuple[str, str]]:
    """Returns score and attempt of each unit of a manifest.

    Raises:
        RecordError: It does not tell its units, so that no record may be removed.
    """
    if manifest is None:
        return set()
    with reading(store, manifest.run):
        manifest.require("score", "units")
        return {(manifest.score, attempt) for attempt in manifest.attempts.values()}
