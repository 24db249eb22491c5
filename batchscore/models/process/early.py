"""Processes that were started before anybody asked for them; light enough to be imported first."""

from __future__ import annotations

from batchscore.models.process.started import StartedProcess

_started: dict[str, StartedProcess] = {}


def start(format: str) -> None:
    """Starts a process for models of a format; whoever needs one of this format takes it."""
    if format not in _started:
        _started[format] = StartedProcess(format)


def is_started(format: str) -> bool:
    """Tells whether a process waits for being taken."""
    return format in _started


def take(format: str) -> StartedProcess | None:
    """Returns the process that was started for a format, once; None if there is none."""
    return _started.pop(format, None)


def end() -> None:
    """Ends the processes that nobody took."""
    while _started:
        _started.popitem()[1].close()
