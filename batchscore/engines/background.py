"""A pipeline on a thread of its own, so that the launcher can watch it and be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from batchscore.engines.protocol import Metrics
from batchscore.system.imports import frozen


class Cancellable(Protocol):
    """What Beam returns for a pipeline that runs elsewhere."""

    def cancel(self) -> object:
        """Asks for its end."""


class Background(threading.Thread):
    """Runs one pipeline to its end; see `Handle` for what it says meanwhile.

    Args:
        work: Runs the pipeline. It reports to the handle that it is given: lost workers, and
            what can be cancelled.
    """

    def __init__(self, work: Callable[[Background], Metrics]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._cancelled = threading.Lock()
        self._job: Cancellable | None = None
        self._is_cancelled = False
        self.metrics: Metrics = []
        self.error: BaseException | None = None
        self.lost: str | None = None
        self.job = ""
        self.unheard: str | None = None

    def run(self) -> None:
        """Runs the pipeline to its end."""
        try:
            with frozen():
                self.metrics = self._work(self)
        except BaseException as error:
            self.error = error

    def note_lost(self, reason: str) -> None:
        """Notes that a worker process ended too early."""
        self.lost = reason

    def note_job(self, job: Cancellable) -> None:
        """Notes what runs elsewhere; it ends at once where the pipeline was cancelled before."""
        with self._cancelled:
            self._job = job
            late = self._is_cancelled
        if late:
            job.cancel()

    def trouble(self) -> str | None:
        """Returns None, since what fails in this process is not tried again."""
        return None

    def cancel(self) -> None:
        """Ends what runs elsewhere; what runs in this process, and its children, end with it."""
        with self._cancelled:
            self._is_cancelled = True
            job = self._job
        if job is not None:
            job.cancel()
