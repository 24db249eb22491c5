"""Units that make no progress, named once each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from batchscore.messages.wording import counted, one_line
from batchscore.runs.progress import Doing, WorkerProgress

STALL_SECONDS = 300.0
"""A unit of which no batch was finished for so long is named; a job may say less."""

_Key = tuple[str, int, str]


class Stalls:
    """Watches what workers write of their units, by this machine's clock and by theirs.

    A worker that hangs may not write any more, and its machine's clock may differ from this one's.

    Args:
        most_s: Seconds that a batch may take, as the job says.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = min(STALL_SECONDS, most_s)
        self._seen: dict[_Key, tuple[Doing, float]] = {}
        self._named: set[tuple[_Key, Doing]] = set()

    def look(self, workers: Sequence[WorkerProgress]) -> Iterator[str]:
        """Yields a sentence for each unit without progress that was not named since it moved."""
        now = time.monotonic()
        found = {
            (each.host, each.pid, doing.unit): (each, doing)
            for each in workers
            for doing in each.units
        }
        self._seen = {key: self._entry(key, found[key][1], now) for key in found}
        for key, (worker, doing) in found.items():
            still_s = max(worker.at - doing.advanced, now - self._seen[key][1])
            if still_s >= self._most_s and (key, doing) not in self._named:
                self._named.add((key, doing))
                yield describe_stall(worker, doing, still_s)

    def _entry(self, key: _Key, doing: Doing, now: float) -> tuple[Doing, float]:
        """Returns what a worker does, and when that was first seen."""
        before = self._seen.get(key)
        return before if before is not None and before[0] == doing else (doing, now)


def stalled(workers: Sequence[WorkerProgress]) -> tuple[str, ...]:
    """Returns a sentence for each unit without progress, by what workers say of themselves.

    Workers elsewhere write also while they wait.
    """
    return tuple(
        describe_stall(each, doing, each.at - doing.advanced)
        for each in workers
        for doing in each.units
        if each.at - doing.advanced >= STALL_SECONDS
    )


def describe_stall(worker: WorkerProgress, doing: Doing, still_s: float) -> str:
    """Returns a sentence that names a unit, its shards, its worker, and for how long."""
    lasting = counted(int(still_s), "second")
    return (
        f"unit {one_line(doing.unit)} ({one_line(doing.shards, 200)}): no batch was finished for "
        f"{lasting} on worker {one_line(worker.host)}, process {worker.pid}; if the model or a "
        "function hangs, stop the run and run again: finished units are kept"
    )
