"""Standard output and error that a reader who is gone, or a full disk, cannot turn into errors."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class Stream(io.TextIOWrapper):
    """A text stream over a file descriptor, which survives the loss of what it is written to.

    A character that its encoding lacks is written by its number: the command did its work.
    What is written after an error goes nowhere, so that no later write, in this process or in one
    that inherits the descriptor, meets the error again.

    Args:
        stream: The stream that is not written to any more.
        quiet: Whether no error is raised at all; otherwise a full disk is an error, once.
    """

    def __init__(self, stream: io.TextIOWrapper, quiet: bool) -> None:
        self._quiet = quiet
        encoding, errors = stream.encoding, stream.errors
        if not is_unicode(stream):
            errors = "backslashreplace"
        buffering = (stream.line_buffering, stream.write_through)
        super().__init__(stream.detach(), encoding, errors, None, *buffering)

    def write(self, text: str) -> int:
        """Writes a text; an empty one, by which click tries what a stream takes, goes nowhere."""
        try:
            return super().write(text) if text != "" else 0
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is still in memory."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self._quiet and error.errno != errno.EPIPE:
            raise error


def is_unicode(stream: TextIO) -> bool:
    """Tells whether a stream's encoding has all characters."""
    return (stream.encoding or "utf-8").lower().startswith("utf")


def keep_writing() -> None:
    """Has this process survive that its output or its messages cannot be written.

    A reader who closes a pipe is no error. A full disk is one for output, not for messages. What
    has replaced the process's own streams, such as a test's, stays.
    """
    _open_closed()
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = sys.__stdout__ = Stream(sys.stdout, quiet=False)  # type: ignore[misc]
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = sys.__stderr__ = Stream(sys.stderr, quiet=True)  # type: ignore[misc]


def _open_closed() -> None:
    """Opens standard streams that were closed at the start; else files would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        opened: TextIO = open(os.devnull, "r+" if name == "stdin" else "w")  # noqa: SIM115
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
