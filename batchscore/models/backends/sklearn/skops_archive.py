"""The ZIP archive that a `.skops` file is, read with bounds: its schema, arrays and bytes.

Each byte is read from one parsed directory, and each array from bytes whose length fits its header,
so that no file makes much more memory than it has bytes. No NumPy object array is read as such.
"""

from __future__ import annotations

import io
import json
import math
import re
import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.errors import ModelError
from batchscore.models.file_kinds import ZIP_DAMAGE

SCHEMA = "schema.json"
PROTOCOL = 2
"""The one form of skops files that is read: what skops 0.12 and later write."""

_MEMBER = re.compile(r"[A-Za-z0-9_-]{1,64}\.(npy|bin|json)")
_MOST_MEMBERS = 1 << 20
_MOST_BYTES = 4 << 30
_LEAST_BYTES, _TIMES_ITS_SIZE = 64 << 20, 100
_MOST_JSON = (1 << 25, 1 << 23)
"""Commas; arrays and objects."""
_DAMAGES = (
    *ZIP_DAMAGE,
    # NumPy reads a header as Python's own words.
    *(SyntaxError, tokenize.TokenError),
)
_REMEDY = "load it where it was trained, and save it with bs.save_model"


@dataclass(frozen=True)
class SkopsArchive:
    """An archive whose directory and schema were checked.

    Args:
        schema: What `schema.json` holds.
        names: Its members.
        opened: The archive itself.
    """

    schema: Mapping[str, Any]
    names: frozenset[str]
    opened: zipfile.ZipFile

    def content(self, name: Any) -> bytes:
        """Returns the bytes of a member, whose checksum was compared."""
        if not isinstance(name, str) or name not in self.names:
            raise ValueError(f"its schema names a member {str(name)[:40]!r} that is not there")
        with _as_damage():
            return self.opened.read(name)

    def array(self, name: Any) -> Array:
        """Returns the array of a member, of numbers or texts."""
        return _array(self.content(name))

    def document(self, name: str) -> Any:
        """Returns the JSON of a member; None if it is not there."""
        return _json(self.content(name)) if name in self.names else None


def open_archive(content: bytes) -> SkopsArchive:
    """Returns the archive that the bytes of a file are.

    Raises:
        ModelError: They are no skops file, but a pickle or anything else.
        ValueError, KeyError: It is damaged, or larger than a file of so many bytes should be.
    """
    if content[:4] != b"PK\x03\x04":
        raise ModelError(
            f"no skops file: it begins with {content[:8]!r}; expected what bs.save_model or "
            "skops.io.dump writes. A pickle can run any code, so none is ever read: load it where "
            "it was made, and save it with bs.save_model"
        )
    with _as_damage():
        opened = zipfile.ZipFile(io.BytesIO(content))
        _check_members(opened, len(content))
        schema = _json(opened.read(SCHEMA))
    if not isinstance(schema, dict):
        raise ValueError(f"{SCHEMA} holds no object")
    if schema.get("protocol") != PROTOCOL:
        raise ModelError(
            f"skops file of protocol {str(schema.get('protocol'))[:20]}, and {PROTOCOL} is read; "
            f"{_REMEDY}"
        )
    return SkopsArchive(schema, frozenset(opened.namelist()), opened)


@contextmanager
def _as_damage() -> Iterator[None]:
    """Raises ValueError for what readers of archives and of headers raise for damaged bytes."""
    try:
        yield
    except _DAMAGES as error:
        raise ValueError(str(error)[:80]) from error


def _check_members(opened: zipfile.ZipFile, size: int) -> None:
    listed = opened.infolist()
    if len(listed) > _MOST_MEMBERS or len({each.filename for each in listed}) < len(listed):
        raise ValueError("its members are too many, or two share a name")
    for each in listed:
        if not _MEMBER.fullmatch(each.filename):
            raise ModelError(
                f"no skops file: it holds {each.filename[:60]!r}, and expected are arrays (.npy), "
                f"bytes (.bin) and {SCHEMA}. A pickle is read in no disguise: {_REMEDY}"
            )
        if each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"member {each.filename} is compressed in an unknown way")
    total = sum(each.file_size for each in listed)
    if total > min(_MOST_BYTES, max(_LEAST_BYTES, _TIMES_ITS_SIZE * size)):
        raise ValueError(f"it has {size:,} bytes, and would take {total:,} when unpacked")


def _json(content: bytes) -> Any:
    counts = content.count(b","), content.count(b"[") + content.count(b"{")
    if any(count > most for count, most in zip(counts, _MOST_JSON, strict=True)):
        raise ValueError(f"its JSON of {len(content):,} bytes holds more values than are read")
    try:
        return json.loads(content, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; two readers may take different ones of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object of its JSON has a key twice")
    return found


def _array(content: bytes) -> Array:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array is of the unknown form {version}")
    with _as_damage():
        shape, is_fortran, dtype = readers[version](file)
    start, count = file.tell(), math.prod(shape)
    if dtype.hasobject or count * dtype.itemsize != len(content) - start:
        raise ValueError("an array has another length than its shape")
    found: Array = np.frombuffer(content, dtype, count, start) if count else np.empty(0, dtype)
    return found.reshape(shape, order="F" if is_fortran else "C").copy(order="K")
