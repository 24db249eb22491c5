"""Universal Binary JSON as XGBoost writes it: read without XGBoost, from files of anybody.

Each array with a type is a view of the file's own bytes, so a file takes little more memory than
its size.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from batchscore.errors import ModelError

_MOST_DEPTH = 32
_MOST_VALUES = 1 << 24
"""Objects, texts and single numbers; a tree has some thirty, whatever its size."""
_NUMBERS = {
    b"i": ">i1",
    b"U": ">u1",
    b"I": ">i2",
    b"l": ">i4",
    b"L": ">i8",
    b"d": ">f4",
    b"D": ">f8",
}
_CONSTANTS = {b"Z": None, b"T": True, b"F": False}


def read_ubj(content: bytes) -> Any:
    """Returns the value that a file holds: dicts, lists, texts, numbers, and arrays of numbers.

    Raises:
        ModelError: It is no such file, is cut short, or nests or counts beyond reason.
    """
    reader = _Reader(content)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(content):
        raise reader.damaged("more follows its end")
    return value


class _Reader:
    """A place in a file, and what is read from there."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place, self._values = content, 0, 0

    def damaged(self, why: str) -> ModelError:
        """Returns the error of a file that cannot be read on."""
        return ModelError(
            f"no XGBoost model, or damaged: {why} (at byte {self.place:,}); restore the file, or "
            "save the model again"
        )

    def take(self, size: int) -> bytes:
        """Returns the next bytes."""
        if not 0 <= size <= len(self._content) - self.place:
            raise self.damaged("it ends too early")
        self.place += size
        return self._content[self.place - size : self.place]

    def value(self, marker: bytes, depth: int) -> Any:
        """Returns the value that a marker begins."""
        self._values += 1
        if depth > _MOST_DEPTH or self._values > _MOST_VALUES:
            raise self.damaged("it holds more than a model has")
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == b"S":
            return self._text()
        if marker == b"{":
            return self._object(depth)
        if marker == b"[":
            return self._array(depth)
        raise self.damaged(f"{marker!r} begins no value")

    def _number(self, marker: bytes) -> Any:
        kind = np.dtype(_NUMBERS[marker])
        return np.frombuffer(self.take(kind.itemsize), kind)[0].item()

    def _count(self) -> int:
        if self.take(1) != b"L":
            raise self.damaged("a length is no 64-bit integer")
        return int(struct.unpack(">q", self.take(8))[0])

    def _text(self) -> str:
        try:
            return self.take(self._count()).decode()
        except UnicodeDecodeError as error:
            raise self.damaged("a text is not UTF-8") from error

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._content[self.place : self.place + 1] != b"}":
            if self.take(1) != b"L":
                raise self.damaged("a key has no length")
            self.place -= 1
            key = self._text()
            if key in found:
                raise self.damaged(f"it has the key {key[:40]!r} twice")
            found[key] = self.value(self.take(1), depth + 1)
        self.place += 1
        return found

    def _array(self, depth: int) -> Any:
        mark = self.take(1)
        if mark == b"$":
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise self.damaged("an array is of no known type")
            dtype, size = np.dtype(_NUMBERS[kind]), self._count()
            return np.frombuffer(self.take(size * dtype.itemsize if size >= 0 else -1), dtype)
        if mark == b"#":
            return [self.value(self.take(1), depth + 1) for _ in range(self._bounded())]
        found = []
        while mark != b"]":
            found.append(self.value(mark, depth + 1))
            mark = self.take(1)
        return found

    def _bounded(self) -> int:
        size = self._count()
        if not 0 <= size <= len(self._content) - self.place:
            raise self.damaged("an array is longer than the file")
        return size
