"""Files of unknown size and kind, read in parts: their SHA-256, and no more than a bound."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import IO

_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Digest:
    """Bytes and SHA-256 of a file, in hexadecimal digits."""

    bytes: int
    sha256: str


class TooLargeError(ValueError):
    """A file holds more than may be read of it."""


def open_plain(path: str) -> IO[bytes]:
    """Opens a local file for reading.

    Raises:
        OSError: It is missing, or is a folder, a pipe or a device, which could block forever.
    """
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("it is a folder, expected a file")
    raise OSError("it is a pipe or a device, expected a file")


def read_at_most(file: IO[bytes], most: int) -> bytes:
    """Returns what is left of a file; TooLargeError if that is more than `most` bytes."""
    content = bytearray()
    while part := file.read(min(_PART_BYTES, most + 1 - len(content))):
        content += part
        if len(content) > most:
            raise TooLargeError(f"it has more than {most:,} bytes")
    return bytes(content)


def digest_of(file: IO[bytes]) -> Digest:
    """Returns the bytes and the SHA-256 of what is left of a file, read in parts."""
    sha256, size = hashlib.sha256(), 0
    while part := file.read(_PART_BYTES):
        sha256.update(part)
        size += len(part)
    return Digest(size, sha256.hexdigest())
