"""Files are hashed and written behind whoever encodes them, in order, and errors come back."""

from __future__ import annotations

import hashlib
import io
import threading

import pytest

from batchscore.stages.ahead import WriteBehind
from batchscore.stages.hashed_file import PIECES_BEHIND, HashingSink, Piece, pass_on


class Kept(io.BytesIO):
    """Keeps its bytes when it is closed."""

    content = b""

    def close(self) -> None:
        if not self.closed:
            self.content = self.getvalue()
        super().close()


class Full(Kept):
    """A disk with room for so many writes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: object, /) -> int:
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


def test_files_are_what_was_handed_over() -> None:
    """Of several files that share the thread each has its bytes in order, their count and hash."""
    files = [Kept() for _ in range(3)]
    pieces = WriteBehind(pass_on, PIECES_BEHIND)
    sinks = [HashingSink(file, pieces) for file in files]
    for number in range(300):
        sinks[number % 3].write(f"{number} ".encode())
    for sink in sinks:
        sink.close()
        sink.close()
    pieces.close()
    for first, (file, sink) in enumerate(zip(files, sinks, strict=True)):
        expected = "".join(f"{number} " for number in range(first, 300, 3)).encode()
        assert (file.content, file.closed) == (expected, True)
        assert (sink.bytes, sink.sha256) == (len(expected), hashlib.sha256(expected).hexdigest())


def test_bytes_are_as_they_were_when_handed_over() -> None:
    """Memory that is written again before its turn has come does not change the file."""
    free = threading.Event()

    def late(piece: Piece) -> None:
        free.wait()
        pass_on(piece)

    file, pieces = Kept(), WriteBehind(late, PIECES_BEHIND)
    sink, memory = HashingSink(file, pieces), bytearray(b"before")
    sink.write(memoryview(memory))
    memory[:] = b"behind"
    free.set()
    sink.close()
    pieces.close()
    assert file.content == b"before"


def test_an_error_of_a_write_comes_back() -> None:
    """A disk that is full fails a later write, or the end."""
    pieces = WriteBehind(pass_on, PIECES_BEHIND)
    sink = HashingSink(Full(2), pieces)
    with pytest.raises(OSError, match="No space left"):
        for _ in range(1_000):
            sink.write(b"x")
    with pytest.raises(OSError, match="No space left"):
        pieces.close()
