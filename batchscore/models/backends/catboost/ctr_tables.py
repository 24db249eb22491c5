"""Whether the tables of a `.cbm` file's category statistics are whole.

A statistic (ctr) of a category, or of several, is looked up in a hash table by what the categories
hash to; the place that it finds is one in a blob of counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from batchscore.models.backends.catboost.flatbuffer import FlatTable, root_of

_COUNT = struct.Struct("<I")
# Fields: of a feature, its statistic, what that is of; of a table.
_OF_FEATURE, _BASE = 0, 0
_COMBINATION, _KIND = 0, 1
_CATEGORIES, _NUMBERS, _VALUES = range(3)
_TARGET = 1
_TABLE_BASE, _BUCKETS, _BLOB, _DENOMINATOR, _CLASSES = range(5)

_BORDERS, _OF_CLASSES = 0, 1
_MEANS = (2, 3)
_COUNTERS = (4, 5)
_BUCKET = np.dtype([("hash", "<u8"), ("place", "<u4")])
_FREE = 0xFFFFFFFFFFFFFFFF
_NUMBER_SPLIT = np.dtype([("index", "<i4"), ("border", "<f4")])
_VALUE_SPLIT = np.dtype([("index", "<i4"), ("value", "<i4")])

# A combination has as many features as a tree has levels, at most.
_MOST_PARTS = 1 << 10

_Key = tuple[bytes, bytes, bytes, int]


def check_ctrs(features: Iterable[FlatTable], content: bytes, counts: tuple[int, int]) -> None:
    """Checks tables, and that each statistic has one.

    Args:
        features: The statistics that trees split on.
        content: The tables, as they lie behind the trees.
        counts: How many numbers and categories a row has.

    Raises:
        ValueError: The library would look beyond a table, or search it without an end.
    """
    classes: dict[_Key, int] = {}
    for table in _tables(content):
        base = table.table(_TABLE_BASE)
        classes[_key(base, counts)] = _checked_classes(table, int(base.number(_KIND, "b")))
    for feature in features:
        of = feature.table(_OF_FEATURE)
        key = _key(of.table(_BASE), counts)
        target = of.number(_TARGET, "i")
        if key not in classes:
            raise ValueError("a statistic of categories has no table")
        if not 0 <= target < max(classes[key], 1):
            raise ValueError("a statistic is of a class beyond its table")


def _tables(content: bytes) -> Iterator[FlatTable]:
    if not content:
        return
    (count,), place = _COUNT.unpack_from(content.ljust(4, b"\0")), _COUNT.size
    for _ in range(count):
        if place + 4 > len(content):
            raise ValueError("a table of categories is missing")
        (size,) = _COUNT.unpack_from(content, place)
        place += 4
        if place + size > len(content):
            raise ValueError("a table of categories ends beyond the file")
        yield root_of(content[place : place + size])
        place += size
    if place != len(content):
        raise ValueError(f"{len(content) - place} bytes follow the tables of categories")


def _key(base: FlatTable, counts: tuple[int, int]) -> _Key:
    of = base.table(_COMBINATION)
    parts = (
        (of.array(_CATEGORIES, "<i4"), counts[1]),
        (of.array(_NUMBERS, _NUMBER_SPLIT), counts[0]),
        (of.array(_VALUES, _VALUE_SPLIT), counts[1]),
    )
    for found, count in parts:
        if len(found) > _MOST_PARTS:
            raise ValueError(f"a statistic is of {len(found):,} features")
        index = found["index"] if found.dtype.names else found
        if ((index < 0) | (index >= count)).any():
            raise ValueError("a statistic is of a feature beyond the file's")
    texts: Sequence[bytes] = [found.tobytes() for found, _ in parts]
    return texts[0], texts[1], texts[2], int(base.number(_KIND, "b"))


def _checked_classes(table: FlatTable, kind: int) -> int:
    """Returns how many counts a place of a table has; 1 for what is no count of classes."""
    raw, blob = table.array(_BUCKETS, "u1"), table.array(_BLOB, "u1")
    classes = int(table.number(_CLASSES, "i")) if kind in (_BORDERS, _OF_CLASSES) else 1
    if kind not in (_BORDERS, _OF_CLASSES, *_MEANS, *_COUNTERS) or not 1 <= classes <= 1 << 20:
        raise ValueError(f"a statistic is of kind {kind} and {classes} classes")
    size = 8 if kind in _MEANS else 4 * classes
    if len(raw) % _BUCKET.itemsize or len(blob) % size:
        raise ValueError("a table of categories is cut off")
    found = np.frombuffer(raw.tobytes(), _BUCKET)
    is_free = found["hash"] == _FREE
    # The search for a hash ends at a free place.
    if len(found) & (len(found) - 1) or not is_free.any():
        raise ValueError("a table of categories has no free place")
    if (found["place"][~is_free] >= len(blob) // size).any():
        raise ValueError("a category has a place beyond its table")
    return classes
