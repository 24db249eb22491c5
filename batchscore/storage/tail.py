"""A remote file of which the end matters: its last bytes come in one request, others as asked."""

from __future__ import annotations

import io
from collections.abc import Callable

_TAIL_BYTES = 64 * 1024
"""What Arrow reads first of a Parquet file, and often all of its footer."""


class TailFile(io.RawIOBase):
    """A file that is read from its end.

    Args:
        fetch: Returns the bytes between two places; fewer if the file is not of its size any more.
        size: Bytes of the file, as it was listed.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0
        self._start, self._tail = size, b""

    def readable(self) -> bool:
        """Tells that it is there to be read."""
        return True

    def seekable(self) -> bool:
        """Tells that reading may start anywhere."""
        return True

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Goes to a place; returns it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes; OSError if the store has others than were listed."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        data, self._at = self._between(self._at, end), max(self._at, end)
        return data

    def _between(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        if not self._tail:
            self._start = max(0, self._size - _TAIL_BYTES)
            self._tail = self._whole(self._start, self._size)
        if start < self._start:
            ahead = self._whole(start, min(end, self._start))
            return ahead + self._between(self._start, end)
        return self._tail[start - self._start : end - self._start]

    def _whole(self, start: int, end: int) -> bytes:
        data = self._fetch(start, end)
        if len(data) != end - start:
            raise OSError(f"it has not the {self._size:,} bytes any more that were listed")
        return data
