"""What a run used, and whether it was slower than the last runs like it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from typing import Any

from batchscore.errors import BatchscoreError
from batchscore.runs import layout
from batchscore.runs.history import read_raw
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.progress import Used, read_counts
from batchscore.runs.reconcile import Rows
from batchscore.storage.store import Store
from batchscore.system.usage import Usage, join
from batchscore.units.record import UnitRecord

_RUNS = 10
_LEAST_RUNS = 3
_LOOKED_AT = 40
_TIMES = 2.0
# Between quick runs, starting Python decides.
_LEAST_MORE_S = 10.0
_SIZE = 2.0


def unit_usage(rows: Rows, fresh: Sequence[UnitRecord]) -> dict[str, Any]:
    """Returns the part of a manifest's `usage` that is known once all units are scored.

    Args:
        rows: Where every row went.
        fresh: Records of the units that this run scored.
    """
    pieces = [piece for record in fresh for piece in record.pieces]
    read = sum(p.shard.size * p.rows / p.shard.rows for p in pieces if p.shard.rows)
    sidecars = sum(each.bytes for record in fresh for each in record.sidecars.values())
    written = sum(file.bytes for record in fresh for file in record.files) + sidecars
    judged = rows.scored + rows.rejected
    share = round(rows.rejected / judged, 6) if judged else 0.0
    return {"read_bytes": round(read), "written_bytes": written, "rejected_share": share}


def accounted(
    store: Store, manifest: Manifest, launcher: Usage | None = None, gpu: Mapping[str, Any] = {}
) -> Manifest:
    """Returns a manifest with what its run used, and whether it was slow.

    Args:
        store: The output.
        manifest: Of a run that has just ended, whose workers' counts are still there.
        launcher: What its launcher used; None if it went on without one.
        gpu: What the launcher saw of the GPUs that it uses itself.
    """
    # The outcome is final, whatever becomes of what is only good to know.
    with suppress(OSError, BatchscoreError):
        return _accounted(store, manifest, launcher, gpu)
    return manifest


def _accounted(
    store: Store, manifest: Manifest, launcher: Usage | None, gpu: Mapping[str, Any]
) -> Manifest:
    known = asdict(manifest.usage) if manifest.usage else {}
    found = {**known, **_process_usage(store, manifest.run, launcher), **gpu}
    slow = find_slowness(store, manifest)
    return manifest.updated(
        usage={key: each for key, each in found.items() if each is not None},
        **({"slow": slow} if slow else {}),
    )


def _process_usage(store: Store, run: str, launcher: Usage | None) -> dict[str, Any]:
    workers = [each.used for each in read_counts(store, run).processes if each.used is not None]
    used = join(
        [
            *([launcher] if launcher else []),
            *(Usage(each.cpu_s, each.peak_bytes, each.total_bytes) for each in workers),
        ]
    )
    if launcher is None and not workers:
        return {}
    return {
        "cpu_seconds": round(used.cpu_s, 3),
        "peak_memory_bytes": used.peak_bytes,
        "total_memory_bytes": used.total_bytes,
        "processes": len(workers),
        **_gpu_usage(workers),
    }


def _gpu_usage(workers: Iterable[Used]) -> dict[str, Any]:
    most = [each.gpu_bytes for each in workers if each.gpu_bytes is not None]
    busy = [each.gpu_share for each in workers if each.gpu_share is not None]
    return {
        **({"gpu_memory_bytes": max(most)} if most else {}),
        **({"gpu_busy_share": round(statistics.fmean(busy), 4)} if busy else {}),
    }


def find_slowness(store: Store, manifest: Manifest) -> dict[str, Any] | None:
    """Returns the manifest's `slow` if a published run took twice as long as runs like it.

    Runs like it are published runs of the same job on the same engine and kind of device, that
    scored half to twice as many rows themselves. At least three are needed.
    """
    quick = manifest.seconds < _LEAST_MORE_S
    if quick or manifest.status != "published" or not own_rows(manifest):
        return None
    seconds = [each.seconds for each in _alike(store, manifest)]
    if len(seconds) < _LEAST_RUNS:
        return None
    median = statistics.median(seconds)
    if manifest.seconds < max(_TIMES * median, median + _LEAST_MORE_S):
        return None
    times = round(manifest.seconds / median, 1) if median else 0.0
    return {"median_seconds": round(median, 3), "runs": len(seconds), "times": times}


def own_rows(manifest: Manifest) -> int:
    """Returns the rows that a run itself read, and did not keep of an earlier one."""
    return max(0, manifest.rows.input - manifest.rows.reused - manifest.rows.quarantined)


def _alike(store: Store, manifest: Manifest) -> list[Manifest]:
    """Returns the last runs that may be compared with one, the newest first, at most ten."""
    found: list[Manifest] = []
    for each in _before(store, manifest.run):
        if _is_alike(each, manifest):
            found.append(each.without_lists())
        if len(found) == _RUNS:
            break
    return found


def _before(store: Store, run: str) -> Iterator[Manifest]:
    """Yields the last runs, the newest first; what cannot be read is left out.

    Names of runs begin with their day, so that no earlier day is read if these are enough.
    """
    names = [name for name in store.names(f"{layout.HOME}/runs") if name[:8] <= run[:8]]
    last = sorted(set(names) - {run}, reverse=True)[:_LOOKED_AT]
    for _, day in groupby(last, key=lambda name: name[:8]):
        found = list[Manifest]()
        for name in day:
            with suppress(BatchscoreError, OSError):
                found.append(read_raw(store, name).without_lists())
        yield from sorted(found, key=lambda each: each.started, reverse=True)


def _is_alike(other: Manifest, manifest: Manifest) -> bool:
    mine, theirs = own_rows(manifest), own_rows(other)
    same = ("job", "engine")
    return (
        other.status == "published"
        and other.rollback is None
        and other.started < manifest.started
        and all(getattr(other, key) == getattr(manifest, key) for key in same)
        and _kind(other) == _kind(manifest)
        and mine <= _SIZE * theirs
        and theirs <= _SIZE * mine
    )


def _kind(manifest: Manifest) -> str:
    """Returns the kind of device that scored: `cpu`, `cuda`."""
    return manifest.device.partition(",")[0].partition(":")[0].strip()
