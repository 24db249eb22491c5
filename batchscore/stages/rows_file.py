"""Which row of its unit each written row is: the rows file of an attempt."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import to_arrow
from batchscore.stages.sidecar import Sidecar
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store

ROW_GROUP_ROWS = 1 << 20
_SCHEMA = pa.schema(
    [pa.field("file", pa.int32(), nullable=False), pa.field("row", pa.int64(), nullable=False)]
)
# Evenly spaced numbers take about no bytes, so that headers of pages would be all there is. Where
# a pyarrow has no such bound, a page ends by its bytes alone.
_PAGES = (
    {"max_rows_per_page": ROW_GROUP_ROWS}
    if "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters
    else {}
)
_OPTIONS = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": dict.fromkeys(_SCHEMA.names, "DELTA_BINARY_PACKED"),
    "write_statistics": ["file"],
    **_PAGES,
}


class RowsFile:
    """Writes a row for each row that an attempt writes, in that order.

    `file` is the number of the staged file, as its name has it, and `row` the row's number within
    the unit: the k-th row with a file's number is the k-th row of that file.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._sidecar = Sidecar(store, path, **_OPTIONS)
        self._files: list[int] = []
        self._chunks: list[pa.Array] = []
        self._rows = 0

    @property
    def written(self) -> str | None:
        """The file's path, or None where no row was written."""
        return self._sidecar.written

    @property
    def digest(self) -> Digest | None:
        """Bytes and SHA-256 of the closed file, or None where there is none."""
        return self._sidecar.digest

    def add(self, file: int, chunks: Sequence[pa.Array]) -> None:
        """Takes the int64 numbers of rows just written to a file, as arrays one after another."""
        for chunk in chunks:
            self._files.append(file)
            self._chunks.append(chunk)
            self._rows += len(chunk)
            if self._rows >= ROW_GROUP_ROWS:
                self._flush()

    def close(self) -> None:
        """Completes the file."""
        self._flush()
        self._sidecar.close()

    def abort(self) -> None:
        """Closes the file without its end; what was written stays."""
        self._sidecar.abort()

    def _flush(self) -> None:
        if self._rows:
            sizes = [len(chunk) for chunk in self._chunks]
            files_n = np.repeat(np.array(self._files, np.int32), sizes)
            columns = [to_arrow(files_n), pa.concat_arrays(self._chunks)]
            table = pa.Table.from_arrays(columns, schema=_SCHEMA)
            self._sidecar.write(table, ROW_GROUP_ROWS)
        self._files, self._chunks, self._rows = [], [], 0
