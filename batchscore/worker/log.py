"""What this worker process logs and prints, kept in the output for whoever launched it."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any, TextIO

from batchscore.messages.addresses import RedactingFormatter, redacted_text
from batchscore.runs.failures import tell_of_failures
from batchscore.runs.progress import current_unit
from batchscore.runs.worker_logs import MOST_BYTES, LogLine, WorkerLog, has_room, write_log
from batchscore.system import json_lines
from batchscore.system.thread_lines import ThreadLines
from batchscore.worker.spec import RunSpec

_EVERY_SECONDS = 5.0
_LINE_CHARACTERS = 2_000


class KeptLog(logging.Handler):
    """The last lines of this process, written to the output at most once in some seconds.

    A log that cannot be written is no reason to fail a run.

    Args:
        spec: The run.
    """

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(RedactingFormatter("%(message)s"))
        self.run, self._store, self._slice = spec.identity.run, spec.output, spec.slice
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._started, self._written = time.time(), 0.0
        self._lines: deque[LogLine] = deque()
        self._bytes = self._left_out = self._noted = self._saved = 0
        self._guard = threading.Lock()
        self._saving = threading.Lock()
        self._saver: int | None = None
        self._has_room: bool | None = None
        self._failure = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a message, except a library's own news, and Beam's report of a noted failure."""
        if not json_lines.is_news(record):
            return
        library = record.name.partition(".")[0] in json_lines.LIBRARIES
        try:
            text = self.format(record)
        except Exception:
            return self.handleError(record)
        if not (library and self._failure and self._failure in text):
            self.note(record.created, record.levelname, record.name, text)

    def note_failure(self, message: str) -> None:
        """Notes an error that ends the work, and writes the log."""
        self._failure = message
        self.note(time.time(), "ERROR", "batchscore", message)
        self.save(now=True)

    def note(self, at: float, level: str, source: str, message: str) -> None:
        """Notes a line; what is too much goes, the earliest first."""
        # What writing the log itself logs would have it written again.
        if threading.get_ident() == self._saver:
            return
        if len(message) > _LINE_CHARACTERS:
            message = f"{message[:_LINE_CHARACTERS]}…"
        # Half of a character, which no file can hold, is shown by its number.
        message = message.encode(errors="backslashreplace").decode()
        line = LogLine(at, level, source, message, unit=current_unit())
        if json_lines.is_wanted():
            json_lines.show(json_lines.json_line(at, level, source, message))
        with self._guard:
            self._noted += 1
            if self._lines and _is_alike(self._lines[-1], line):
                last = self._lines.pop()
                self._lines.append(replace(last, times=last.times + 1))
                return
            self._lines.append(line)
            self._bytes += _size(self._lines[-1])
            while self._bytes > MOST_BYTES:
                self._bytes -= _size(self._lines.popleft())
                self._left_out += 1

    def save(self, now: bool = False) -> None:
        """Writes what is new.

        Args:
            now: Also if something was written a moment ago.
        """
        with self._saving:
            late = time.monotonic() - self._written >= _EVERY_SECONDS
            if self._noted == self._saved or not (now or late):
                return
            self._saver = threading.get_ident()
            try:
                with suppress(Exception):
                    self._save()
            finally:
                self._saver = None

    def _save(self) -> None:
        self._written = time.monotonic()
        if self._has_room is None:
            self._has_room = has_room(self._store, self._slice, self.run)
        with self._guard:
            noted, left_out, lines = self._noted, self._left_out, list(self._lines)
        if self._has_room:
            log = WorkerLog(platform.node(), os.getpid(), self._started, left_out, lines)
            write_log(self._store, self._slice, self.run, self._name, log)
        self._saved = noted


def _is_alike(one: LogLine, other: LogLine) -> bool:
    return (one.level, one.source, one.message) == (other.level, other.source, other.message)


def _size(line: LogLine) -> int:
    # The rest is about what JSON takes for the names of the fields and the time.
    return 3 * len(line.message) // 2 + len(line.source) + 80


class _Printed:
    """A stream whose lines are noted, too."""

    def __init__(self, stream: TextIO, source: str, level: str) -> None:
        self._stream, self._source, self._level = stream, source, level
        self._lines = ThreadLines(2 * _LINE_CHARACTERS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes to the stream, and notes the lines that are complete."""
        for line in self._lines.complete(text):
            if line.strip() and _kept is not None:
                _kept.note(time.time(), self._level, self._source, redacted_text(line))
        # A line that is noted has been shown as an object.
        return len(text) if json_lines.is_wanted() else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)


_starting = threading.Lock()
_kept: KeptLog | None = None


def keep_log(spec: RunSpec) -> None:
    """Keeps what this process logs and prints from now on in the output of a run."""
    global _kept
    with _starting:
        if _kept is not None and _kept.run == spec.identity.run:
            return
        root = logging.getLogger()
        if _kept is None:
            _hold_levels(root)
            sys.stdout = _Printed(sys.stdout, "stdout", "INFO")
            sys.stderr = _Printed(sys.stderr, "stderr", "WARNING")
            logging.captureWarnings(json_lines.is_wanted())
        else:
            save_log()
            root.removeHandler(_kept)
        _kept = KeptLog(spec)
        root.addHandler(_kept)
        tell_of_failures(_note_failure)


def _note_failure(message: str) -> None:
    if _kept is not None:
        _kept.note_failure(message)


def _hold_levels(root: logging.Logger) -> None:
    """Lowers the level of the log, while handlers that were there show what they showed.

    Not as JSON lines: the log that is kept shows each message itself.
    """
    for handler in [*root.handlers]:
        if json_lines.is_wanted() and isinstance(handler.formatter, json_lines.JsonFormatter):
            root.removeHandler(handler)
        handler.setLevel(max(handler.level, root.level))
    root.setLevel(min(root.level, logging.INFO))


def save_log(now: bool = True) -> None:
    """Writes what this process has logged, if its log is kept."""
    if _kept is not None:
        _kept.save(now)
