"""Files by address, local or any fsspec one: open, list, write atomically, exchange, move."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem

from batchscore.storage import remote, retries
from batchscore.storage.client import Client
from batchscore.storage.documents import MOST_BYTES, parse_json
from batchscore.storage.documents import encode_json as encode_json
from batchscore.storage.durable import (
    FOLDER_TRIES,
    FlushedFile,
    flush_folders,
    link_file,
    make_folders,
    remove_folder,
    replace_file,
    unfinished_name,
)
from batchscore.storage.local_locks import locked
from batchscore.storage.moments import moment
from batchscore.storage.reading import Digest, TooLargeError, digest_of, open_plain
from batchscore.system.processes import machine_tag, start_of

Result = TypeVar("Result")

_THREADS = 16
# How a file is named before it replaces the one that is meant, and the lock of an exchange.
_UNFINISHED = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.tmp$")
_HIDDEN = re.compile(rf"{_UNFINISHED.pattern}|^\..+\.lock$")
# Of a machine whose processes cannot be asked, what is older was left behind.
_FOREIGN_SECONDS = 24 * 3600.0


def open_filesystem(address: str) -> tuple[Any, str]:
    """Returns the fsspec filesystem of an address and the path within it.

    That of an object store keeps no listings, so that each look sees what is there.
    """
    return remote.connect(address)


def is_local(address: str) -> bool:
    """Tells whether an address is a path of this machine's disk."""
    return isinstance(open_filesystem(address)[0], LocalFileSystem)


@dataclass(frozen=True)
class StoredFile:
    """A file that is there: its size, and on S3 and Google Cloud Storage its version's tag."""

    bytes: int
    tag: str | None = None


