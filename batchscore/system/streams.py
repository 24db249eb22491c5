"""Standard output and error that a reader who is gone, or a full disk, cannot turn into errors."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

    _Binary = io.BufferedWriter | io.FileIO


class _Sink(io.FileIO):
    """A file descriptor that survives the loss of what it is written to.

    What is written after an error goes nowhere, so that no later write, in this process or in one
    that inherits the descriptor, meets the error again. Libraries write past the text stream.

    Args:
        before: What is not written to any more; its end would close the descriptor.
        quiet: Whether no error is raised at all; otherwise a full disk is an error, once.
    """

    def __init__(self, before: _Binary, quiet: bool) -> None:
        super().__init__(before.fileno(), "wb", closefd=False)
        self._before, self._quiet = before, quiet

    def write(self, data: Buffer) -> int:
        """Writes all of the data; waits where the other end of a terminal or pipe is slow."""
        left = memoryview(data).cast("B")
        while left:
            try:
                done = super().write(left)
                if done is None:  # somebody else made the descriptor non-blocking
                    select.select([], [self], [])
            except OSError as error:
                self._lose(error)
                break
            left = left[done or 0 :]
        return memoryview(data).nbytes

    def _lose(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self._quiet and error.errno != errno.EPIPE:
            raise error


class Stream(io.TextIOWrapper):
    """A text stream over a file descriptor, which survives the loss of what it is written to.

    A character that its encoding lacks is written by its number: the command did its work.

    Args:
        stream: The stream that is not written to any more.
        quiet: Whether no error is raised at all; otherwise a full disk is an error, once.
    """

    def __init__(self, stream: io.TextIOWrapper, quiet: bool) -> None:
        encoding, errors = stream.encoding, stream.errors
        if not is_unicode(stream):
            errors = "backslashreplace"
        buffering = (stream.line_buffering, stream.write_through)
        super().__init__(
            _sunk(cast("_Binary", stream.detach()), quiet), encoding, errors, None, *buffering
        )

    def write(self, text: str) -> int:
        """Writes a text; an empty one, by which click tries what a stream takes, goes nowhere."""
        return super().write(text) if text != "" else 0


def _sunk(binary: _Binary, quiet: bool) -> io.BufferedWriter:
    """Returns a binary stream that survives, with a buffer if the one in its place had one."""
    binary.flush()
    sink = _Sink(binary, quiet)
    # Python's option -u leaves it out.
    if isinstance(binary, io.BufferedWriter):
        return io.BufferedWriter(sink)
    return cast(io.BufferedWriter, sink)


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
