"""Messages as JSON lines: one object a line, of logging and of what else goes to standard error."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO

from batchscore.messages.addresses import redacted_text
from batchscore.system import stderr_pump
from batchscore.system.thread_lines import ThreadLines

ENVIRONMENT = "BATCHSCORE_LOG_FORMAT"
JSON, TEXT = "json", "text"
_LEVELS = {"WARNING": "WARNING", "INFO": "INFO", "WAITING": "INFO"}
_MARKED = re.compile(r"([A-Z]{4,12})  (?=\S)")
_LINE_CHARACTERS = 64_000
# The pipe that a process of its own reads, as `DEVICE:INODE`, for the processes that have it too.
_PIPE = "BATCHSCORE_LOG_PIPE"
_PATIENCE_SECONDS = 2.0

# What they tell at the level INFO is of no use to the user of a job.
LIBRARIES = frozenset(
    {"apache_beam", "aiobotocore", "botocore", "fsspec", "gcsfs", "google", "grpc", "s3fs", "torch"}
    | {"urllib3", "asyncio", "aiohttp"}
)

_context: dict[str, str] = {}
_thread = threading.local()
_unit: list[Callable[[], str]] = []
# The file descriptor that a process of its own reads, if there is one.
_pumped: list[int] = []
_numbers = itertools.count()


def is_news(record: logging.LogRecord) -> bool:
    """Tells whether a message is for the user of a job, not a library's own news."""
    library = record.name.partition(".")[0] in LIBRARIES
    return not library or record.levelno >= logging.WARNING


def is_wanted() -> bool:
    """Tells whether this process, and those that it starts, write JSON lines."""
    return os.environ.get(ENVIRONMENT, "").strip().lower() == JSON


def note(unit: Callable[[], str] | None = None, **facts: str) -> None:
    """Has later lines name these facts, such as `run` and `slice`.

    Args:
        unit: Tells which unit this process is on.
    """
    _context.update(facts)
    if _pumped:
        with suppress(OSError):
            os.write(_pumped[0], stderr_pump.context(_context))
    if unit is not None:
        _unit[:] = [unit]


def note_in_thread(**facts: str) -> None:
    """Has later lines of this thread name these facts, and none of what the process is on."""
    _thread.facts = facts


def forget() -> None:
    """Has later lines name no facts."""
    _context.clear()
    _unit.clear()
    _thread.facts = None


def json_line(at: float, level: str, source: str, message: str, **more: str) -> str:
    """Returns one message as a line, without its line break.

    Args:
        at: When, in Unix seconds.
        level: Level of the message: `WARNING`.
        source: Name of the logger, or `stdout` or `stderr` for what was printed.
        message: The text, which may have several lines.
        more: Further facts of it.
    """
    moment = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    facts = {"time": moment, "level": level, "logger": source, "message": message}
    return json.dumps({**facts, **_known(), "pid": os.getpid(), **more})


def _known() -> dict[str, str]:
    """Returns what is known of whom a line of this thread is about."""
    if (own := getattr(_thread, "facts", None)) is not None:
        return dict(own)
    unit = _unit[0]() if _unit else ""
    return {**_context, **({"unit": unit} if unit else {})}


class JsonFormatter(logging.Formatter):
    """Formats records as JSON lines, with the addresses in them redacted."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record's line."""
        more = {}
        if record.exc_info:
            more["exception"] = redacted_text(self.formatException(record.exc_info))
        text = redacted_text(record.getMessage())
        return json_line(record.created, record.levelname, record.name, text, **more)


class JsonStream(io.TextIOBase):
    """A text stream whose lines are written as JSON lines.

    Args:
        stream: Takes them.
        source: Where the lines come from: `stderr`.
    """

    def __init__(self, stream: TextIO, source: str) -> None:
        super().__init__()
        self._stream, self._source = stream, source
        self._lines = ThreadLines(_LINE_CHARACTERS)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own; JSON has no others than ASCII."""
        return self._stream.encoding

    def writable(self) -> bool:
        """Tells that it can be written."""
        return True

    def fileno(self) -> int:
        """Returns the stream's own descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Writes the lines that are complete; the rest waits for its end."""
        for message in _messages(self._lines.complete(text)):
            self._put(message)
        return len(text)

    def flush(self) -> None:
        """Flushes what is complete."""
        self._stream.flush()

    def finish(self) -> None:
        """Writes what has no line break yet."""
        for line in self._lines.finish():
            self._put(line)

    def _put(self, message: str) -> None:
        if not message.strip():
            return
        if not is_json_line(message):
            kind = _kind(message, self._source)
            message = json_line(time.time(), *kind, redacted_text(message))
        number = _descriptor(self._stream)
        if number is not None and _is_pumped(number):
            _send(number, message)
        else:
            self._stream.write(f"{message}\n")


