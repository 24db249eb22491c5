"""Files by address, local or any fsspec one: open, list, write atomically, move."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

_MOVE_TRIES = 5
# How `write` names a file before it replaces the one that is meant.
_UNFINISHED = re.compile(r"\.[0-9]+-[0-9a-f]{8}\.tmp$")


def open_filesystem(address: str) -> tuple[Any, str]:
    """Returns the fsspec filesystem of an address and the path within it."""
    filesystem, path = fsspec.core.url_to_fs(address)
    return filesystem, str(path).rstrip("/") or "/"


def is_local(address: str) -> bool:
    """Tells whether an address is a path of this machine's disk."""
    return isinstance(open_filesystem(address)[0], LocalFileSystem)


def modification_mark(info: dict[str, Any]) -> str:
    """Returns what changes when a file is rewritten: etag, hash or modification time."""
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
    found = next((info[name] for name in names if info.get(name) is not None), "")
    # A listing may tell as a number the time that a look at one file tells as a date.
    return str(found.timestamp() if isinstance(found, datetime) else found)


@dataclass(frozen=True)
class Store:
    """A folder at an address; every path given to it is relative and stays inside.

    Pickles as its address, so that a worker opens its own connection.
    """

    address: str

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.address,)

    @cached_property
    def _filesystem(self) -> Any:
        return open_filesystem(self.address)[0]

    @cached_property
    def _root(self) -> str:
        return open_filesystem(self.address)[1]

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's disk."""
        return isinstance(self._filesystem, LocalFileSystem)

    def path(self, relative: str) -> str:
        """Returns the filesystem's own path of a relative one; ValueError if it would leave."""
        if relative.startswith("/") or ".." in relative.split("/"):
            raise ValueError(f"{relative!r} leaves the folder {self.address!r}")
        return posixpath.join(self._root, relative) if relative else self._root

    def url(self, relative: str) -> str:
        """Returns the full address of a relative path, as a user would type it."""
        return posixpath.join(self.address.rstrip("/"), relative)

    def exists(self, relative: str = "") -> bool:
        """Tells whether there is a file or folder at the path."""
        return bool(self._filesystem.exists(self.path(relative)))

    def names(self, relative: str = "") -> list[str]:
        """Returns the sorted names in a folder, without files that are still being written.

        A folder that is not there has none.
        """
        try:
            listed = self._filesystem.ls(self.path(relative), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (posixpath.basename(str(path).rstrip("/")) for path in listed)
        return sorted(name for name in names if not _UNFINISHED.search(name))

    def read(self, relative: str) -> bytes:
        """Returns a file's bytes; FileNotFoundError if it is not there."""
        return cast(bytes, self._filesystem.cat_file(self.path(relative)))

    def read_json(self, relative: str) -> Any:
        """Returns a file's JSON value; ValueError if it is not JSON."""
        return json.loads(self.read(relative))

    def write(self, relative: str, data: bytes) -> None:
        """Replaces a file in one step: a reader sees the old bytes or the new, never a part."""
        path = self.path(relative)
        self._make_parent(path)
        if not self.is_local:
            self._filesystem.pipe_file(path, data)
            return
        staged = Path(f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        try:
            staged.write_bytes(data)
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    def write_json(self, relative: str, value: Any) -> None:
        """Replaces a file in one step by a value as readable JSON."""
        self.write(relative, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")

    def create(self, relative: str) -> IO[bytes]:
        """Opens a new file for writing; it may be seen half-written until it is closed."""
        path = self.path(relative)
        self._make_parent(path)
        return cast(IO[bytes], self._filesystem.open(path, "wb"))

    def move(self, source: str, target: str) -> None:
        """Moves a file; done already (target there, source gone) is fine, so it can be repeated."""
        old, new = self.path(source), self.path(target)
        if not self._filesystem.exists(old) and self._filesystem.exists(new):
            return
        for left in reversed(range(_MOVE_TRIES)):
            self._make_parent(new)
            try:
                return self._move(old, new)
            except FileNotFoundError:
                # Whoever does the same may have been faster, or has pruned the folder just made.
                if self._filesystem.exists(new):
                    return None
                if not left:
                    raise
        return None

    def _move(self, old: str, new: str) -> None:
        if self.is_local:
            Path(old).replace(new)
        else:
            self._filesystem.mv(old, new)

    def remove(self, relative: str) -> None:
        """Removes a file or a folder with all it holds; nothing there is fine."""
        path = self.path(relative)
        if self._filesystem.exists(path):
            with suppress(FileNotFoundError):
                self._filesystem.rm(path, recursive=True)

    def _make_parent(self, path: str) -> None:
        self._filesystem.makedirs(posixpath.dirname(path), exist_ok=True)

    def prune_empty(self, folders: Iterable[str]) -> None:
        """Removes local folders, and their parents below the root, that hold nothing."""
        if not self.is_local:
            return
        for folder in folders:
            current = folder
            # One that was filled, or removed, meanwhile is not empty, or needs no more.
            with suppress(OSError):
                while current and not any(Path(self.path(current)).glob("*")):
                    Path(self.path(current)).rmdir()
                    current = posixpath.dirname(current)
