"""A thread of a worker process that tells what the process does, also while it hangs."""

from __future__ import annotations

import multiprocessing
import threading
import time
from functools import cache

from batchscore.models.process.current import used_here
from batchscore.runs.progress import Used, beat_all, current_unit
from batchscore.system import json_lines
from batchscore.system.gpu import GpuWatch
from batchscore.system.processes import here
from batchscore.worker.log import keep_log, save_log
from batchscore.worker.spec import RunSpec

_LOOK_SECONDS = 1.0
_watched: list[GpuWatch] = []


def attend(spec: RunSpec) -> None:
    """Keeps the log of a process that is not the launcher's own, and starts the thread."""
    if is_worker(spec):
        json_lines.note(current_unit, run=spec.identity.run, slice=spec.slice)
        keep_log(spec)
        _gpu(spec.execution.device)
        _start()


def is_worker(spec: RunSpec) -> bool:
    """Tells whether this process is not the launcher's own."""
    elsewhere = spec.shipment is not None and spec.shipment.launcher != here()
    return elsewhere or multiprocessing.parent_process() is not None


def used_so_far(spec: RunSpec) -> Used:
    """Returns what this worker process has used."""
    used, gpu = used_here(), _gpu(spec.execution.device)
    return Used(
        *(round(used.cpu_s, 3), used.peak_bytes, used.total_bytes),
        *(gpu.peak_bytes or None, gpu.busy_share),
    )


@cache
def _gpu(device: str) -> GpuWatch:
    watch = GpuWatch(device)
    _watched.append(watch)
    return watch


@cache
def _start() -> threading.Thread:
    thread = threading.Thread(target=_tell, name="presence", daemon=True)
    thread.start()
    return thread


def _tell() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        beat_all()
        for gpu in _watched:
            gpu.look()
        save_log(now=False)