def _messages(lines: Iterable[str]) -> Iterator[str]:
    """Joins the lines of a message of the command, which begins with a status."""
    message: list[str] = []
    for line in lines:
        is_more = message and not (_MARKED.match(line) or is_json_line(line))
        if message and not is_more:
            yield "\n".join(message)
            message = []
        if is_more or _MARKED.match(line):
            message.append(line)
        else:
            yield line
    if message:
        yield "\n".join(message)


def show(line: str) -> None:
    """Writes a line to the descriptor of standard error, though other processes write there too."""
    with suppress(ValueError):
        _send(2, line)


def _send(number: int, line: str) -> None:
    """Writes a line to a descriptor so that no other line is mixed with it."""
    data = line.encode(errors="backslashreplace")
    name = f"{os.getpid()}-{next(_numbers)}"
    with suppress(OSError):  # nobody reads it any more
        for each in stderr_pump.pieces(data, name) if _is_pumped(number) else [data + b"\n"]:
            os.write(number, each)


def _descriptor(stream: TextIO) -> int | None:
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _is_pumped(number: int) -> bool:
    """Tells whether what is written to a descriptor reaches the process that wraps lines."""
    with suppress(OSError):
        return os.environ.get(_PIPE) == _identity(number)
    return False


def _identity(number: int) -> str:
    found = os.fstat(number)
    return f"{found.st_dev}:{found.st_ino}"


def is_json_line(line: str) -> bool:
    """Tells whether a line is one of ours already, such as a worker's."""
    return stderr_pump.is_ours(line)


def _kind(line: str, source: str) -> tuple[str, str]:
    """Returns level and source of a line, which may begin with a status of the command."""
    found = _MARKED.match(line)
    if found is None:
        return "INFO", source
    return _LEVELS.get(found[1], "ERROR"), "batchscore"


class WrappedStderr:
    """Standard error of this process and its children, each line of which becomes an object.

    What Python writes is wrapped here, where run and unit are known. What else comes to the file
    descriptor, as of native code, is wrapped by a process of its own: no thread of this one could
    read what native code writes while it holds the interpreter.

    Args:
        format: `json` or `text`; None leaves it to the environment.
    """

    def __init__(self, format: str | None = None) -> None:
        self._format = format
        self._before: TextIO | None = None
        self._saved: int | None = None
        self._pump: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WrappedStderr:
        if self._format is not None:
            # Processes that this one starts have it from there.
            os.environ[ENVIRONMENT] = self._format
        if is_wanted():
            sys.stderr.flush()
            self._start_pump()
            self._before, sys.stderr = sys.stderr, JsonStream(sys.stderr, "stderr")
        return self

    def _start_pump(self) -> None:
        # What a test, or a host, has put in its place has no descriptor of this process.
        if sys.stderr is not sys.__stderr__ or sys.stderr is None:
            return
        with suppress(OSError, ValueError):
            number = sys.stderr.fileno()
            read, write = os.pipe()
            self._saved = os.dup(number)
            self._pump = subprocess.Popen(
                [sys.executable, "-I", "-S", stderr_pump.__file__],
                stdin=read,
                stdout=self._saved,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            os.environ[_PIPE] = _identity(write)
            os.dup2(write, number)
            os.close(read)
            os.close(write)
            _pumped[:] = [number]

    def __exit__(self, *_: Any) -> None:
        if self._before is None:
            return
        if isinstance(sys.stderr, JsonStream):
            sys.stderr.finish()
        sys.stderr = self._before
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        self._end_pump()

    def _end_pump(self) -> None:
        """Ends the process once it has written all; children may still have the pipe open."""
        if self._pump is None or self._saved is None:
            return
        with suppress(OSError, ValueError, subprocess.TimeoutExpired):
            number = _pumped.pop()
            os.environ.pop(_PIPE, None)
            os.write(number, stderr_pump.END)
            os.dup2(self._saved, number)
            os.close(self._saved)
            self._pump.wait(_PATIENCE_SECONDS)
