"""From a published row back to its row of the unit: the rows file of an attempt, read.

Suffixes: `_m` rows of a batch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.columnar.arrays import Array, python_rows, to_numpy
from batchscore.errors import RecordError
from batchscore.messages.wording import counted
from batchscore.runs.open_table import open_table
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord

_BATCH_ROWS = 131_072
_NUMBER = re.compile(r"([0-9]+)\.parquet$")


def source_rows(store: Store, record: UnitRecord, file: str) -> Iterator[Array]:
    """Yields int64 numbers (n,) within the unit of a file's rows, in the file's order.

    Args:
        store: The output.
        record: Record of the attempt that wrote the file.
        file: Its path, staged or published.

    Raises:
        RecordError: The rows file is not there or damaged.
    """
    number = _file_number(file)
    if record.rows_file is None:
        return
    with open_table(store, record.rows_file) as rows:
        groups = [group for group in range(rows.num_row_groups) if _holds(rows, group, number)]
        for batch in rows.iter_batches(_BATCH_ROWS, groups, ["file", "row"]):
            row_n = batch.column("row").filter(pc.equal(batch.column("file"), number))
            if len(row_n):
                yield to_numpy(row_n)


def find_source_rows(store: Store, record: UnitRecord, file: str, positions_n: Array) -> Array:
    """Returns the int64 numbers (n,) within the unit of a file's rows at some positions (n,).

    Raises:
        RecordError: The rows file is not there, is damaged, or knows fewer rows of the file.
    """
    found_n = np.full(len(positions_n), -1, np.int64)
    start = 0
    for row_m in source_rows(store, record, file):
        here_n = (positions_n >= start) & (positions_n < start + len(row_m))
        found_n[here_n] = row_m[positions_n[here_n] - start]
        start += len(row_m)
    if (found_n < 0).any():
        position = int(positions_n[np.argmin(found_n)])
        raise RecordError(
            f"file {store.url(file)}: row {position:,} was requested, but its rows file "
            f"{record.rows_file} lists {counted(start, 'row')} of it; restore it, or score the "
            "slice again with --rescore"
        )
    return found_n


def find_scored_row(store: Store, record: UnitRecord, row: int) -> tuple[str, int]:
    """Returns the scored file that a row of a unit was written to, and its position in it.

    Raises:
        RecordError: The rows file is not there, is damaged, or does not know the row.
    """
    files = {_file_number(file.staged): file.staged for file in record.files}
    before = Counter[int]()
    with open_table(store, record.rows_file or "") as rows:
        for batch in rows.iter_batches(_BATCH_ROWS, columns=["file", "row"]):
            file_n, row_n = (to_numpy(column) for column in batch.columns)
            at = np.flatnonzero(row_n == row)
            if len(at) and int(file_n[at[0]]) in files:
                number = int(file_n[at[0]])
                position = before[number] + np.count_nonzero(file_n[: at[0]] == number)
                return files[number], int(position)
            before.update(dict(zip(*np.unique(file_n, return_counts=True), strict=True)))
    raise RecordError(f"rows file {record.rows_file}: does not list row {row:,} of its unit")


def read_row(store: Store, path: str, position: int, columns: list[str]) -> dict[str, Any]:
    """Returns some columns of one row of a scored file, in bounded memory.

    Raises:
        RecordError: The file is missing or damaged, or has no such row.
    """
    with open_table(store, path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            if position < batch.num_rows:
                return python_rows(batch.slice(position, 1))[0]
            position -= batch.num_rows
    raise RecordError(f"file {store.url(path)}: has fewer rows than its rows file lists")


def _file_number(file: str) -> int:
    match = _NUMBER.search(file)
    if match is None:
        raise RecordError(
            f"file {file}: expected a name that ends in a number and .parquet, as every scored "
            "file has; a renamed file cannot be traced"
        )
    return int(match[1])


def _holds(rows: pq.ParquetFile, group: int, number: int) -> bool:
    """Tells whether a row group may hold rows of a file, by its statistics if it has them."""
    statistics = rows.metadata.row_group(group).column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= number <= statistics.max)
