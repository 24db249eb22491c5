"""Files whose bytes are hashed and written on another thread than the one that encodes them."""

from __future__ import annotations

import hashlib
from typing import IO, Any

from batchscore.stages.ahead import WriteBehind
from batchscore.storage.reading import Digest

PIECES_BEHIND = 4


class HashedFile:
    """A file that is being written, whose bytes are counted and hashed as they pass.

    Args:
        file: Open for writing; closed with this one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash, self._bytes = file, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Writes bytes."""
        self._hash.update(data)
        self._bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: closing flushes the file."""

    def close(self) -> None:
        """Closes the file."""
        self.closed = True
        self._file.close()

    @property
    def digest(self) -> Digest:
        """Count and hash of all bytes that were written."""
        return Digest(self._bytes, self._hash.hexdigest())


class HashingSink:
    """A file that is being written; what was handed over is counted, what was written is hashed.

    Args:
        file: Open for writing; closed with the sink.
        pieces: Calls `pass_on`, one for any number of files. Its error is raised by later writes.
    """

    def __init__(self, file: IO[bytes], pieces: WriteBehind[Piece]) -> None:
        self._file, self._pieces = HashedFile(file), pieces
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Hands bytes over."""
        # What is not Python's own may be overwritten before its turn comes.
        self._pieces.put((self, bytes(data)))
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: all that was handed over is on its way."""

    def close(self) -> None:
        """Has the file closed behind its last bytes."""
        if not self.closed:
            self.closed = True
            self._pieces.put((self, None))

    def write_now(self, data: bytes) -> None:
        """Hashes and writes bytes."""
        self._file.write(data)

    def close_now(self) -> None:
        """Closes the file, after which a local one is on disk."""
        self._file.close()

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes that were written."""
        return self._file.digest.sha256


Piece = tuple[HashingSink, "bytes | None"]
"""A sink's next bytes, or None at its end."""


def pass_on(piece: Piece) -> None:
    """Writes a piece to its file."""
    sink, data = piece
    if data is None:
        sink.close_now()
    else:
        sink.write_now(data)
