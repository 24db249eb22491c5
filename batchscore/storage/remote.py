"""Stores that are not a local disk: which kind an address is of, how it is opened and written."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache, partial
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from batchscore.messages.addresses import redacted_address
from batchscore.messages.wording import one_line
from batchscore.storage import unconditional
from batchscore.storage.client import Client
from batchscore.storage.retries import naming_store_errors, patiently
from batchscore.storage.tail import TailFile

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


def is_object_store(address: str) -> bool:
    """Tells whether an address is of a store of objects, which has no folders to be made."""
    return "::" not in address and fsspec.core.split_protocol(address)[0] in _OBJECT_STORES


def missing_bucket(address: str) -> str:
    """Says that an object store has no bucket of an address; empty if it has, or is another."""
    if not is_object_store(address):
        return ""
    filesystem, path = connect(address)
    bucket = path.partition("/")[0]
    if filesystem.exists(bucket):
        return ""
    return (
        f"there is no bucket {one_line(bucket)!r}, or these credentials do not see it; create it, "
        "or correct the address"
    )


def client_of(address: str) -> Client:
    """Returns the module for the store of an address.

    Raises:
        OSError: The store's library is not installed.
    """
    kind = fsspec.core.split_protocol(address)[0] if is_object_store(address) else None
    try:
        # Late, since their libraries are extras.
        if kind in ("s3", "s3a"):
            from batchscore.storage import s3

            return s3
        if kind in ("gs", "gcs"):
            from batchscore.storage import gcs

            return gcs
    except ImportError as error:
        raise _not_installed(address, error) from error
    return unconditional


def connect(address: str, once: bool = False) -> tuple[Any, str]:
    """Returns the fsspec filesystem of an address and the path within it.

    That of an object store keeps no listings, so that each look sees what is there.

    Args:
        address: Local or any fsspec one.
        once: On S3 and Google Cloud Storage, tries each request once, for a caller that tries
            again by itself.

    Raises:
        OSError: The address is of no known kind, or its library is not installed.
    """
    # What fsspec would find, too, a hundred times as fast: thousands of shards are looked at.
    if address.startswith("/") and "::" not in address and "://" not in address:
        return _local_disk(), address.rstrip("/") or "/"
    try:
        filesystem, path = client_of(address).connect(address, once)
        return filesystem, path.rstrip("/") or "/"
    except ImportError as error:
        raise _not_installed(address, error) from error
    except ValueError as error:
        raise OSError(f"{redacted_address(address)}: {error}") from error


def _not_installed(address: str, error: ImportError) -> OSError:
    extras = "the extras batchscore[s3] and batchscore[gcs] install it"
    return OSError(f"{redacted_address(address)}: {error}; {extras}")


@cache
def _local_disk() -> LocalFileSystem:
    return LocalFileSystem()


def open_tail(address: str, size: int) -> TailFile:
    """Opens a remote file to be read from its end.

    Args:
        address: The file's.
        size: Its bytes, as it was listed.
    """
    filesystem, path = connect(address)
    return TailFile(partial(client_of(address).read, filesystem, path), size)


def download(filesystem: Any, path: str, url: str) -> Download:
    """Opens a remote file to be read in parts.

    Args:
        filesystem: The file system as `connect` returns it; it should try each request once.
        path: Within the filesystem.
        url: What errors call the file.

    Raises:
        OSError: It is missing, is a folder, or the store does not answer.
    """
    return Download(patiently(url, lambda: _open_file(filesystem, path)), url)


def _open_file(filesystem: Any, path: str) -> Any:
    if filesystem.info(path)["type"] == "directory":
        raise IsADirectoryError("it is a folder, expected a file")
    return filesystem.open(path, "rb")


class Download(io.BufferedIOBase):
    """A remote file being read; each part is tried again where the trouble passes."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def readable(self) -> bool:
        """Tells that it is there to be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next bytes; OSError if the store does not give them."""
        start = self._file.tell()
        return patiently(self._url, lambda: self._read(start, -1 if size is None else size))

    def _read(self, start: int, size: int) -> bytes:
        if self._file.tell() != start:
            self._file.seek(start)
        return bytes(self._file.read(size))

    def close(self) -> None:
        """Gives back what the store's client keeps for the file."""
        super().close()
        self._file.close()


class Upload(io.BufferedIOBase):
    """A remote file being written, whose errors are Python's own."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def writable(self) -> bool:
        """Tells that it is there to be written."""
        return True

    def tell(self) -> int:
        """Returns the bytes written so far."""
        return int(self._file.tell())

    def write(self, data: Any, /) -> int:
        """Writes bytes; OSError if the store does not take them."""
        with naming_store_errors(self._url):
            return int(self._file.write(data))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        """Leaves a file that nobody closed unseen: its end is missing."""
        self._forget()

    def discard(self) -> None:
        """Ends the file without its being seen, as far as the store answers."""
        if not self.closed:
            super().close()
            with suppress(Exception), naming_store_errors(self._url):
                self._file.discard()
            self._forget()

    def _forget(self) -> None:
        if isinstance(self._file, AbstractBufferedFile):  # it would be ended when it is collected
            self._file.closed = True

    def close(self) -> None:
        """Ends the file, after which it is seen; OSError if the store does not take it."""
        if self.closed:
            return
        super().close()
        with naming_store_errors(self._url):
            self._file.close()
