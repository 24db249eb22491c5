"""What is put in order under a slice's lease: interrupted publishes, killed runs, old files."""

from __future__ import annotations

import posixpath
import signal
from contextlib import suppress
from datetime import datetime, timezone

from batchscore.errors import BatchscoreError, RecordError, StoppedError, VersionError
from batchscore.finish.finish import failed_manifest
from batchscore.messages.wording import counted_were
from batchscore.runs import layout
from batchscore.runs.failures import read_failure
from batchscore.runs.heal import heal
from batchscore.runs.history import read_raw
from batchscore.runs.holder import holder
from batchscore.runs.ledger import finished_units, sweep_attempts
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import read_stop
from batchscore.runs.publish import Held, roll_forward
from batchscore.runs.retention import purge
from batchscore.runs.run_plan import RunPlan, read_plan
from batchscore.storage.store import Store, encode_json

_AGAIN = "Run the job again, which scores what is left"
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
    if plan is not None:
        with suppress(*_UNREADABLE):  # of a damaged plan there is nothing to tell
            _end(store, slice_, run, plan)
    store.remove(layout.work(run))


def _end(store: Store, slice_: str, run: str, plan: RunPlan) -> None:
    """Writes the manifest of a run that left none; removes what one that published replaced."""
    path = layout.run_file(run, "manifest.json")
    if not store.exists(path):
        # A last step that is late may write it at this moment, and the first one counts.
        store.create_new(path, encode_json(_killed(store, slice_, run, plan).document))
    elif plan.retention_days is not None:
        with suppress(OSError, BatchscoreError):  # the next publication tries again
            if read_raw(store, run).status in ("published", "empty"):
                purge(store, slice_, plan.retention_days)


def _is_live(store: Store, run: str) -> bool:
    """Tells whether a run holds its slice; it took the lease before it wrote anything else."""
    try:
        holders = [holder(store, name) for name in store.names(f"{layout.HOME}/slices")]
    except RecordError:  # a lease that cannot be read may name it
        return True
    return any(each is not None and each.run == run for each in holders)


def _killed(store: Store, slice_: str, run: str, plan: RunPlan) -> Manifest:
    """Returns the manifest of a run that ended without a result: cancelled, failed, or killed."""
    kept = len(finished_units(store, slice_, plan.score) & set(plan.units.keys()))
    finished = f"{counted_were(kept, 'unit')} finished and kept"
    ended = _last_sign(store, run, datetime.fromisoformat(plan.started))
    asked = read_stop(store, run)
    if asked is None:
        message = f"{_why(store, run, plan)}; {finished}"
        return failed_manifest(run, plan, "failed", message, ended)
    message = f"cancelled by {asked.by}; nothing was published. {_AGAIN}; {finished}"
    manifest = failed_manifest(run, plan, "interrupted", message, ended)
    facts = {"by": asked.by, "at": manifest.finished, "exit_code": 128 + signal.SIGTERM}
    return manifest.updated(stopped=facts)


def _why(store: Store, run: str, plan: RunPlan) -> str:
    """Says why a run ended that nobody watched: what its workers met, if they wrote it down."""
    found = read_failure(store, run)
    if found is not None and not isinstance(found[0], StoppedError):
        return str(found[0])
    if plan.submitted:
        return f"engine {plan.facts.get('engine')} ended its job, or lost it; run again"
    return "killed, or lost with its machine"


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
