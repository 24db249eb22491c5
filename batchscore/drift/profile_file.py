"""Store a table profile with its caller's record in one small Parquet file, and read it back.

Suffixes: `_r` rows of the file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from batchscore.columnar.arrays import binary_array, to_arrow, valid_values
from batchscore.drift.accumulator import Accumulator, Part
from batchscore.drift.column import ColumnProfile, Kind, restore_aspect
from batchscore.drift.table import TableProfile
from batchscore.errors import RecordError
from batchscore.messages.wording import counted
from batchscore.storage.documents import parse_json

# It is no part of what decides scores: published units keep their profiles through an upgrade, so a
# later version must read the files of earlier ones.
VERSION = 1
PROFILE_KEY = b"batchscore.profile"
RECORD_KEY = b"batchscore.record"

_SCHEMA = pa.schema(
    [
        ("aspect", pa.int32()),
        ("part", pa.string()),
        ("shift", pa.uint8()),
        ("key", pa.uint64()),
        ("count", pa.int64()),
        ("value", pa.binary()),
    ]
)
_EARLIER = ["column", "shift", "prefix", "count"]
_ENCODINGS = {
    "aspect": "DELTA_BINARY_PACKED",
    "shift": "PLAIN",
    "key": "DELTA_BINARY_PACKED",
    "count": "DELTA_BINARY_PACKED",
    "value": "DELTA_LENGTH_BYTE_ARRAY",
}
_MOST_ROWS = 1 << 20  # of one aspect: covariances of 512 dimensions need half of it
_MOST_VALUE_BYTES = 64 << 20
_Parts = dict[int, dict[str, Part]]
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, RecursionError)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _AspectRecord(_Record):
    """An accumulator's scalars; floats and bytes are hexadecimal, so that they return exactly."""

    name: str
    kind: str
    type: str
    scalars: dict[str, Any]


class _ColumnRecord(_Record):
    name: str
    type: str
    kind: Kind
    count: NonNegativeInt
    nulls: NonNegativeInt = 0
    spoiled: NonNegativeInt = 0
    aspects: list[_AspectRecord] = []


class _ProfileRecord(_Record):
    version: Literal[1]
    columns: list[_ColumnRecord]


class _PartRow(NamedTuple):
    """A part of the aspect of that number."""

    aspect: int
    name: str
    part: Part


_PROFILE = TypeAdapter(_ProfileRecord)


def write_table(profile: TableProfile, meta: Mapping[str, Any], extra: bool | None = None) -> bytes:
    """Returns a Parquet file of a profile; equal profile and equal `meta` give equal bytes.

    The columns' scalars, sorted by name, and `meta`, which must be JSON-able and without NaN, are
    JSON in the file's metadata; each row is one of an accumulator's parts. docs/profile-format.md
    describes it.

    Args:
        extra: Whether to store only the parts that are large or approximate, or all but these; by
            default all. Only without them is the content free of how the data were split.
    """
    columns = sorted(profile.columns.items())
    record = _ProfileRecord(version=1, columns=[_column_record(*each) for each in columns])
    metadata = {
        PROFILE_KEY: _json(record.model_dump(exclude_defaults=True)),
        RECORD_KEY: _json(meta),
    }
    table = _parts_table(list(_rows(profile, extra)))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=["part"],
        column_encoding=_ENCODINGS,
        write_statistics=False,
        store_schema=False,  # would repeat the metadata in base64
    ) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())


def read_table(data: bytes, extra: bytes | None = None) -> tuple[TableProfile, dict[str, Any]]:
    """Returns the profile and the `meta` that `write_table` was given.

    Args:
        data: The file.
        extra: The file of the large and approximate parts, where they were stored apart.

    Raises:
        RecordError: The bytes are not such a file, or are damaged.
    """
    try:
        parts, record, meta = _parse(data)
        if extra is not None:
            _add_extra(parts, record, extra)
        numbers = itertools.count()
        columns = {each.name: _column(each, parts, numbers) for each in record.columns}
        if len(columns) < len(record.columns):
            raise ValueError("two columns have one name")
    except _DAMAGE as error:
        raise RecordError(
            f"a profile of {counted(len(data), 'byte')} cannot be read: {_reason(error)}; expected "
            "a Parquet file that batchscore wrote; write it again: profile its data, train its "
            "model, or run its job again"
        ) from error
    return TableProfile(columns), meta


