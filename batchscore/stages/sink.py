"""Files whose bytes are hashed and written on another thread than the one that encodes them."""

from __future__ import annotations

import hashlib
from typing import IO, Any

from batchscore.stages.ahead import WriteBehind

PIECES_BEHIND = 4


class HashingSink:
    """A file that is being written; what was handed over is counted, what was written is hashed.

    Args:
        file: open for writing; closed with the sink.
        pieces: calls `pass_on`, one for any number of files. Its error is raised by later writes.
    """

    def __init__(self, file: IO[bytes], pieces: WriteBehind[Piece]) -> None:
        self._file, self._pieces = file, pieces
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Hands bytes over."""
        # What is not Python's own may be written anew before its turn comes.
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
        self._hash.update(data)
        self._file.write(data)

    def close_now(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes that were written."""
        return self._hash.hexdigest()


Piece = tuple[HashingSink, "bytes | None"]
"""A sink's next bytes, or None at its end."""


def pass_on(piece: Piece) -> None:
    """Writes a piece to its file."""
    sink, data = piece
    if data is None:
        sink.close_now()
    else:
        sink.write_now(data)
