"""Outputs with runs of many nights, made of manifests and markers alone."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from batchscore.runs import layout
from batchscore.runs.snapshot import MARKER, put_marker
from batchscore.storage.store import Store
from tests.manifests import ROWS, make_manifest

HOUR = 3600.0


def add_night(
    store: Store,
    dates: str,
    hours_ago: float,
    status: str = "published",
    job: str = "flights",
    params: dict[str, str] | None = None,
    **facts: Any,
) -> str:
    """Write the manifest of a run that ended so long ago, and publish its slice; returns it.

    Args:
        store: The output, on a local disk or not.
        dates: Value of the parameter `date`; empty for a job without.
        hours_ago: When it ended. A local marker gets that time too.
        status: Of the manifest; `published` and `empty` publish.
        job: The job's name.
        params: Other parameters.
    """
    layout.claim_output(store)
    given = {**(params or {}), **({"date": dates} if dates else {})}
    ended = time.time() - hours_ago * HOUR
    at = datetime.fromtimestamp(ended, timezone.utc)
    slice_ = layout.slice_id(job, given)
    number = len(store.names(f"{layout.HOME}/runs"))
    run = f"{at:%Y%m%d}-{number:04x}"
    rows = {**ROWS, "input": 10, "scored": 9, "rejected": 1}
    known: dict[str, Any] = {"rows": rows, "seconds": 60.0, "drift": {"verdict": "ok"}, **facts}
    manifest = make_manifest(
        **{"run": run, "status": status, "job": job, "slice": slice_, "params": given},
        **{"started": (at - timedelta(minutes=1)).isoformat(), "finished": at.isoformat()},
        **known,
    )
    store.write_json(layout.run_file(run, "manifest.json"), manifest.document)
    if status in ("published", "empty"):
        put_marker(store, slice_, run)
        if store.is_local:
            os.utime(store.path(layout.slice_file(slice_, MARKER)), (ended, ended))
    return run
