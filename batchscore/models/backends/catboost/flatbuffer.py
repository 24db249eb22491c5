"""Reads tables of a flatbuffer, none of them beyond the end; knows nothing of their meaning."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array

# Items of a list may all lead to one place, so that a small file would take hours to read.
_MOST_TABLES = 1 << 18
_OFFSET, _SIGNED, _SHORT = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<H")


@dataclass(frozen=True)
class FlatTable:
    """A table: its fields are numbered, and one that is left out has a default.

    Args:
        content: The whole flatbuffer.
        place: Where the table begins.
    """

    content: bytes
    place: int

    def number(self, field: int, form: str, default: float = 0) -> Any:
        """Returns a number of one of struct's forms."""
        place = self._place(field)
        return _unpacked(struct.Struct(f"<{form}"), self.content, place) if place else default

    def table(self, field: int) -> FlatTable:
        """Returns a table; ValueError if there is none."""
        place = self._target(field)
        if not place:
            raise ValueError(f"field {field} of a table is missing")
        return FlatTable(self.content, place)

    def tables(self, field: int) -> Iterator[FlatTable]:
        """Yields the tables of a list."""
        for place in self._targets(field):
            yield FlatTable(self.content, place)

    def text(self, field: int) -> str:
        """Returns a text, empty if there is none."""
        place = self._target(field)
        return _bytes(self.content, place).decode() if place else ""

    def length(self, field: int) -> int:
        """Returns the bytes of a text, or the items of a list."""
        place = self._target(field)
        return int(_unpacked(_OFFSET, self.content, place)) if place else 0

    def texts(self, field: int) -> list[str]:
        """Returns a list of texts."""
        return [_bytes(self.content, place).decode() for place in self._targets(field)]

    def array(self, field: int, dtype: Any) -> Array:
        """Views a list of numbers, or of structs of them."""
        place, kind = self._target(field), np.dtype(dtype)
        if not place:
            return np.empty(0, kind)
        count = _unpacked(_OFFSET, self.content, place)
        if place + 4 + count * kind.itemsize > len(self.content):
            raise ValueError("a list ends beyond the file")
        return np.frombuffer(self.content, kind, count, place + 4)

    @cached_property
    def _fields(self) -> int:
        """The place of the fields' own places."""
        return self.place - int(_unpacked(_SIGNED, self.content, self.place))

    def _place(self, field: int) -> int:
        start = self._fields
        if 4 + 2 * field >= _unpacked(_SHORT, self.content, start):
            return 0
        found = _unpacked(_SHORT, self.content, start + 4 + 2 * field)
        return self.place + found if found else 0

    def _target(self, field: int) -> int:
        place = self._place(field)
        return _followed(self.content, place) if place else 0

    def _targets(self, field: int) -> Iterator[int]:
        place = self._target(field)
        count = _unpacked(_OFFSET, self.content, place) if place else 0
        if count > _MOST_TABLES or place + 4 * count > len(self.content):
            raise ValueError(f"a list has {count:,} parts")
        for number in range(count):
            yield _followed(self.content, place + 4 + 4 * number)


def root_of(content: bytes) -> FlatTable:
    """Returns the table that a flatbuffer begins with."""
    return FlatTable(content, _followed(content, 0))


def _followed(content: bytes, place: int) -> int:
    return place + int(_unpacked(_OFFSET, content, place))


def _bytes(content: bytes, place: int) -> bytes:
    end = place + 4 + int(_unpacked(_OFFSET, content, place))
    if end > len(content):
        raise ValueError("a text ends beyond the file")
    return content[place + 4 : end]


def _unpacked(form: struct.Struct, content: bytes, place: int) -> Any:
    if not 0 <= place <= len(content) - form.size:
        raise ValueError(f"byte {place} of {len(content)} is pointed at")
    return form.unpack_from(content, place)[0]
