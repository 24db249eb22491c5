"""The processes that score the dates of a backfill, and what they say."""

from __future__ import annotations

import multiprocessing.connection
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from batchscore.commands.date_worker import Assignment, work
from batchscore.engines.workers import start_server
from batchscore.errors import FailedError
from batchscore.models.process.host import Host

_MOST_IDLE_DEATHS = 3
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Said:
    """What a worker says, or what is said of it.

    Args:
        worker: Its number.
        what: `scored`, `judged` or `ended`; or `lost`, if it died.
        about: The date; of one that ended its outcome; of a death how it ended.
    """

    worker: int
    what: str
    about: Any


@dataclass(frozen=True)
class _PoolMember:
    process: BaseProcess
    connection: Connection


class DatePool:
    """Starts workers, and another one where one died.

    Args:
        assignment: What all dates share.
        count: How many there are.
        host: Has the model's process, if there is one.
        gpus: Names of GPUs, with which workers take turns.
    """

    def __init__(
        self, assignment: Assignment, count: int, host: Host | None, gpus: Sequence[str] = ()
    ) -> None:
        self._assignment, self._host, self._gpus = assignment, host, gpus
        self._context = start_server()
        self._idle_deaths = 0
        self._workers = [self._start(number) for number in range(count)]

    def send(self, worker: int, what: str, about: object) -> None:
        """Asks a worker for something; one that is gone is reported by `receive`."""
        try:
            self._workers[worker].connection.send((what, about))
        except OSError:
            return

    def send_all(self, what: str, about: object) -> None:
        """Asks all workers for something."""
        for worker in range(len(self._workers)):
            self.send(worker, what, about)

    def receive(self, timeout_s: float) -> list[Said]:
        """Returns what workers said, as soon as one says something, or when the time is up."""
        of = {each.connection: number for number, each in enumerate(self._workers)}
        found: list[Said] = []
        for ready in multiprocessing.connection.wait(list(of), timeout_s):
            number = of[ready]  # type: ignore[index]
            try:
                found.append(Said(number, *self._workers[number].connection.recv()))
                self._idle_deaths = 0
            except (EOFError, OSError):
                found.append(Said(number, "lost", self._bury(number)))
        return found

    def replace(self, worker: int) -> None:
        """Starts another worker in place of one that died.

        Raises:
            FailedError: Workers die without having said anything.
        """
        self._idle_deaths += 1
        if self._idle_deaths > _MOST_IDLE_DEATHS:
            raise FailedError(
                "worker processes end as soon as they are started; see above what they print, and "
                "whether `batchscore run` scores one of the dates"
            )
        self._workers[worker] = self._start(worker)

    def close(self) -> None:
        """Ends all workers: what is open is resumed by the next backfill."""
        for each in self._workers:
            each.connection.close()
        for each in self._workers:
            each.process.join(_END_SECONDS)
            if each.process.is_alive():
                each.process.kill()
                each.process.join()

    def _start(self, number: int) -> _PoolMember:
        ours, theirs = self._context.Pipe()
        host = self._host
        model = None if host is None else (host.format, host.timeout_s, host.share())
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        arguments = (theirs, self._assignment, model, gpu)
        process = self._context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        if model is not None:
            model[-1].close()
        return _PoolMember(process, ours)

    def _bury(self, worker: int) -> str:
        """Returns how a worker ended."""
        lost = self._workers[worker]
        lost.connection.close()
        lost.process.join(_END_SECONDS)
        code = lost.process.exitcode
        return f"worker process {lost.process.pid} ended with exit code {code}"
