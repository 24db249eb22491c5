"""What `show --logs` does: the logs that a run's worker processes left in the output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from batchscore.runs import layout
from batchscore.runs.history import newest, read_raw
from batchscore.runs.run_plan import read_plan
from batchscore.runs.worker_logs import WorkerLog, read_logs
from batchscore.storage.store import Store


@dataclass(frozen=True)
class RunLogs:
    """The logs of a run.

    Args:
        run: Name of the run.
        workers: One log for each process that logged something.
    """

    run: str
    workers: Sequence[WorkerLog]

    def to_json(self) -> dict[str, Any]:
        """Returns the logs as JSON-able values."""
        return {"run": self.run, "workers": [asdict(each) for each in self.workers]}


def logs_of(store: Store, slice_: str | None, run: str | None) -> RunLogs:
    """Returns the logs of a run, which may be under way; by default of the newest that ended.

    Args:
        store: The output.
        slice_: The slice whose newest run is meant; None for all slices.
        run: Name of the run, or None.

    Raises:
        InvalidError: The output has no such run.
        RecordError: Its manifest is damaged.
    """
    if run is None:
        run = newest(store, slice_).run
    return RunLogs(run, read_logs(store, _slice_of(store, run), run))


def _slice_of(store: Store, run: str) -> str:
    if run in store.names(f"{layout.HOME}/work"):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            return read_plan(store, run).slice
    return read_raw(store, run).slice
