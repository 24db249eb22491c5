"""The leaf columns of shards that are read, looked up once for shards that are alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.storage.parquet import LeafReader


@dataclass(frozen=True)
class Leaves:
    """Leaf columns of shards that are alike, as indices in the order of their footers.

    Args:
        stored: The shards' schema.
        paths: Names of each leaf, from its top-level column down.
        columns: Names of the columns that are read.
        read: Leaves of these columns.
        fixed_bits: Bits that the plain numbers, times and booleans of a row take.
        unsized: Leaves whose decoded bytes the run's types do not tell.
        is_nested: Whether there are lists, structs or maps among the columns.
        flat: First leaf that has a value or a null for each row; None without one.
    """

    stored: pq.ParquetSchema
    paths: list[list[str]]
    columns: list[str]
    read: list[int]
    fixed_bits: int
    unsized: list[int]
    is_nested: bool
    flat: int | None


class LeafLookup:
    """Looks up the leaf columns of shards; threads may share one.

    Most shards of a run are alike, so the last answer is kept and compared.

    Args:
        schema: The columns that the run reads, in its types.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._last: Leaves | None = None

    def leaves(self, file: LeafReader, columns: list[str]) -> Leaves:
        """Returns the leaves of a shard's columns; those that it lacks have none."""
        last, stored, paths = self._last, file.metadata.schema, file.column_paths
        # Parquet's schemas are equal if their leaves are, whatever these are part of.
        alike = last is not None and last.paths == paths and stored.equals(last.stored)
        if last is None or not (alike and last.columns == columns):
            self._last = last = _look_up(stored, paths, columns, self._schema)
        return last


def _look_up(
    stored: pq.ParquetSchema, paths: list[list[str]], columns: list[str], schema: pa.Schema
) -> Leaves:
    fields = [schema.field(name) for name in columns]
    primitive = [each for each in fields if pa.types.is_primitive(each.type)]
    others = {each.name for each in fields if not pa.types.is_primitive(each.type)}
    read = _of(columns, paths)
    return Leaves(
        stored=stored,
        paths=paths,
        columns=columns,
        read=read,
        fixed_bits=sum(each.type.bit_width for each in primitive),
        unsized=[leaf for leaf in read if paths[leaf][0] in others],
        is_nested=any(pa.types.is_nested(each.type) for each in fields),
        flat=next((i for i in sorted(read) if not stored.column(i).max_repetition_level), None),
    )


def _of(columns: Iterable[str], paths: Sequence[list[str]]) -> list[int]:
    tops: dict[str, list[int]] = {}
    for leaf, (top, *_) in enumerate(paths):
        tops.setdefault(top, []).append(leaf)
    return [leaf for name in columns for leaf in tops.get(name, ())]
