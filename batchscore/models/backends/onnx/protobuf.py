"""A reader of protobuf's wire format, for files of anybody: what it reads is bounded."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np

MOST_FIELDS = 2_000_000
"""Fields that are read of a file, without long runs of numbers or short texts."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
# Numbers and texts of a list come as a field each. So long a run of them is passed over at once.
_WORTH_SKIPPING = 16
_LOOK_BYTES = 1 << 20


class Field(NamedTuple):
    """A field of a message.

    Args:
        number: Its number.
        value: A whole number, or the bytes of a text, a message or a fixed number.
    """

    number: int
    value: int | memoryview

    @property
    def integer(self) -> int:
        """The value as int64 has it; ValueError for anything else."""
        if isinstance(self.value, memoryview):
            raise ValueError(f"field {self.number} is no whole number")
        return self.value - (1 << 64) if self.value >> 63 else self.value

    @property
    def message(self) -> memoryview:
        """The value as bytes; ValueError for a number."""
        if isinstance(self.value, int):
            raise ValueError(f"field {self.number} is a number; expected bytes")
        return self.value

    @property
    def text(self) -> str:
        """The value as a text."""
        return bytes(self.message).decode()


class WireReader:
    """Reads messages of one file.

    Args:
        lists: Tags, of one byte, of which a long run is passed over.
        most: Fields that are read.
    """

    def __init__(self, lists: Container[int] = (), most: int = MOST_FIELDS) -> None:
        self._lists, self._left = lists, most

    def fields(self, content: memoryview) -> Iterator[Field]:
        """Yields a message's fields in order, without long runs of numbers.

        Raises:
            ValueError: It is no such message, or the file has more fields than are read.
        """
        place, tag, alike = 0, -1, 0
        while place < len(content):
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has more entries than are read")
            start, before = place, tag
            tag, place = _varint(content, place)
            alike = alike + 1 if tag == before else 0
            if alike >= _WORTH_SKIPPING and tag in self._lists:
                skipped = _skip_run(content, start, tag)
                if skipped > start:
                    place = skipped
                    continue
            if not tag >> 3:
                raise ValueError("field 0")
            value, place = _value(content, place, tag & 7)
            yield Field(tag >> 3, value)


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            break
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise ValueError("it ends too early, or has too long a number")


def _value(content: memoryview, place: int, kind: int) -> tuple[int | memoryview, int]:
    if kind == _VARINT:
        return _varint(content, place)
    if kind == _BYTES:
        length, place = _varint(content, place)
    else:
        length = _FIXED.get(kind, -1)
    if not 0 <= length <= len(content) - place:
        raise ValueError("it ends too early, or has a field of an unknown kind")
    return content[place : place + length], place + length


def _skip_run(content: memoryview, start: int, tag: int) -> int:
    """Returns where fields of one tag of a single byte end; at least `start`.

    They are numbers, or texts of less than 128 bytes.
    """
    if tag & 7 == _BYTES:
        return _skip_texts(bytes(content[start : start + _LOOK_BYTES]), start, tag)
    bytes_n = np.frombuffer(content[start : start + _LOOK_BYTES], np.uint8)
    if tag & 7 == _FIXED32:
        tags_n = bytes_n[: len(bytes_n) // 5 * 5 : 5]
        other_n = np.flatnonzero(tags_n != tag)
        return start + 5 * int(other_n[0] if len(other_n) else len(tags_n))
    # Each byte below 128 ends a tag or a number; a tag of one byte follows a number directly.
    ends_n = np.flatnonzero(bytes_n < 128)
    ends_n = ends_n[: len(ends_n) // 2 * 2]
    heads_n, numbers_n = ends_n[::2], ends_n[1::2]
    follows_n = heads_n == np.concatenate([[0], numbers_n[:-1] + 1])[: len(heads_n)]
    good_n = follows_n & (bytes_n[heads_n] == tag) & (numbers_n - heads_n <= 10)
    other_n = np.flatnonzero(~good_n)
    count = int(other_n[0]) if len(other_n) else len(good_n)
    return start + (int(numbers_n[count - 1]) + 1 if count else 0)


def _skip_texts(content: bytes, start: int, tag: int) -> int:
    """Returns where texts end that begin at the first byte, which is `start` in the file."""
    place, last = 0, len(content) - 1
    while place < last and content[place] == tag and content[place + 1] < 128:
        following = place + 2 + content[place + 1]
        if following > last + 1:
            break
        place = following
    return start + place
