"""Stores that are not a local disk: which kind an address is of, how it is opened and written."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batchscore.messages.addresses import redacted_address
from batchscore.storage.retries import naming_store_errors, patiently

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


def is_object_store(address: str) -> bool:
    """Tells whether an address is of a store of objects, which has no folders to be made."""
    return "::" not in address and fsspec.core.split_protocol(address)[0] in _OBJECT_STORES


def is_s3(address: str) -> bool:
    """Tells whether an address is of S3 or of a store that speaks its language."""
    return is_object_store(address) and address.startswith(("s3:", "s3a:"))


def connect(address: str, once: bool = False) -> tuple[Any, str]:
    """Returns the fsspec filesystem of an address and the path within it.

    That of an object store keeps no listings, so that each look sees what is there.

    Args:
        address: Local or any fsspec one.
        once: On S3, tries each request once, for a caller that tries again by itself.

    Raises:
        OSError: The address is of no known kind, or its library is not installed.
    """
    # What fsspec would find, too, a hundred times as fast: thousands of shards are looked at.
    if address.startswith("/") and "::" not in address and "://" not in address:
        return _local_disk(), address.rstrip("/") or "/"
    try:
        return _connect(address, once)
    except ImportError as error:
        raise OSError(
            f"{redacted_address(address)}: {error}; the extras batchscore[s3] and "
            "batchscore[gcp] install it"
        ) from error
    except ValueError as error:
        raise OSError(f"{redacted_address(address)}: {error}") from error


@cache
def _local_disk() -> LocalFileSystem:
    return LocalFileSystem()


def _connect(address: str, once: bool) -> tuple[Any, str]:
    if not is_s3(address):
        return _open(address, {"use_listings_cache": False} if is_object_store(address) else {})
    from batchscore.storage import s3  # late: its libraries are an extra

    filesystem, path = _open(address, s3.options(once))
    if once:
        filesystem.retries = 1
    return filesystem, path


def _open(address: str, options: dict[str, Any]) -> tuple[Any, str]:
    filesystem, path = fsspec.core.url_to_fs(address, **options)
    return filesystem, str(path).rstrip("/") or "/"


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

    def close(self) -> None:
        """Ends the file, after which it is seen; OSError if the store does not take it."""
        if self.closed:
            return
        super().close()
        with naming_store_errors(self._url):
            self._file.close()
