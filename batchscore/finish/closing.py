"""What a launcher does once a run has ended, done by its last step if there may be none."""

from __future__ import annotations

import logging
import posixpath

from batchscore.errors import BatchscoreError
from batchscore.finish.accounting import accounted
from batchscore.finish.finish import until_now
from batchscore.runs import layout
from batchscore.runs.history import read_raw
from batchscore.runs.lease import holds, release
from batchscore.runs.ledger import sweep_attempts
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.publication import is_pending
from batchscore.runs.retention import purge
from batchscore.runs.run_plan import read_plan
from batchscore.storage.store import Store, encode_json
from batchscore.worker.spec import RunSpec

_log = logging.getLogger("batchscore.run")


def close_run(spec: RunSpec, manifest: Manifest) -> Manifest:
    """Removes what a run replaced and worked with, and gives its slice back; again is fine.

    Only under the run's lease, and only once its outcome is written. What cannot be done is left
    to who looks next: the outcome is final.
    """
    identity, store = spec.identity, spec.output
    try:
        if not holds(store, spec.slice, identity.lease, identity.run):
            return manifest
        _write_times(store, identity.run)
        if manifest.status in ("published", "empty"):
            _purge(spec)
        if not is_pending(store, spec.slice):
            sweep_attempts(store, spec.slice)
        remove_work(store, identity.run)
        release(store, spec.slice, identity.lease, identity.run)
    except (OSError, BatchscoreError) as error:
        _log.warning("run %s: it is left to the next run to tidy up: %s", identity.run, error)
    return manifest


def _write_times(store: Store, run: str) -> None:
    """Has the manifest count the seconds until now, and what its workers used."""
    path = layout.run_file(run, "manifest.json")
    written = store.read(path)
    ended = accounted(store, until_now(read_raw(store, run)))
    store.exchange(path, written, encode_json(ended.document))


def _purge(spec: RunSpec) -> None:
    days = read_plan(spec.output, spec.identity.run).retention_days
    if days is not None:
        purge(spec.output, spec.slice, days)


def remove_work(store: Store, run: str) -> None:
    """Removes what a run needs only while it works."""
    store.remove(layout.work(run))
    store.prune_empty([posixpath.dirname(layout.work(run))])
