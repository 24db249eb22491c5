"""What worker processes of a run logged and printed, as they left it in the output."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone

from batchscore.runs import layout
from batchscore.storage.documents import parse_json
from batchscore.storage.store import Store
from batchscore.storage.typed import Count, decode

MOST_PROCESSES = 256
"""So many processes of a run keep a log: an engine may start others again and again."""
MOST_BYTES = 64 << 10
"""Of one process's lines; the last ones are kept."""
_READ_BYTES = 16 * MOST_BYTES
_UNREADABLE = (OSError, ValueError, TypeError, LookupError)


@dataclass(frozen=True)
class LogLine:
    """A line of a log.

    Args:
        at: When, in Unix seconds of the worker's clock.
        level: Level of the message: `WARNING`.
        source: Name of the logger, or `stdout` or `stderr` for what was printed.
        message: The text, which may have several lines.
        times: How often it came, one after another.
        unit: The unit that the process was on; empty without one.
    """

    at: float
    level: str
    source: str
    message: str
    times: Count = 1
    unit: str = ""


@dataclass(frozen=True)
class WorkerLog:
    """The log of one process.

    Args:
        host: Name of its machine.
        pid: Its process id there.
        started: When it began to log, in Unix seconds.
        left_out: Earlier lines that were not kept.
        lines: The last lines.
    """

    host: str
    pid: Count
    started: float
    left_out: Count = 0
    lines: list[LogLine] = field(default_factory=list)


def write_log(store: Store, slice_: str, run: str, name: str, log: WorkerLog) -> None:
    """Replaces the log of one process.

    Raises:
        OSError: The output does not take it.
    """
    store.write_json(f"{layout.logs(slice_, run)}/{name}.json", asdict(log), flush=False)


def has_room(store: Store, slice_: str, run: str) -> bool:
    """Tells whether one more process of a run may keep a log."""
    return len(store.names(layout.logs(slice_, run))) < MOST_PROCESSES


def read_logs(store: Store, slice_: str, run: str) -> list[WorkerLog]:
    """Returns the logs of a run's processes by their start; what cannot be read is left out."""
    folder = layout.logs(slice_, run)
    found = []
    for name in store.names(folder)[:MOST_PROCESSES]:
        with suppress(*_UNREADABLE):
            data = store.read(f"{folder}/{name}", _READ_BYTES)
            found.append(decode(WorkerLog, parse_json(data)))
    return sorted(found, key=lambda log: (log.started, log.host, log.pid))


def remove_logs(store: Store, slice_: str, days: int) -> None:
    """Removes the logs of a slice's runs that are older than so many days, by their names."""
    folder = f"{layout.LOGS}/{slice_}"
    oldest = datetime.now(timezone.utc) - timedelta(days=days)
    runs = [run for run in store.names(folder) if run[:8] < oldest.strftime("%Y%m%d")]
    for run in runs:
        store.remove(f"{folder}/{run}")
    if runs:
        store.prune_empty([folder])
