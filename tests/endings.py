"""Commands in processes of their own, forked after the imports, with output where a test says."""

from __future__ import annotations

import io
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from batchscore.cli.app import main
from batchscore.engines.workers import start_server

CLOSED = "a pipe whose reader has left"


def end_of(
    *words: object, log: Path, stdout: str = os.devnull, stderr: str = ""
) -> tuple[int, str]:
    """Return the exit code of a command, and what it wrote to standard error.

    `stdout` and `stderr` are files, or CLOSED; standard error is a file in `log` by default.
    """
    process = begin(*words, log=log, stdout=stdout, stderr=stderr)
    process.join()
    assert process.exitcode is not None
    return process.exitcode, said_in(log)


def begin(*words: object, log: Path, stdout: str = os.devnull, stderr: str = "") -> BaseProcess:
    """Return the process of a command that was started; see `end_of`."""
    said = log / "said.txt"
    said.write_text("")
    order = ([str(word) for word in words], stdout, stderr or str(said))
    process = start_server().Process(target=_obey, args=order)
    process.start()
    return process


def said_in(log: Path) -> str:
    """Return what a command wrote to standard error by default."""
    return (log / "said.txt").read_text()


def _obey(words: list[str], stdout: str, stderr: str) -> None:
    # A server of forks has Ctrl-C blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # The streams are those that Python starts with, whatever the server made of its own.
    sys.stdout = sys.__stdout__ = _stream(1, stdout, "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, stderr, "backslashreplace")  # type: ignore[misc]
    sys.argv = ["batchscore", *words]
    main()


def _stream(number: int, place: str, errors: str) -> io.TextIOWrapper:
    if place == CLOSED:
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(place, os.O_WRONLY)
    os.dup2(writer, number)
    os.close(writer)
    return open(number, "w", encoding="utf-8", errors=errors, closefd=False)
