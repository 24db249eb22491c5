"""How stores are spoken to whose puts know no condition: one writer at a time may use them."""

from __future__ import annotations

from typing import Any

import fsspec

CONDITIONAL = False
_KEEP_LISTINGS = {"abfs": False, "abfss": False, "az": False}


def connect(address: str, once: bool) -> tuple[Any, str]:
    """Returns the filesystem of an address and the path within it; it tries as often as it does."""
    kind = fsspec.core.split_protocol(address)[0]
    keep = {"use_listings_cache": False} if kind in _KEEP_LISTINGS and "::" not in address else {}
    filesystem, path = fsspec.core.url_to_fs(address, **keep)
    return filesystem, str(path)


def tag(info: dict[str, Any]) -> str | None:
    """Returns None: there is no way to make use of a tag."""
    return None


def read(filesystem: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Returns a file's bytes."""
    return bytes(filesystem.cat_file(path, start, end))


def age(filesystem: Any, path: str) -> float | None:
    """Returns None: what dates an answer is not known."""
    return None


def put_new(filesystem: Any, path: str, data: bytes, mark: str) -> bool:
    """Puts a file where none was found."""
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def put_matching(filesystem: Any, path: str, old: bytes, new: bytes, mark: str) -> bool:
    """Replaces a file that was found to hold `old`."""
    try:
        if filesystem.cat_file(path) != old:
            return False
    except FileNotFoundError:
        return False
    filesystem.pipe_file(path, new)
    return True


def copy(filesystem: Any, source: str, target: str, tag: str | None) -> None:
    """Copies a file."""
    filesystem.cp_file(source, target)


def abort_uploads(filesystem: Any, folder: str) -> None:
    """Does nothing."""
