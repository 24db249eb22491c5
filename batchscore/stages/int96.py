"""INT96 timestamps: where a shard has them, and whether the unit that is read holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import Int96Error
from batchscore.storage.parquet import LeafReader

# Seconds hold every INT96 value. What lies in a unit's first or last second counts as outside.
GUARD = "s"
_PER_SECOND = {"us": 10**6, "ns": 10**9}
_REMEDIES = {"ns": "set input.int96: us", "us": "write it again, or leave the column out"}


def int96_columns(schema: pq.ParquetSchema) -> list[int]:
    """Returns the indices of leaf columns, nested ones among them, that are INT96."""
    leaves = range(len(schema))
    return [index for index in leaves if schema.column(index).physical_type == "INT96"]


class Int96Guard:
    """Compares a shard's INT96 values with what a unit holds, before their rows are used.

    Arrow lets a value wrap that is beyond the unit: year 9999 becomes 1816 in nanoseconds. So the
    columns are decoded a second time, in seconds.

    Args:
        path: The shard.
        file: The shard, opened to read INT96 as seconds.
        names: Top-level columns that are read.
        unit: `ns` or `us`.
    """

    def __init__(self, path: str, file: LeafReader, names: Collection[str], unit: str) -> None:
        self._path, self._file, self._unit = path, file, unit
        schema = file.metadata.schema
        paths = {index: schema.column(index).path for index in int96_columns(schema)}
        self._leaves = [i for i, path in paths.items() if _is_part(path, names)]
        self._ahead: Iterator[pa.RecordBatch] = iter(())
        self._rows = 0

    def start(self, batch_rows: int, row_groups: list[int]) -> None:
        """Begins with the first row of row groups."""
        self._rows = 0
        if self._leaves:
            self._ahead = self._file.iter_batches(
                batch_rows, row_groups, self._leaves, use_threads=False
            )

    def check(self, rows: int) -> None:
        """Compares the next rows.

        Raises:
            Int96Error: One holds a value that the unit does not.
        """
        self._rows -= rows
        while self._leaves and self._rows < 0:
            batch = next(self._ahead)
            self._rows += batch.num_rows
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                self._check(name, column)

    def _check(self, name: str, column: pa.Array) -> None:
        bound = (1 << 63) // _PER_SECOND[self._unit]
        for seconds in _leaves(column):
            found = pc.min_max(seconds.cast(pa.int64())).as_py()
            for value in (found["min"], found["max"]):
                if value is not None and not -bound <= value < bound:
                    raise Int96Error(self._path, self._problem(name, value))

    def _problem(self, name: str, value: int) -> str:
        digits = {"ns": "nanoseconds", "us": "microseconds"}[self._unit]
        return (
            f"column {name!r} holds the INT96 timestamp {np.datetime64(value, 's')}, which "
            f"64 bits of {digits} cannot; {_REMEDIES[self._unit]}"
        )


def _is_part(path: str, names: Collection[str]) -> bool:
    # A column's own name may have dots.
    return path in names or any(path.startswith(f"{name}.") for name in names)


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    """Yields the arrays of values that a column is made of."""
    if isinstance(column, pa.MapArray):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif isinstance(column, pa.StructArray):
        for part in column.flatten():
            yield from _leaves(part)
    elif pa.types.is_nested(column.type):
        yield from _leaves(pc.list_flatten(column))
    else:
        yield column
