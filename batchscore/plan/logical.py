"""The types of a shard's columns, leaf by leaf, as its Parquet schema annotates them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import change_parts, has_extension, is_list

Change = Callable[[pa.DataType, pq.ColumnSchema], pa.DataType]

# Annotations that Arrow reads past and does not write.
_UNWRITTEN = ("BSON", "Enum", "Geography", "Geometry", "Interval")
_UUID_STORAGE = pa.binary(16)
# A column of its own begins two spaces in; what it is made of, further in.
_COLUMN = re.compile(r"^ {2}(?:required|optional|repeated) ")
_VARIANT = re.compile(r" \(Variant(?:\(\d+\))?\) \{$")


@dataclass(frozen=True)
class Logical:
    """What annotations say of columns beyond their plain types.

    Args:
        marked: By column, its type with UUID and JSON as Arrow's extension types, at any depth.
        unwritten: By column, an annotation that Arrow does not write.
    """

    marked: Mapping[str, pa.DataType] = field(default_factory=dict)
    unwritten: Mapping[str, str] = field(default_factory=dict)


NOTHING = Logical()


def change_leaves(schema: pa.Schema, stored: pq.ParquetSchema, change: Change) -> pa.Schema:
    """Returns a shard's Arrow schema with another type in place of each leaf's.

    Args:
        schema: The schema that Arrow makes of `stored`, and of the Arrow schema next to it.
        stored: The shard's own schema.
        change: Called with a leaf's type and its column of `stored`.
    """
    leaves = (stored.column(index) for index in range(len(stored)))
    return pa.schema([each.with_type(_changed(each.type, leaves, change)) for each in schema])


def _changed(kind: pa.DataType, leaves: Iterator[pq.ColumnSchema], change: Change) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        # Its type says more than the annotations of what it is stored as.
        _changed(kind.storage_type, leaves, change)
        return kind
    if not _has_parts(kind):
        return change(kind, next(leaves))
    return change_parts(kind, lambda part: _changed(part, leaves, change))


def _has_parts(kind: pa.DataType) -> bool:
    return bool(is_list(kind) or pa.types.is_struct(kind) or pa.types.is_map(kind))


def as_microseconds(kind: pa.DataType, column: pq.ColumnSchema) -> pa.DataType:
    """Returns an INT96 timestamp's type in microseconds, and any other leaf's as it is."""
    return pa.timestamp("us") if column.physical_type == "INT96" else kind


def read_logical(schema: pa.Schema, stored: pq.ParquetSchema, arrow: bool) -> Logical:
    """Returns what a shard's annotations say.

    Args:
        schema: The shard's columns as they are read.
        stored: The shard's own schema.
        arrow: Whether an Arrow schema is next to it. Arrow's writers then mark times of day as
            UTC or not by their version, and not by what they are.
    """
    unwritten = _variants(schema, stored)
    marked = dict[str, pa.DataType]()
    leaves = (stored.column(index) for index in range(len(stored)))
    for each in schema:
        found = list[str]()

        def mark(kind: pa.DataType, leaf: pq.ColumnSchema, found: list[str] = found) -> pa.DataType:
            said = json.loads(leaf.logical_type.to_json())
            if said["Type"] in _UNWRITTEN:
                found.append(said["Type"].upper())
            if said["Type"] == "Time" and said["isAdjustedToUTC"] and not arrow:
                found.append("TIME in UTC")
            return _marked(said["Type"], kind)

        kind = _changed(each.type, leaves, mark)
        # An extension type of the Arrow schema's own is read as it is, but within another type.
        own = isinstance(each.type, pa.BaseExtensionType)
        marked |= {each.name: kind} if has_extension(kind) and not own else {}
        unwritten |= {each.name: found[0]} if found else {}
    return Logical(marked, unwritten)


def _marked(annotation: str, kind: pa.DataType) -> pa.DataType:
    if annotation == "UUID" and kind == _UUID_STORAGE:
        return pa.uuid()
    texts = kind in (pa.string(), pa.large_string())
    # Arrow has a type for JSON since version 19.
    return pa.json_(kind) if annotation == "JSON" and texts and hasattr(pa, "json_") else kind


def _variants(schema: pa.Schema, stored: pq.ParquetSchema) -> dict[str, str]:
    """Returns the columns with variants, which annotate a group; only the schema's text has it."""
    text = str(stored)
    if "(Variant" not in text:
        return {}
    found, index = {}, -1
    for line in text.splitlines():
        index += bool(_COLUMN.match(line))
        if _VARIANT.search(line):
            found[schema.names[index]] = "VARIANT"
    return found
