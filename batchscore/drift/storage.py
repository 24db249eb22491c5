"""Store a table profile with its caller's record in one small Parquet file, and read it back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from batchscore.drift.histogram import CAP, Buckets, Histogram
from batchscore.drift.keys import FLOAT, KeySpace
from batchscore.drift.profile import TEXT_BYTES, ColumnProfile, TableProfile, is_text, valid_values
from batchscore.errors import RecordError

PROFILE_KEY = b"batchscore.profile"
RECORD_KEY = b"batchscore.record"

_BUCKET_SCHEMA = pa.schema(
    [
        ("column", pa.int32()),
        ("shift", pa.uint8()),
        ("prefix", pa.uint64()),
        ("count", pa.int64()),
    ]
)
_BUCKET_DTYPES = (np.int32, np.uint8, np.uint64, np.int64)
_ENCODINGS = {
    "column": "DELTA_BINARY_PACKED",
    "shift": "PLAIN",
    "prefix": "DELTA_BINARY_PACKED",
    "count": "DELTA_BINARY_PACKED",
}


class _ColumnRecord(BaseModel):
    """A column's scalars; floats and bytes are hexadecimal, so that they return exactly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    type: str
    count: NonNegativeInt
    nulls: NonNegativeInt
    nan: NonNegativeInt = 0
    pos_inf: NonNegativeInt = 0
    neg_inf: NonNegativeInt = 0
    zeros: NonNegativeInt = 0
    min: int | str | None = None
    max: int | str | None = None


_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, RecursionError)
_COLUMN_RECORDS = TypeAdapter(list[_ColumnRecord])


def write_table(profile: TableProfile, meta: dict[str, Any]) -> bytes:
    """Return a Parquet file with a row for each histogram bucket, columns sorted by name.

    The columns' scalars and `meta`, which must be JSON-able and without NaN, are JSON in the
    file's metadata. Equal profile and equal `meta` give equal bytes.
    """
    columns = sorted(profile.columns.items())
    records = [_column_record(name, column) for name, column in columns]
    metadata = {PROFILE_KEY: _json(records), RECORD_KEY: _json(meta)}
    table = _bucket_table(column.histogram for _, column in columns)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=False,
        column_encoding=_ENCODINGS,
        write_statistics=False,
        store_schema=False,  # would repeat the metadata in base64
    ) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())


def read_table(data: bytes) -> tuple[TableProfile, dict[str, Any]]:
    """Return the profile and the `meta` that `write_table` was given.

    RecordError: the bytes are not such a file, or are damaged.
    """
    try:
        table, records, meta = _parse(data)
        buckets = _split_buckets(table, len(records))
        columns = {
            record.name: _column(record, part)
            for record, part in zip(records, buckets, strict=True)
        }
        if len(columns) < len(records):
            raise ValueError("two columns have one name")
    except _DAMAGE as error:
        raise RecordError(
            f"a profile of {len(data)} bytes cannot be read: {_reason(error)}; expected a Parquet "
            f"file that batchscore wrote; delete it and run its job again"
        ) from error
    return TableProfile(columns), meta


