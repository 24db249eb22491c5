"""The rows that a model's process died of, so that it dies of each of them once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.models.process.memory import Named

_Row = dict[tuple[str, str], bytes]


class DeadlyRows:
    """Rows that killed a process when they were called alone, by the bytes of their inputs.

    Isolating a row takes a dozen calls, and the tests before a run do it several times. A call
    that holds a row which is known to be deadly fails without being made, and so does a call that
    is repeated as it was.
    """

    def __init__(self) -> None:
        self._known: list[tuple[_Row, str]] = []
        self._calls: dict[bytes, str] = {}

    def note(self, arrays: Sequence[Named], rows: int, how: str) -> None:
        """Notes how a process ended of a call."""
        if rows == 1:
            self._known.append(({(n, part): a.tobytes() for n, part, a in arrays}, how))
        else:
            self._calls[_digest(arrays)] = how

    def find(self, arrays: Sequence[Named], rows: int) -> str | None:
        """Returns how a process ended of a call, or of one of its rows; None if not known."""
        if not rows:
            return None
        how = self._calls.get(_digest(arrays)) if self._calls else None
        return how or next((how for row, how in self._known if _holds(arrays, rows, row)), None)


def _digest(arrays: Sequence[Named]) -> bytes:
    found = hashlib.sha256()
    for name, part, array in arrays:
        found.update(f"{name}\0{part}\0{array.dtype}{array.shape}\0".encode())
        found.update(array.tobytes())
    return found.digest()


def _holds(arrays: Sequence[Named], rows: int, row: _Row) -> bool:
    if {(name, part) for name, part, _ in arrays} != row.keys():
        return False
    if rows == 1:
        return all(row[name, part] == array.tobytes() for name, part, array in arrays)
    found_b = np.ones(rows, np.bool_)
    for name, part, array in arrays:
        # Rows of varying length have no bytes of their own at a place that is known.
        if part or len(array) != rows:
            return False
        found_b &= _equal_rows(array, row[name, part])
    return bool(found_b.any())


def _equal_rows(array: Array, row: bytes) -> Array:
    bytes_b = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
    if bytes_b.shape[1] != len(row):
        return np.zeros(len(array), np.bool_)
    same_b: Array = (bytes_b == np.frombuffer(row, np.uint8)).all(axis=1)
    return same_b
