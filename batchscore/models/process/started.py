"""A process that was started for a model: how it starts, what it prints, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import IO

from batchscore.messages.addresses import redacted_text
from batchscore.system.processes import has_working_folder
from batchscore.system.usage import Usage, used_by

TOO_LARGE = 77
"""Exit code of a process that holds more memory than it may; nothing else ends with it."""
CLOSED_FILES = 78
"""Exit code of a process whose connection the model has closed."""
SHARE_OF_MEMORY = 0.8
"""What it may hold of the memory that this machine or its container has."""

_LINES = 100
_LINE_BYTES = 2_000
_ENDED_SECONDS = 30.0
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COMMAND = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[1])['path']; "
    "from batchscore.models.process.child import main; main()"
)


class StartedProcess:
    """A process, and the thread that started it and waits for its end.

    Linux ends it with the thread that started it, so that thread does nothing else.

    Args:
        format: Of the model, whose framework it imports first.

    Attributes:
        connection: The first connection; if it is closed, the process ends.
        used: What it had used when it was killed.
    """

    def __init__(self, format: str) -> None:
        self._format = format
        self._started, self._ended = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: Exception | None = None
        self.used = Usage()
        self.connection, self._theirs = socket.socketpair()
        threading.Thread(target=self._keep, name="model process", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return not self._ended.is_set()

    def how_it_ended(self) -> str:
        """Waits for its end, and returns how it came: `was killed by signal 11 (SIGSEGV)`."""
        self._ended.wait(_ENDED_SECONDS)
        if self._error is not None:
            return f"cannot be started ({self._error})"
        code = None if self._process is None else self._process.returncode
        return describe_end(code)

    def kill(self) -> None:
        """Ends it, and does not wait while the system takes its memory back."""
        self._started.wait(_ENDED_SECONDS)
        if self._process is not None and self._process.returncode is None:
            self.used = used_by(self._process.pid)
            self._process.kill()

    def usage(self) -> Usage:
        """Returns what it used; without CPU time that is this process's since it was waited for."""
        if self._process is None:
            return self.used
        used = self.used if self.used.cpu_s else used_by(self._process.pid)
        return used if self._process.returncode is None else used.since(used.cpu_s)

    def close(self) -> None:
        """Ends it, and waits until it is gone."""
        self.kill()
        self._ended.wait(_ENDED_SECONDS)
        self.connection.close()

    def _keep(self) -> None:
        # It inherits what this thread blocks, until it ignores these by itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            self._process = self._start()
            self._theirs.close()
            self._started.set()
            assert self._process.stdout is not None
            threading.Thread(
                target=_relay, args=(self._process.stdout,), name="model output", daemon=True
            ).start()
            self._process.wait()
        except Exception as error:  # whatever it is, somebody waits for the process
            self._error = error
            self._theirs.close()
            self._started.set()
        self._ended.set()

    def _start(self) -> subprocess.Popen[bytes]:
        fields = {
            "path": sys.path,
            "parent": os.getpid(),
            "connection": self._theirs.fileno(),
            "format": self._format,
            "level": logging.getLogger().getEffectiveLevel(),
        }
        return subprocess.Popen(
            [sys.executable, "-u", "-c", _COMMAND, json.dumps(fields)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=None if has_working_folder() else "/",
            pass_fds=[self._theirs.fileno()],
        )


def describe_end(code: int | None) -> str:
    """Returns how a process ended, by its exit code; None if that is not known."""
    if code is None:
        return "ended"
    if code == TOO_LARGE:
        return f"held more than {SHARE_OF_MEMORY:.0%} of this machine's memory"
    if code == CLOSED_FILES:
        return "closed files that the model had not opened"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"


def _relay(output: IO[bytes]) -> None:
    """Passes on what the process prints: each line once, and not more than a hundred lines."""
    seen: set[bytes] = set()
    with output:
        while line := output.readline(_LINE_BYTES):
            if line in seen or len(seen) > _LINES:
                continue
            seen.add(line)
            text = line.decode(errors="replace").rstrip("\n")
            if len(seen) > _LINES:
                text = "the model's process prints more; further lines are left out"
            _print(text)


def _print(text: str) -> None:
    try:
        sys.stderr.write(f"{redacted_text(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads it any more
