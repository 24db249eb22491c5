"""Parquet files at any address, opened so that memory holds some pages and never a row group."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

_REMOTE_BUFFER_BYTES = 1 << 20


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