@dataclass(frozen=True)
class Store:
    """A folder at an address; every path given to it is relative and stays inside.

    A local write is on disk when the call returns, file and folder, unless the caller asks for no
    flush. What a remote store acknowledges is durable.

    A remote store's passing troubles are waited out for about a minute; what does not pass is an
    OSError that names the address and the cause. Each look sees the store as it is.

    Pickles as its address, so that a worker opens its own connection.
    """

    address: str

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.address,)

    @cached_property
    def _filesystem(self) -> Any:
        return remote.connect(self.address, once=True)[0]

    @cached_property
    def _client(self) -> Client:
        return remote.client_of(self.address)

    @cached_property
    def _root(self) -> str:
        return open_filesystem(self.address)[1]

    def _call(self, relative: str, action: Callable[[], Result]) -> Result:
        return action() if self.is_local else retries.patiently(self.url(relative), action)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's disk."""
        return isinstance(self._filesystem, LocalFileSystem)

    @property
    def is_conditional(self) -> bool:
        """Whether exactly one of many who put a new file, or replace one, succeeds."""
        return self.is_local or self._client.CONDITIONAL

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
        path = self.path(relative)
        if self.is_local:
            return os.path.exists(path)
        try:
            self._call(relative, lambda: self._filesystem.info(path))
        except FileNotFoundError:
            return False
        return True

    def written(self, relative: str) -> float | None:
        """Returns when a file was written, in Unix seconds by the store's own clock.

        None where the store does not tell; FileNotFoundError if there is no such file.
        """
        path = self.path(relative)
        return moment(self._call(relative, lambda: self._filesystem.info(path)))

    def age(self, relative: str) -> float | None:
        """Returns the seconds since a file was written, by the store's own clock.

        None where the store does not tell; FileNotFoundError if there is no such file. S3 and
        Google Cloud Storage date each answer. Elsewhere an empty file is dated, and removed.
        """
        if not self.is_local and self._client.CONDITIONAL:
            return self._call(
                relative, partial(self._client.age, self._filesystem, self.path(relative))
            )
        then, probe = self.written(relative), unfinished_name(relative)
        try:
            self.write(probe, b"", flush=False)
            now = self.written(probe)
        finally:
            self.remove(probe)
        return None if now is None or then is None else now - then

    def names(self, relative: str = "") -> list[str]:
        """Returns the sorted names in a folder, without files that are still being written.

        A folder that is not there has none.
        """
        path = self.path(relative)
        try:
            listed = self._call(
                relative, lambda: self._filesystem.ls(path, detail=False, refresh=True)
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (posixpath.basename(str(entry).rstrip("/")) for entry in listed)
        return sorted(name for name in names if not _HIDDEN.search(name))

    def walk(self, relative: str) -> list[str]:
        """Returns the sorted paths of all files below a folder; none if it is not there."""
        root, path = self.path(""), self.path(relative)
        found = self._call(relative, lambda: self._filesystem.find(path, refresh=True))
        return sorted(posixpath.relpath(str(each), root) for each in found)

    def missing(self, relatives: Iterable[str]) -> set[str]:
        """Returns those of the files that are not there; each of their folders is listed once."""
        folders = defaultdict[str, set[str]](set)
        for path in relatives:
            folders[posixpath.dirname(path)].add(posixpath.basename(path))
        with ThreadPoolExecutor(_THREADS) as pool:
            listed = pool.map(lambda folder: set(self.names(folder)), folders)
            pairs = zip(folders.items(), listed, strict=True)
            return {
                posixpath.join(folder, name)
                for (folder, names), there in pairs
                for name in names - there
            }

    def find(self, relatives: Iterable[str]) -> dict[str, StoredFile]:
        """Returns those of the files that are there; each of their folders is listed once."""
        wanted = set(relatives)
        folders = sorted({posixpath.dirname(path) for path in wanted})
        with ThreadPoolExecutor(_THREADS) as pool:
            listed = pool.map(self._list, folders)
            return {
                path: found
                for folder, files in zip(folders, listed, strict=True)
                for name, found in files.items()
                if (path := posixpath.join(folder, name)) in wanted
            }

    def _list(self, relative: str) -> dict[str, StoredFile]:
        path = self.path(relative)
        try:
            listed = self._call(
                relative, lambda: self._filesystem.ls(path, detail=True, refresh=True)
            )
        except (FileNotFoundError, NotADirectoryError):
            return {}
        tag = self._client.tag
        return {
            posixpath.basename(str(info["name"])): StoredFile(int(info["size"]), tag(info))
            for info in listed
            if info["type"] != "directory"
        }

    def read(self, relative: str, most: int | None = None) -> bytes:
        """Returns a file's bytes; FileNotFoundError if it is not there.

        A local file of more than `most` bytes is a ValueError, and no more of it is read. A remote
        file is read in one request, so that a reader sees the old bytes or the new.
        """
        path = self.path(relative)
        if most is not None and self.is_local:
            with open_plain(path) as file:
                # Not `read_at_most`: this is for documents of a unit each, and reads once.
                if os.fstat(file.fileno()).st_size > most:
                    raise TooLargeError(f"it has more than {most:,} bytes")
                return file.read()
        if self.is_local:
            return Path(path).read_bytes()
        return self._call(relative, partial(self._client.read, self._filesystem, path))

    def open(self, relative: str) -> IO[bytes]:
        """Opens a file to be read in parts, each with the retries of the store.

        Raises:
            OSError: It is missing, or is no plain file.
        """
        path = self.path(relative)
        if self.is_local:
            return open_plain(path)
        return cast(IO[bytes], remote.download(self._filesystem, path, self.url(relative)))

    def digest(self, relative: str) -> Digest:
        """Returns the bytes and the SHA-256 of a file; OSError if it cannot be read."""
        with self.open(relative) as file:
            return digest_of(file)

    def read_json(self, relative: str) -> Any:
        """Returns a file's JSON value; ValueError, with a short message, if it has none."""
        try:
            return parse_json(self.read(relative, MOST_BYTES))
        except IsADirectoryError as error:
            raise ValueError("a folder is in its place") from error

    def write(self, relative: str, data: bytes, flush: bool = True) -> None:
        """Replaces a file in one step: a reader sees the old bytes or the new, never a part.

        Args:
            relative: Path below the store's folder.
            data: Its bytes.
            flush: The file survives a power cut; without, it may be old, empty or gone after one.
        """
        flush_folders(self._put(relative, data, flush))

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Replaces files, each in one step; all are on disk when the call returns."""
        flush_folders([folder for path in files for folder in self._put(path, files[path], True)])

    def _put(self, relative: str, data: bytes, flush: bool) -> list[str]:
        """Replaces a file; returns the folders that are to be flushed."""
        path = self.path(relative)
        if not self.is_local:
            self._make_parent(relative)
            self._call(relative, lambda: self._filesystem.pipe_file(path, data))
            return []
        _, changed = self._in_folder(relative, lambda: replace_file(path, data, flush))
        return [posixpath.dirname(path), *changed] if flush else changed

    def create_new(self, relative: str, data: bytes, flush: bool = True) -> bool:
        """Puts a file where there is none; False if there is one.

        Of many callers at once one gets True, also where an answer was lost, if the store
        `is_conditional`; else it is looked for, then written. `flush` is as in `write`.
        """
        path = self.path(relative)
        if not self.is_local:
            self._make_parent(relative)
            return self._call(relative, self._putting(self._client.put_new, path, data))
        made, changed = self._in_folder(relative, lambda: link_file(path, data, flush))
        if not made:
            return False
        # New folders in any case: who writes into them later does not know that they are new.
        flush_folders([posixpath.dirname(path), *changed] if flush else changed)
        return True

    def exchange(self, relative: str, old: bytes | None, new: bytes, flush: bool = True) -> bool:
        """Replaces a file that still holds `old`, or is absent where that is None; else False.

        Exactly one of many contenders gets True on local disks, by a hidden lock next to the file,
        on S3 and on Google Cloud Storage. On other stores the file is read, then written. `flush`
        is as in `write`.

        Raises:
            RetryError: On a local disk, a process that was stopped keeps the lock.
        """
        if old is None:
            return self.create_new(relative, new, flush)
        path = self.path(relative)
        if not self.is_local:
            return self._call(relative, self._putting(self._client.put_matching, path, old, new))
        with suppress(FileNotFoundError), locked(path):
            if self.read(relative) == old:
                self.write(relative, new, flush)
                return True
        return False

    def _putting(self, put: Callable[..., bool], *arguments: Any) -> Callable[[], bool]:
        """Returns a put that may be repeated, since all its tries bear one mark."""
        return partial(put, self._filesystem, *arguments, mark=secrets.token_hex(8))

    def write_json(self, relative: str, value: Any, flush: bool = True) -> None:
        """Replaces a file in one step by a value as JSON; `flush` is as in `write`."""
        self.write(relative, encode_json(value), flush)

    def create(self, relative: str) -> IO[bytes]:
        """Opens a new file for writing; it may be seen half-written until it is closed.

        Once it is closed its bytes are on disk. Its name is once `flush_folders` was called.
        """
        path = self.path(relative)
        if self.is_local:
            file, changed = self._in_folder(relative, lambda: FlushedFile(path))
            flush_folders(changed)
            return cast(IO[bytes], file)
        self._make_parent(relative)
        # Parts that were sent cannot be sent again from here: the client itself must be patient.
        patient = open_filesystem(self.address)[0]
        upload = self._call(relative, lambda: patient.open(path, "wb"))
        return cast(IO[bytes], remote.Upload(upload, self.url(relative)))

    def flush_folders(self, folders: Iterable[str]) -> None:
        """Returns once the names of the files in local folders are on disk."""
        if self.is_local:
            flush_folders([self.path(folder) for folder in folders])

    def move(self, source: str, target: str, keep: bool = False) -> None:
        """Moves a file; done already (target there, source gone) is fine, so it can be repeated.

        `keep` is as in `move_all`.
        """
        self.move_all([(source, target)], keep)

    def move_all(
        self,
        moves: Sequence[tuple[str, str]],
        keep: bool = False,
        tags: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        """Moves files; on an object store side by side, where each takes a request or two.

        Local folders are flushed at the end, once each: those that files came to, then those that
        they left, so that after a power cut a file may be in both places but never in none.

        Args:
            moves: Old and new path of each file.
            keep: On an object store, leaves the source too. There a move is a copy and a removal,
                and a process that sleeps between the two may remove what was brought back.
            tags: Tags of sources that `find` returned; another version is not moved.
        """
        if self.is_local:
            flush_folders([folder for move in moves for folder in self._move(*move)])
            flush_folders(posixpath.dirname(self.path(source)) for source, _ in moves)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            list(
                pool.map(lambda move: self._move(move[0], move[1], keep, tags.get(move[0])), moves)
            )

    def _move(
        self, source: str, target: str, keep: bool = False, tag: str | None = None
    ) -> list[str]:
        """Moves a file; returns the folders that are to be flushed."""
        if not self.exists(source) and self.exists(target):
            # Whoever moved it may have been cut off before it flushed the folder.
            return [posixpath.dirname(self.path(target))]
        try:
            done, changed = self._in_folder(target, lambda: self._rename(source, target, keep, tag))
        except FileNotFoundError:
            if self.exists(target):  # whoever does the same was faster
                return [posixpath.dirname(self.path(target))]
            raise
        return [*done, *changed]

    def _in_folder(self, relative: str, action: Callable[[], Result]) -> tuple[Result, list[str]]:
        """Makes a file's folder and returns what `action` does in it, and folders to be flushed.

        Another process may remove the folder, as an empty one, before anything is in it.
        """
        changed: list[str] = []
        for left in reversed(range(FOLDER_TRIES)):
            try:
                changed += self._make_parent(relative)
                return action(), changed
            except FileNotFoundError:
                if not (left and self.is_local):
                    raise
        raise AssertionError("the last try returns or raises")

    def _rename(self, source: str, target: str, keep: bool, tag: str | None) -> list[str]:
        old, new = self.path(source), self.path(target)
        if self.is_local:
            Path(old).replace(new)
            return [posixpath.dirname(new)]
        self._call(source, partial(self._client.copy, self._filesystem, old, new, tag))
        if not keep:
            self._call(source, lambda: self._filesystem.rm_file(old))
        return []

    def remove(self, relative: str, flush: bool = False) -> None:
        """Removes a file or a folder with all it holds; nothing there is fine.

        Args:
            relative: Path below the store's folder.
            flush: It stays removed after a power cut; without, it may be there again.
        """
        path = self.path(relative)
        self._call(relative, partial(self._remove, path))
        if flush and self.is_local:
            flush_folders([posixpath.dirname(path)])

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            if self._filesystem.info(path)["type"] == "file":
                # S3's way to remove many at once would keep an error to itself.
                self._filesystem.rm_file(path)
            elif self.is_local:
                remove_folder(path)
            else:
                self._filesystem.rm(path, recursive=True)

    def sweep_unfinished(self, pattern: str) -> None:
        """Removes what processes that are dead left half-written in local folders of a pattern.

        Of other machines, whose processes cannot be asked, what is older than a day.
        """
        if not self.is_local:
            return
        for path in Path(self.path("")).glob(f"{pattern}/*.tmp"):
            found = _UNFINISHED.search(path.name)
            with suppress(OSError):
                if found and _is_abandoned(path, *found.groups()):
                    path.unlink(missing_ok=True)

    def abort_uploads(self, folder: str) -> None:
        """Removes what uploads in parts that were not ended left below a folder of an object store.

        Nobody else may be at work in the folder.
        """
        if not self.is_local:
            abort = partial(self._client.abort_uploads, self._filesystem, self.path(folder))
            self._call(folder, abort)

    def _make_parent(self, relative: str) -> list[str]:
        """Makes a file's folder; returns the local folders that are to be flushed for it."""
        if remote.is_object_store(self.address):
            return []
        folder = posixpath.dirname(self.path(relative))
        if self.is_local:
            return make_folders(folder)
        self._call(relative, lambda: self._filesystem.makedirs(folder, exist_ok=True))
        return []

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


def _is_abandoned(path: Path, tag: str, pid: str) -> bool:
    if tag == machine_tag():
        return start_of(int(pid)) is None
    return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
