"""A thread of a worker process that tells, while the process is busy or hangs, that it lives."""

from __future__ import annotations

import threading
import time
from functools import cache

from batchscore.runs.progress import beat_all
from batchscore.worker.spec import RunSpec

_LOOK_SECONDS = 1.0


def attend(spec: RunSpec) -> None:
    """Starts the thread once a process, where the launcher does not see the process itself."""
    if spec.shipment is not None:
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
