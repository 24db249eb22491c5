"""What is put in order under a slice's lease: interrupted publishes, killed runs, old files."""

from __future__ import annotations

import posixpath
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from batchscore.errors import InvalidError, RecordError, VersionError
from batchscore.finish.finish import failed_manifest
from batchscore.messages.wording import counted_were
from batchscore.runs import layout
from batchscore.runs.heal import heal
from batchscore.runs.history import published_manifest, read_history, read_manifest, reading
from batchscore.runs.holder import holder
from batchscore.runs.ledger import finished_units, sweep_attempts, sweep_records
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.order import is_ahead
from batchscore.runs.progress import read_stop
from batchscore.runs.publish import Held, roll_forward
from batchscore.runs.run_plan import RunPlan, read_plan
from batchscore.runs.shipped import sweep_shipped
from batchscore.runs.worker_logs import remove_logs
from batchscore.storage.store import Store

_PROBE_SECONDS = 24 * 3600.0
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def repair(store: Store, slice_: str, held: Held) -> None:
    """Finishes what a crash interrupted: a publication, runs without an end, orphaned attempts.

    Args:
        store: The output.
        slice_: The slice, whose lease the caller holds.
        held: Tells whether the caller still holds it.
    """
    roll_forward(store, slice_, held)
    heal(store, slice_)
    for run in store.names(f"{layout.HOME}/work"):
        close_killed(store, slice_, run)
    sweep_attempts(store, slice_)
    for folder in (
        "",
        f"slices/{slice_}",
        f"slices/{slice_}/lease",
        f"slices/{slice_}/segments",
        f"ledger/{slice_}/*",
        "runs/*",
    ):
        store.sweep_unfinished(posixpath.join(layout.HOME, folder))


def close_killed(store: Store, slice_: str, run: str) -> None:
    """Writes the manifest of a slice's run that left none, and removes what it worked with.

    A folder that does not tell its slice may be of a run that is just starting: it is left alone
    as long as a live lease of any slice names its run.
    """
    plan = None
    try:
        plan = read_plan(store, run)
        theirs = plan.slice != slice_
    except FileNotFoundError:
        theirs = _is_live(store, run)
    except VersionError:  # a newer batchscore closes its own
        return
    except RecordError:
        plan, theirs = None, _is_live(store, run)
    if theirs:
        return
    if plan is not None and not store.exists(layout.run_file(run, "manifest.json")):
        with suppress(*_UNREADABLE):  # of a damaged plan there is nothing to tell
            _write_killed(store, slice_, run, plan)
    store.remove(layout.work(run))


def _is_live(store: Store, run: str) -> bool:
    """Tells whether a run holds its slice; it took the lease before it wrote anything else."""
    try:
        holders = [holder(store, name) for name in store.names(f"{layout.HOME}/slices")]
    except RecordError:  # a lease that cannot be read may name it
        return True
    return any(each is not None and each.run == run for each in holders)


def _write_killed(store: Store, slice_: str, run: str, plan: RunPlan) -> None:
    kept = len(finished_units(store, slice_, plan.score) & set(plan.units.keys()))
    finished = f"{counted_were(kept, 'unit')} finished and kept"
    ended = _last_sign(store, run, datetime.fromisoformat(plan.started))
    asked = read_stop(store, run)
    if asked is None:
        message = f"killed, or lost with its machine; {finished}"
        manifest = failed_manifest(run, plan, "failed", message, ended)
    else:
        message = f"cancelled by {asked.by}; nothing was published; {finished}"
        manifest = failed_manifest(run, plan, "interrupted", message, ended)
        facts = {"by": asked.by, "at": manifest.finished, "exit_code": 128 + signal.SIGTERM}
        manifest = manifest.updated(stopped=facts)
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)


def _last_sign(store: Store, run: str, started: datetime) -> datetime:
    """Returns when a killed run last wrote what it works with; its end left no record.

    Workers write their counts about once a second. The store's clock may differ from that of the
    run, which cannot have ended before it started, or later than now.
    """
    progress = layout.progress(run)
    paths = [layout.plan_file(run), *(f"{progress}/{name}" for name in store.names(progress))]
    signs = [sign for path in paths if (sign := store.written(path)) is not None]
    now = datetime.now(timezone.utc)
    last = datetime.fromtimestamp(max(signs), timezone.utc) if signs else now
    return max(started, min(last, now))


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
