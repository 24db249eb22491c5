"""Marks of files, which change when a file is rewritten, or when a link leads to another one."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from batchscore.storage.remote import connect

_LINKED = " -> "


def modification_mark(info: dict[str, Any]) -> str:
    """Returns what changes when a file is rewritten: etag, hash or modification time."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
    found = next((info[name] for name in names if info.get(name) is not None), "")
    # A listing may tell as a number the time that a look at one file tells as a date.
    return str(found.timestamp() if isinstance(found, datetime) else found)


def size_and_mark(address: str) -> tuple[int, str]:
    """Returns a file's size and modification mark as they are now, whatever was listed before.

    Raises:
        Exception: It cannot be looked at. Clients of stores raise their own errors.
    """
    filesystem, path = connect(address)
    if isinstance(filesystem, LocalFileSystem):
        found = os.stat(path, follow_symlinks=False)
        # fsspec looks at links in its own way.
        if stat.S_ISREG(found.st_mode):
            return found.st_size, str(found.st_mtime)
    filesystem.invalidate_cache(path)
    info = filesystem.info(path)
    return info["size"], modification_mark(info)


def linked_mark(mark: str, real: str | None) -> str:
    """Returns the mark of a file that links lead to, which also changes when they lead elsewhere.

    Args:
        mark: Mark of the file, or of the file behind links.
        real: The path without links; None: returns the file's own mark.
    """
    own = mark.partition(_LINKED)[0]
    return own if real is None else f"{own}{_LINKED}{real}"


def is_linked_mark(mark: str) -> bool:
    """Whether a mark is of a file that links lead to."""
    return _LINKED in mark
