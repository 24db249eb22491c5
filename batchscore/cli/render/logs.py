"""What worker processes logged, as lines of text."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from batchscore.messages.addresses import redacted_text
from batchscore.messages.wording import counted, one_line

if TYPE_CHECKING:
    from batchscore.commands.logs import RunLogs
    from batchscore.runs.worker_logs import LogLine, WorkerLog


def logged(found: RunLogs) -> list[str]:
    """Returns the lines of each process after its name, in the order in which they started."""
    if not found.workers:
        return [
            f"RUN {one_line(found.run)}   no worker process left a log; on one worker of engine "
            "direct, what the job prints goes to standard error"
        ]
    lines = [f"RUN {one_line(found.run)}   {counted(len(found.workers), 'worker process')}"]
    for worker in found.workers:
        lines += ["", *_worker(worker)]
    return lines


def _worker(log: WorkerLog) -> list[str]:
    left_out = f", {counted(log.left_out, 'earlier line')} not kept" if log.left_out else ""
    head = f"worker {one_line(log.host)}, process {log.pid}, since {_moment(log.started)}{left_out}"
    return [head, *(text for line in log.lines for text in _line(line))]


def _line(line: LogLine) -> list[str]:
    """Returns a line; what follows in its message is indented, and cannot pass for another."""
    first, *rest = redacted_text(line.message).splitlines() or [""]
    time = _moment(line.at).partition("T")[2]
    again = f" ({line.times:,} times)" if line.times > 1 else ""
    head = f"  {time} {one_line(line.level, 10):<8} {one_line(line.source, 60)}: {first}{again}"
    return [head, *(f"      {each}" for each in rest)]


def _moment(at: float) -> str:
    try:
        found = datetime.fromtimestamp(at, timezone.utc)
    except (OverflowError, ValueError, OSError):  # of a document that somebody edited
        return "unknown"
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")
