"""Profile the columns of record batches in mergeable, canonical accumulators."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from batchscore.drift.column import ColumnProfile, Hint, new_column, type_name
from batchscore.errors import InputError


@dataclass
class TableProfile:
    """Profiles of a table's columns by name; a column is there from the first batch that has it.

    The same rows give the same profile in every partition, order and merge tree.

    Args:
        columns: What was profiled so far.
        hints: What is known of columns in addition to their types; not stored.
    """

    columns: dict[str, ColumnProfile] = field(default_factory=dict)
    hints: Mapping[str, Hint] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> TableProfile:
        """Returns the profile of no rows, neutral in `merge`."""
        return cls()

    @property
    def rows(self) -> int:
        """The rows that were profiled; of columns that differ, the most."""
        return max((column.count for column in self.columns.values()), default=0)

    def update(self, batch: pa.RecordBatch) -> None:
        """Adds the rows of `batch`; nothing is added where InputError is raised.

        InputError: a column's type differs from before, or two columns have one name.
        """
        names = batch.schema.names
        types = dict(zip(names, batch.schema.types, strict=True))
        if len(types) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"column {twice!r} appears twice; rename one")
        self._require({name: (type_name(type_), None) for name, type_ in types.items()})
        for name, array in zip(types, batch.columns, strict=True):
            if name not in self.columns:
                self.columns[name] = new_column(types[name], self.hints.get(name))
            self.columns[name].update(array)

    def merge(self, other: TableProfile) -> None:
        """Adds what `other` has seen; raises InputError where a column's types or kinds differ."""
        self._require({name: (each.type, each.kind) for name, each in other.columns.items()})
        for name, column in other.columns.items():
            if name in self.columns:
                self.columns[name].merge(column)
            else:
                self.columns[name] = copy.deepcopy(column)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Returns the JSON-able statistics of each column, names sorted."""
        return {name: self.columns[name].summary() for name in sorted(self.columns)}

    def _require(self, found: Mapping[str, tuple[str, str | None]]) -> None:
        for name, (type_, kind) in found.items():
            known = self.columns.get(name)
            if known is None:
                continue
            if known.type != type_:
                raise InputError(
                    f"column {name!r} is {type_}, but was {known.type} in what was profiled "
                    f"before; one column has one type, so cast it to {known.type}"
                )
            if kind is not None and known.kind != kind:
                raise InputError(
                    f"column {name!r} was profiled as {kind} and as {known.kind}; profile both "
                    "sides the same way"
                )
