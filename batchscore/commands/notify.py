"""Notifies the program that a job names of how a run ended, without an effect on the run."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from batchscore.job import LoadedJob, Notify
from batchscore.messages.wording import one_line, reason

SECONDS = 60.0
_KEPT_BYTES = 4096
_SHOWN = 300
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Program:
    """What a job notifies, and where a relative path to it starts."""

    notify: Notify
    base: str

    @property
    def path(self) -> str | None:
        """The program's path; None where there is no such program."""
        name = self.notify.command[0]
        if os.sep not in name:
            return shutil.which(name)
        path = os.path.normpath(os.path.join(self.base, name))
        runs = os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK)
        return path if runs else None

    @property
    def problem(self) -> str | None:
        """Why the program cannot be started; None where it can."""
        if self.path is not None:
            return None
        name = one_line(self.notify.command[0], 120)
        folder = self.base if os.sep in name else "PATH"
        where = "" if os.path.isabs(name) else f" in {one_line(folder, 200)}"
        return (
            f"notify.command: no executable program {name!r} was found{where}; correct its name, "
            "or make it executable. Until then nobody is notified"
        )


def program_of(loaded: LoadedJob) -> Program | None:
    """Returns what a job notifies; None where it notifies nobody."""
    notify = loaded.job.notify
    return None if notify is None else Program(notify, loaded.base)


def tell(program: Program, document: str, seconds: float = SECONDS) -> str | None:
    """Runs the program with a document on its standard input; returns what went wrong, or None.

    No shell takes part. What the program prints is read and kept for a failure's message alone.
    Ctrl-C and SIGTERM kill the program, and nothing else: the run has ended already.

    Args:
        program: What is run, in a session of its own.
        document: The run's result as JSON.
        seconds: After this time the program and its children are killed.
    """
    path = program.path
    if path is None:
        return program.problem
    head = f"notify.command: {one_line(path, 200)}"
    command = [path, *program.notify.command[1:]]
    try:
        with _interrupted_by_signals(), tempfile.TemporaryFile() as given:
            given.write(document.encode(errors="backslashreplace"))
            given.seek(0)
            code, said = _run(command, given, seconds)
    except (OSError, ValueError) as error:
        problem = f"could not be started ({reason(error)}){_remedy(error)}"
        return f"{head}: {problem}; the run's outcome does not change"
    except KeyboardInterrupt:
        return f"{head}: was interrupted and killed; the run's outcome does not change"
    if code == 0:
        return None
    ended = f"took over {seconds:g} s and was killed" if code is None else f"ended with {code}"
    printed = f" and printed: {said}" if said else ""
    return f"{head}: {ended}{printed}; the run's outcome does not change"


def _remedy(error: Exception) -> str:
    lacks_line = isinstance(error, OSError) and error.errno == errno.ENOEXEC
    return ": start it with a line such as #!/bin/sh" if lacks_line else ""


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Has SIGTERM interrupt what is inside as Ctrl-C does, since both want an end at once."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command: list[str], given: IO[bytes], seconds: float) -> tuple[int | None, str]:
    """Returns the exit code, None where the time was over, and the start of what was printed."""
    process = subprocess.Popen(
        command,
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said = bytearray()
    assert process.stdout is not None
    # A child that lives on may keep the pipe open: who reads it is not waited for.
    reader = threading.Thread(target=_drain, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        code: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.poll() is None:
            _kill(process)
    reader.join(1.0)
    return code, one_line(bytes(said).decode(errors="replace"), _SHOWN)


def _drain(stream: IO[bytes], kept: bytearray) -> None:
    with stream:
        while chunk := os.read(stream.fileno(), 65_536):
            kept += chunk[: _KEPT_BYTES - len(kept)]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
