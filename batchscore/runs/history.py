"""What an output tells of its runs: manifests, newest first, and the one that is meant."""

from __future__ import annotations

import json
from typing import Any

from batchscore.errors import InvalidError, OutputError, RecordError
from batchscore.runs import layout
from batchscore.runs.publish import snapshot
from batchscore.storage import Store


def require_output(store: Store) -> None:
    """Raises OutputError when the folder is not an output of batchscore."""
    if not store.exists(layout.HOME):
        found = store.names()
        what = f"holds {found[0]!r} and is no output of batchscore" if found else "holds no run yet"
        raise OutputError(
            f"output {store.address}: {what}; check the address, or run the job first"
        )


def read_manifest(store: Store, run: str) -> dict[str, Any]:
    """Returns a run's manifest.

    Raises:
        InvalidError: the output has no such run, or it left no manifest.
        RecordError: the manifest is damaged.
    """
    if "/" in run or run not in store.names(f"{layout.HOME}/runs"):
        known = list_runs(store)
        raise InvalidError(
            f"run {run!r}: {store.address} has no such run; "
            f"the newest are {', '.join(known[-3:]) or 'none'}"
        )
    path = layout.run_file(run, "manifest.json")
    try:
        manifest = store.read_json(path)
        {key: manifest[key] for key in ("run", "status", "started", "rows")}
    except FileNotFoundError as error:
        raise InvalidError(
            f"run {run!r}: left no manifest; it has not ended yet, or was killed: look again "
            "later, or run the job again"
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(
            f"manifest {store.url(path)}: damaged ({error}); restore it from a copy"
        ) from error
    return dict(manifest)


def list_runs(store: Store) -> list[str]:
    """Returns the names of all runs that left a manifest, in no stated order."""
    return [
        run
        for run in store.names(f"{layout.HOME}/runs")
        if store.exists(layout.run_file(run, "manifest.json"))
    ]


def read_history(store: Store, slice_: str | None = None) -> list[dict[str, Any]]:
    """Returns the manifests of all runs, of one slice if it is given, newest first."""
    manifests = [read_manifest(store, run) for run in list_runs(store)]
    wanted = [m for m in manifests if slice_ is None or m.get("slice") == slice_]
    return sorted(wanted, key=lambda m: (str(m["started"]), str(m["run"])), reverse=True)


def newest(store: Store, slice_: str | None) -> dict[str, Any]:
    """Returns the newest run's manifest, of one slice if it is given; InvalidError if none is."""
    manifests = read_history(store, slice_)
    if not manifests:
        what = f"slice {slice_!r} of {store.address}" if slice_ else store.address
        raise InvalidError(f"{what}: has no run yet; run the job first")
    return manifests[0]


def published_files(store: Store, slice_: str | None) -> list[str]:
    """Returns the published files of an output, or of one of its slices, sorted."""
    slices = [slice_] if slice_ else store.names(f"{layout.HOME}/slices")
    return sorted(path for name in slices for path in snapshot(store, name))
