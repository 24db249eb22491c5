"""A thread of a worker process that tells what the process does, also while it hangs."""

from __future__ import annotations

import multiprocessing
import threading
import time
from functools import cache

from batchscore.runs.progress import beat_all
from batchscore.system.processes import here
from batchscore.worker.log import keep_log, save_log
from batchscore.worker.spec import RunSpec

_LOOK_SECONDS = 1.0


def attend(spec: RunSpec) -> None:
    """Keeps the log of a process that is not the launcher's own, and starts the thread."""
    elsewhere = spec.shipment is not None and spec.shipment.launcher != here()
    if elsewhere or multiprocessing.parent_process() is not None:
        keep_log(spec)
        _start()


@cache
def _start() -> threading.Thread:
    thread = threading.Thread(target=_tell, name="presence", daemon=True)
    thread.start()
    return thread


def _tell() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        beat_all()
        save_log(now=False)