def read_record(data: bytes) -> dict[str, Any]:
    """Return the `meta` that `write_table` was given, and decode nothing else.

    RecordError: the bytes are not such a file, or are damaged.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            meta = json.loads((file.metadata.metadata or {})[RECORD_KEY])
        if not isinstance(meta, dict):
            raise ValueError("its record is not a JSON object")
    except _DAMAGE as error:
        raise RecordError(f"a record of {len(data)} bytes cannot be read: {error}") from error
    return meta


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{PROFILE_KEY.decode()} at {first['loc']}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _column_record(name: str, column: ColumnProfile) -> dict[str, Any]:
    low, high = _stored_range(column)
    record = _ColumnRecord(
        name=name,
        type=column.type,
        count=column.count,
        nulls=column.nulls,
        nan=column.nan,
        pos_inf=column.pos_inf,
        neg_inf=column.neg_inf,
        zeros=column.zeros,
        min=low,
        max=high,
    )
    return record.model_dump(exclude_defaults=True)


def _stored_range(column: ColumnProfile) -> tuple[int | str | None, int | str | None]:
    if column.text_range is not None:
        return column.text_range[0].hex(), column.text_range[1].hex()
    if column.histogram is None or column.histogram.key_range is None:
        return None, None
    space = column.histogram.space
    low, high = space.decode(np.array(column.histogram.key_range, np.uint64)).tolist()
    return (low.hex(), high.hex()) if space is FLOAT else (low, high)


def _bucket_table(histograms: Iterable[Histogram | None]) -> pa.Table:
    parts: list[tuple[Any, ...]] = [([], [], [], [])]
    for column, histogram in enumerate(histograms):
        if histogram is not None:
            buckets = histogram.buckets()
            columns_b = np.full(buckets.counts_b.size, column)
            parts.append((columns_b, buckets.shifts_b, buckets.prefixes_b, buckets.counts_b))
    values = [
        np.concatenate(pieces, dtype=dtype, casting="unsafe")
        for pieces, dtype in zip(zip(*parts, strict=True), _BUCKET_DTYPES, strict=True)
    ]
    # pa.array would import pandas, which takes longer than all else here.
    arrays = [
        pa.Array.from_buffers(type_, len(values_b), [None, pa.py_buffer(values_b)])
        for type_, values_b in zip(_BUCKET_SCHEMA.types, values, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_BUCKET_SCHEMA)


def _parse(data: bytes) -> tuple[pa.Table, list[_ColumnRecord], dict[str, Any]]:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        schema = file.schema_arrow
        if not schema.equals(_BUCKET_SCHEMA):
            raise ValueError(f"its columns are {schema.names}, not those of a profile")
        metadata = file.metadata.metadata or {}
        records = _COLUMN_RECORDS.validate_json(metadata[PROFILE_KEY])
        meta = json.loads(metadata[RECORD_KEY])
        if not isinstance(meta, dict):
            raise ValueError("its record is not a JSON object")
        # A few bytes can claim any number of rows: refuse before they are decoded.
        if file.metadata.num_rows > CAP * len(records):
            raise ValueError(f"{file.metadata.num_rows} buckets are too many")
        table = file.read(use_threads=False)
    if any(column.null_count for column in table.columns):
        raise ValueError("a bucket has missing values")
    return table, records, meta


def _split_buckets(table: pa.Table, columns: int) -> list[Buckets]:
    columns_n, shifts_n, prefixes_n, counts_n = (
        valid_values(column.combine_chunks()) for column in table.columns
    )
    ends = np.searchsorted(columns_n, np.arange(columns + 1))
    if np.any(np.diff(columns_n) < 0) or ends[0] != 0 or ends[-1] != columns_n.size:
        raise ValueError("buckets belong to no column")
    slices = [slice(*pair) for pair in itertools.pairwise(ends)]
    return [Buckets(shifts_n[rows], prefixes_n[rows], counts_n[rows]) for rows in slices]


def _column(record: _ColumnRecord, buckets: Buckets) -> ColumnProfile:
    scalars = record.model_dump(exclude={"name", "min", "max"})
    column = ColumnProfile(**scalars)
    present = record.count - record.nulls
    if column.histogram is not None:
        space = column.histogram.space
        key_range = _key_range(space, record.min, record.max)
        column.histogram = Histogram.from_buckets(space, buckets, key_range)
        present -= column.histogram.n + record.nan + record.pos_inf + record.neg_inf
        if present != 0:
            raise ValueError(f"the counts of column {record.name!r} do not add up")
    elif buckets.counts_b.size or present < 0:
        raise ValueError(f"the counts of column {record.name!r} do not fit its type {record.type}")
    elif is_text(record.type):
        column.text_range = _stored_text(record)
    return column


def _key_range(space: KeySpace, low: Any, high: Any) -> tuple[int, int] | None:
    if low is None and high is None:
        return None
    expected = str if space is FLOAT else int
    if not (isinstance(low, expected) and isinstance(high, expected)):
        raise ValueError(f"minimum {low!r} or maximum {high!r} is of the wrong kind")
    ends = [float.fromhex(str(end)) for end in (low, high)] if space is FLOAT else [low, high]
    if not np.all(np.isfinite(np.array(ends, space.dtype))):
        raise ValueError("minimum and maximum must be finite")
    lowest, highest = space.encode(np.array(ends, space.dtype)).tolist()
    return lowest, highest


def _stored_text(record: _ColumnRecord) -> tuple[bytes, bytes] | None:
    if record.min is None and record.max is None:
        return None
    low, high = (bytes.fromhex(str(end)) for end in (record.min, record.max))
    if not low <= high or max(len(low), len(high)) > TEXT_BYTES:
        raise ValueError(f"minimum and maximum of column {record.name!r} are not in order")
    return low, high