def read_record(data: bytes) -> dict[str, Any]:
    """Returns the `meta` that `write_table` was given, and decodes nothing else.

    Raises:
        RecordError: The bytes are not such a file, or are damaged.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            return _meta(file.metadata.metadata or {})
    except _DAMAGE as error:
        size = counted(len(data), "byte")
        raise RecordError(f"a record of {size} cannot be read: {error}") from error


def _meta(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    meta = parse_json(metadata[RECORD_KEY])
    if not isinstance(meta, dict):
        raise ValueError("its record is not a JSON object")
    return meta


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{PROFILE_KEY.decode()} at {first['loc']}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _column_record(name: str, column: ColumnProfile) -> _ColumnRecord:
    return _ColumnRecord(
        name=name,
        type=column.type,
        kind=column.kind,
        count=column.count,
        nulls=column.nulls,
        spoiled=column.spoiled,
        aspects=[
            _AspectRecord(name=n, kind=a.kind, type=a.type, scalars=a.scalars())
            for n, a in sorted(column.aspects.items())
        ],
    )


def _rows(profile: TableProfile, extra: bool | None) -> Iterator[_PartRow]:
    numbers = itertools.count()
    for _, column in sorted(profile.columns.items()):
        for _, aspect in sorted(column.aspects.items()):
            number = next(numbers)
            for name, part in sorted(aspect.parts().items()):
                if extra is None or extra == (name in aspect.extra):
                    yield _PartRow(number, name, part)


def _parts_table(rows: Sequence[_PartRow]) -> pa.Table:
    sizes = [row.part.key_r.size for row in rows]
    shifts = [_shifts(row.part) for row in rows]
    names = pa.DictionaryArray.from_arrays(
        to_arrow(np.repeat(np.arange(len(rows), dtype=np.int32), sizes)),
        binary_array([row.name.encode() for row in rows], pa.string()),
    )
    return pa.Table.from_arrays(
        [
            to_arrow(np.repeat(np.array([row.aspect for row in rows], np.int32), sizes)),
            names.dictionary_decode(),
            to_arrow(_concatenated(shifts, np.uint8)),
            to_arrow(_concatenated([row.part.key_r for row in rows], np.uint64)),
            to_arrow(_concatenated([row.part.count_r for row in rows], np.int64)),
            pa.concat_arrays([_values(row.part) for row in rows] or [pa.nulls(0, pa.binary())]),
        ],
        schema=_SCHEMA,
    )


def _shifts(part: Part) -> Any:
    return np.zeros(part.key_r.size, np.uint8) if part.shift_r is None else part.shift_r


def _values(part: Part) -> pa.Array:
    if part.value_r:
        return binary_array(part.value_r, pa.binary())
    return pa.nulls(part.key_r.size, pa.binary())


def _concatenated(pieces: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([np.empty(0, dtype), *pieces], dtype=dtype, casting="same_kind")


def _parse(data: bytes) -> tuple[_Parts, _ProfileRecord, dict[str, Any]]:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        schema = file.schema_arrow
        if schema.names == _EARLIER:
            raise ValueError("written by an earlier version of batchscore, in another format")
        if not schema.equals(_SCHEMA):
            raise ValueError(f"its columns are {schema.names}, not those of a profile")
        metadata = file.metadata.metadata or {}
        record = _PROFILE.validate_json(metadata[PROFILE_KEY])
        meta = _meta(metadata)
        aspects = sum(len(column.aspects) for column in record.columns)
        _check_size(file.metadata, aspects)
        table = file.read(use_threads=False)
    if any(table[name].null_count for name in _SCHEMA.names[:-1]):
        raise ValueError("a part has missing values")
    return _split(table.combine_chunks(), aspects), record, meta


def _check_size(found: Any, aspects: int) -> None:
    """Refuses what is too large before it is decoded: a few bytes can claim any number of rows."""
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    values = sum(group.column(5).total_uncompressed_size for group in groups)
    if found.num_rows > aspects * _MOST_ROWS or values > _MOST_VALUE_BYTES:
        raise ValueError(f"{found.num_rows} rows of parts are too many")


def _split(table: pa.Table, aspects: int) -> _Parts:
    """Returns the parts of each aspect by name; each has to lie in one piece."""
    parts: _Parts = {number: {} for number in range(aspects)}
    if not table.num_rows:
        return parts
    columns = [table[name].chunk(0) for name in _SCHEMA.names]
    aspect_r, shift_r, key_r, count_r = (valid_values(columns[i]) for i in (0, 2, 3, 4))
    names = columns[1].dictionary_encode()
    name_r = valid_values(names.indices)
    begins_r = (aspect_r[1:] != aspect_r[:-1]) | (name_r[1:] != name_r[:-1])
    starts = np.flatnonzero(np.r_[True, begins_r]).tolist()
    for start, end in itertools.pairwise([*starts, table.num_rows]):
        rows = slice(start, end)
        if int(aspect_r[start]) not in parts:
            raise ValueError(f"parts of aspect {aspect_r[start]} belong to no aspect")
        mine, name = parts[int(aspect_r[start])], names.dictionary[int(name_r[start])].as_py()
        if name in mine:
            raise ValueError(f"part {name!r} of aspect {aspect_r[start]} is torn")
        mine[name] = Part(key_r[rows], count_r[rows], shift_r[rows], _texts(columns[5][rows]))
    return parts


def _texts(values: pa.Array) -> tuple[bytes, ...]:
    if values.null_count == len(values):
        return ()
    if values.null_count:
        raise ValueError("a part misses a text")
    return tuple(values.to_pylist())


def _add_extra(parts: _Parts, record: _ProfileRecord, extra: bytes) -> None:
    more, other, _ = _parse(extra)
    if other != record:
        raise ValueError("its second file is of another profile")
    for number, mine in more.items():
        if not mine.keys().isdisjoint(parts[number]):
            raise ValueError("its second file repeats the first")
        parts[number].update(mine)


def _column(record: _ColumnRecord, parts: _Parts, numbers: Iterator[int]) -> ColumnProfile:
    aspects: dict[str, Accumulator] = {
        each.name: restore_aspect(each.kind, each.type, each.scalars, parts[number])
        for each, number in zip(record.aspects, numbers, strict=False)
    }
    present = record.count - record.nulls - record.spoiled
    counts = {aspect.n for name, aspect in aspects.items() if name != "items"}
    if present < 0 or len(aspects) < len(record.aspects) or counts - {present}:
        raise ValueError(f"the counts of column {record.name!r} do not add up")
    return ColumnProfile(
        record.type, record.kind, aspects, record.count, record.nulls, record.spoiled
    )
