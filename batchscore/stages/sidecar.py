"""A Parquet file that an attempt writes next to the scored ones, started with its first rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.stages.hashed_file import HashedFile
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store

_WRITE_BYTES = 1 << 20


def buffered(file: Any) -> pa.NativeFile:
    """Returns what Arrow writes to: the file, open for writing, gets a megabyte at a time.

    Each write of Python's waits for the interpreter, and a page is a few small ones.
    """
    return pa.BufferedOutputStream(pa.PythonFile(file, mode="w"), _WRITE_BYTES)


class Sidecar:
    """Writes one file; without rows there is none.

    Args:
        store: The output.
        path: Where it lies within.
        options: Parquet's.
    """

    def __init__(self, store: Store, path: str, **options: Any) -> None:
        self._store, self._path, self._options = store, path, options
        self._file: HashedFile | None = None
        self._stream: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    @property
    def written(self) -> str | None:
        """The file's path once it holds rows, else None."""
        return None if self._writer is None else self._path

    @property
    def digest(self) -> Digest | None:
        """Bytes and SHA-256 of the closed file, or None where there is none."""
        return None if self._file is None else self._file.digest

    def write(self, table: pa.Table, row_group_rows: int) -> None:
        """Writes rows, if there are any, as row groups of their own."""
        if not table.num_rows:
            return
        if self._writer is None:
            self._file = HashedFile(self._store.create(self._path))
            self._stream = buffered(self._file)
            self._writer = pq.ParquetWriter(self._stream, table.schema, **self._options)
        self._writer.write_table(table, row_group_size=row_group_rows)

    def close(self, metadata: Mapping[str, str] | None = None) -> None:
        """Completes the file, with more key-value metadata in its footer."""
        if self._writer is None or self._stream is None or self._file is None:
            return
        if metadata:
            self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        # The writer does not close a file that it was given.
        self._stream.close()
        self._file.close()

    def abort(self) -> None:
        """Closes the file without its end; what was written stays."""
        for each in (self._writer, self._stream, self._file):
            if each is not None:
                with suppress(Exception):
                    each.close()
