"""Arrays in memory that two processes share, and where each array is in it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged
from batchscore.columnar.texts import Texts
from batchscore.models.backends.facts import Inputs

# Kernels read whole cache lines.
_ALIGNMENT = 64
_SMALLEST_BYTES = 1 << 16
_STEPS, _OFFSETS = "steps", "offsets"
_PLACES, _BYTES, _ENDS = "places", "bytes", "ends"

Named = tuple[str, str, Array]
"""An input's or output's name, its part if it has several arrays, and an array."""


class UnreadableError(ValueError):
    """A message does not describe arrays of the memory that it came with."""


class SharedMemory:
    """Memory that one process writes and another one reads.

    It is a file without a name, so that nothing is left of it when both processes end, however
    they end. It grows with what is written, and stays mapped in between.

    Args:
        descriptor: Of the file; this object closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def __del__(self) -> None:
        # A model that closes all files that it finds has closed this one, too.
        with suppress(OSError):
            os.close(self.descriptor)

    def for_writing(self, size: int) -> mmap.mmap:
        """Returns the memory, of at least so many bytes."""
        if self._map is None or len(self._map) < size:
            # The size doubles, so that growing batches map it a few times. Bytes that nobody
            # touches take no memory.
            room = max(_SMALLEST_BYTES, 1 << (size - 1).bit_length())
            os.ftruncate(self.descriptor, room)
            self._map = mmap.mmap(self.descriptor, room)
        return self._map

    def for_reading(self, size: int) -> mmap.mmap:
        """Returns the memory after the other process wrote so many bytes.

        Raises:
            UnreadableError: It has fewer.
        """
        if self._map is None or len(self._map) < size:
            there = os.fstat(self.descriptor).st_size
            if there < max(size, 1):
                raise UnreadableError(f"{size} bytes are announced, and {there} are there")
            self._map = mmap.mmap(self.descriptor, there)
        return self._map


def new_memory() -> SharedMemory:
    """Returns memory that nobody else has; whoever gets its descriptor shares it."""
    if hasattr(os, "memfd_create"):
        return SharedMemory(os.memfd_create("batchscore"))
    with tempfile.TemporaryFile() as file:
        return SharedMemory(os.dup(file.fileno()))


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array is in shared memory, and what it is."""

    name: str
    part: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def to_json(self) -> list[Any]:
        """Returns the place as a message holds it."""
        return [self.name, self.part, self.dtype, list(self.shape), self.offset]


def read_place(fields: Any) -> ArrayPlace:
    """Returns the place that a message describes.

    Raises:
        UnreadableError: It describes none, or an array that is not made of plain values.
    """
    try:
        name, part, dtype, shape, offset = fields
        sizes = tuple(int(each) for each in shape)
        plain = not np.dtype(dtype).hasobject
        if not plain or min(sizes, default=0) < 0 or int(offset) < 0:
            raise ValueError("no plain array")
        return ArrayPlace(str(name), str(part), str(dtype), sizes, int(offset))
    except (TypeError, ValueError) as error:
        raise UnreadableError(f"{str(fields)[:100]}: {error}") from error


def parts_of(inputs: Inputs) -> list[Named]:
    """Returns the arrays that inputs consist of: one each, more where they are no numbers a row."""
    parts: list[Named] = []
    for name, values in inputs.items():
        if isinstance(values, Ragged):
            parts += [(name, _STEPS, values.steps_n), (name, _OFFSETS, values.offsets)]
        elif isinstance(values, Texts):
            texts = values.bytes_k
            parts += [(name, _PLACES, values.place_b), (name, _BYTES, texts.steps_n)]
            parts.append((name, _ENDS, texts.offsets))
        else:
            parts.append((name, "", values))
    return parts


def inputs_from(parts: Sequence[Named]) -> dict[str, Array | Ragged | Texts]:
    """Returns inputs that consist of arrays, as `parts_of` listed them."""
    found = {(name, part): array for name, part, array in parts}
    inputs: dict[str, Array | Ragged | Texts] = {}
    for (name, part), array in found.items():
        if part == _STEPS:
            inputs[name] = Ragged(array, found[name, _OFFSETS])
        elif part == _PLACES:
            inputs[name] = Texts(array, Ragged(found[name, _BYTES], found[name, _ENDS]))
        elif not part:
            inputs[name] = array
    return inputs


def outputs_to_parts(outputs: Mapping[str, Array]) -> list[Named]:
    """Returns the arrays of outputs by name."""
    return [(name, "", array) for name, array in outputs.items()]


def put(arrays: Sequence[Named], memory: SharedMemory) -> tuple[list[ArrayPlace], int]:
    """Copies arrays into shared memory; returns where each is, and how many bytes they take."""
    places, end = [], 0
    for name, part, array in arrays:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        places.append(ArrayPlace(name, part, array.dtype.str, array.shape, start))
        end = start + array.nbytes
    buffer = memory.for_writing(end) if end else None
    for place, (_, _, array) in zip(places, arrays, strict=True):
        if buffer is not None and array.size:
            _view(place, buffer)[...] = array
    return places, end


def look(places: Sequence[ArrayPlace], size: int, memory: SharedMemory) -> list[Named]:
    """Returns views of the arrays that the other process put into shared memory.

    Raises:
        UnreadableError: An array lies beyond what was written.
    """
    buffer = memory.for_reading(size) if size else None
    return [(place.name, place.part, _checked_view(place, size, buffer)) for place in places]


def _checked_view(place: ArrayPlace, size: int, buffer: mmap.mmap | None) -> Array:
    values = math.prod(place.shape)
    nbytes = values * np.dtype(place.dtype).itemsize
    if not nbytes:
        return np.empty(place.shape, place.dtype)
    if buffer is None or place.offset + nbytes > size:
        raise UnreadableError(f"array {place.name!r} ends at byte {place.offset + nbytes:,}")
    return _view(place, buffer)


def _view(place: ArrayPlace, buffer: mmap.mmap) -> Array:
    count = math.prod(place.shape)
    return np.frombuffer(buffer, place.dtype, count, place.offset).reshape(place.shape)
