"""Puts together the lines of a text stream that several threads write to at the same time."""

from __future__ import annotations

import threading


class ThreadLines:
    """Lines of a stream, each of which is of one thread alone.

    `print` writes a text and its line break in two calls, so what threads write is mixed otherwise.

    Args:
        most: Characters that are kept of a line without its end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rests: dict[int, str] = {}

    def complete(self, text: str) -> list[str]:
        """Takes a text of this thread, and returns the lines that it ends."""
        me = threading.get_ident()
        *lines, rest = (self._rests.pop(me, "") + text).split("\n")
        if rest:
            self._rests[me] = rest[: self._most]
        return lines

    def finish(self) -> list[str]:
        """Returns what has no line break yet, of all threads."""
        rests = [*self._rests.values()]
        self._rests.clear()
        return rests
