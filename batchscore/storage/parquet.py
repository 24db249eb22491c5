"""Parquet files at any address, opened so that memory holds some pages and never a row group."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from typing_extensions import Self

from batchscore.storage.remote import client_of

_REMOTE_BUFFER_BYTES = 1 << 20
# A local file of so many bytes is read at once: a call for each of its columns costs more.
_WHOLE_BYTES = 1 << 20
_CLIENTS = {"s3", "s3a", "gs", "gcs"}
_DISK = pyarrow.fs.LocalFileSystem()


class LeafReader(pq.ParquetReader):
    """A Parquet file that is read by its leaf columns.

    `ParquetFile`, which reads by names, takes half of the time to open a small file for its own
    list of these.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def extension_options(opens: Callable[..., Any]) -> dict[str, Any]:
    """Returns the option for types such as UUID, or none if Arrow is older than version 21.

    Args:
        opens: Arrow's own way to open a file.
    """
    name = "arrow_extensions_enabled"
    return {name: True} if name in inspect.signature(opens).parameters else {}


_EXTENSIONS = extension_options(pq.ParquetFile)


def open_reader(
    filesystem: Any, path: str, local_buffer_bytes: int, size: int | None = None, **options: Any
) -> LeafReader:
    """Opens a Parquet file to be read page by page, by its leaf columns.

    Args:
        filesystem: An fsspec one.
        path: The file's path within it.
        local_buffer_bytes: Bytes of one read from a local disk; from elsewhere it is 1 MiB. A local
            file of up to 1 MiB is read at once.
        size: Its bytes, if they are known: an object store is not asked for them, and a file of up
            to 1 MiB is read in one request, by which the store's checksum is compared.
        options: Further ones of `pyarrow.parquet.ParquetReader.open`.

    Raises:
        Exception: It cannot be opened, or is not Parquet. Clients of stores raise their own errors.
    """
    if "file" not in filesystem.protocol:
        return _opened(*_remote(filesystem, path, size), **options)
    # By a path Arrow would look at the file once more.
    file = _DISK.open_input_file(path)
    if file.size() > _WHOLE_BYTES:
        return _opened(file, local_buffer_bytes, **options)
    with file:
        # Without buffers of their own, columns are read where they lie in memory.
        return _opened(pa.BufferReader(file.read_buffer()), 0, **options)


def open_footer(file: pa.NativeFile, metadata: pq.FileMetaData | None = None) -> LeafReader:
    """Returns what reads an open Parquet file for its footer alone.

    Args:
        file: The file.
        metadata: Its footer, if it was read before.

    Raises:
        Exception: Arrow's own errors, if it has none.
    """
    # Without a buffer, to open a column would read all of its chunk.
    return _opened(file, 1, metadata=metadata)


def _opened(source: Any, buffer_bytes: int, **options: Any) -> LeafReader:
    reader = LeafReader()
    reader.open(
        source,
        use_memory_map=False,
        pre_buffer=False,
        buffer_size=buffer_bytes,
        **_EXTENSIONS,
        **options,
    )
    return reader


def open_parquet(
    filesystem: Any, path: str, local_buffer_bytes: int, cache: str = "readahead", **options: Any
) -> pq.ParquetFile:
    """Opens a Parquet file to be read page by page.

    Args:
        filesystem: An fsspec one.
        path: The file's path within it.
        local_buffer_bytes: Bytes of one read from a local disk; from elsewhere it is 1 MiB.
        cache: How fsspec keeps what it fetched from a remote store.
        options: Further ones of `pyarrow.parquet.ParquetFile`.

    Raises:
        Exception: It cannot be opened, or is not Parquet. Clients of stores raise their own errors.
    """
    source, size = path, local_buffer_bytes
    if "file" not in filesystem.protocol:
        source, size = filesystem.open(path, "rb", cache_type=cache), _REMOTE_BUFFER_BYTES
    # Buffered ahead, a whole row group would be in memory.
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=size, **options)


def is_read_at_once(address: str, size: int) -> bool:
    """Tells whether `open_reader` gets a file of a size in one request, as it is at one moment."""
    return size <= _WHOLE_BYTES and address.partition(":")[0] in _CLIENTS


def _remote(filesystem: Any, path: str, size: int | None) -> tuple[Any, int]:
    """Returns what Arrow opens of a remote file, and the bytes of one read."""
    address = str(filesystem.unstrip_protocol(path))
    if size is not None and is_read_at_once(address, size):
        return pa.BufferReader(client_of(address).read(filesystem, path)), 0
    known = {"size": size} if size is not None and address.partition(":")[0] in _CLIENTS else {}
    return filesystem.open(path, "rb", cache_type="readahead", **known), _REMOTE_BUFFER_BYTES
