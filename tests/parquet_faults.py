"""Good Parquet files of several kinds, and broken ones made from them, the same each time."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption

ROWS = 300
_MAGIC = b"PAR1"
_PAGE_FLIPS, _FOOTER_FLIPS, _CUTS = 12, 30, 6
_ORDINARY: dict[str, dict[str, Any]] = {
    "plain": {"use_dictionary": False, "compression": "none"},
    "dictionary": {"compression": "none"},
    "delta": {
        "use_dictionary": False,
        "column_encoding": {"i": "DELTA_BINARY_PACKED", "s": "DELTA_BYTE_ARRAY"},
    },
    "split": {"use_dictionary": False, "column_encoding": {"x": "BYTE_STREAM_SPLIT"}},
    "zstd": {"compression": "zstd"},
    "snappy": {"compression": "snappy", "use_dictionary": False},
    "gzip": {"compression": "gzip"},
    "lz4": {"compression": "lz4"},
    "index": {"write_page_index": True, "data_page_size": 200},
    "checksums": {"write_page_checksum": True, "data_page_size": 200},
    "groups": {"row_group_size": 50},
    "v2": {"data_page_version": "2.0", "compression": "zstd"},
}


def make_good_files() -> dict[str, bytes]:
    """Return a good file of each kind by its name; all but `none` and `huge` have `ROWS` rows."""
    ordinary = {name: write_bytes(_table(), **how) for name, how in _ORDINARY.items()}
    i = pa.array(range(ROWS), pa.int64())
    nested = pa.table(
        {
            "l": pa.array([[k] * (k % 3) or None for k in range(ROWS)], pa.list_(pa.int32())),
            "f": pa.array([[0.5, k] for k in range(ROWS)], pa.list_(pa.float32(), 2)),
            "r": pa.array([{"a": k, "b": str(k)} for k in range(ROWS)]),
            "m": pa.array([[("k", k)] for k in range(ROWS)], pa.map_(pa.string(), pa.int64())),
        }
    )
    nulls = {"i": i, "n": pa.nulls(ROWS, pa.float64()), "z": pa.nulls(ROWS)}
    texts = {"s": _table()["s"].dictionary_encode(), "i": i}
    return {
        **ordinary,
        "nested": write_bytes(nested),
        "nulls": write_bytes(pa.table(nulls)),
        "texts": write_bytes(pa.table(texts)),
        "none": write_bytes(_table()[:0]),
        "huge": write_bytes(pa.table({"s": ["x" * (1 << 20), "y" * (1 << 20)]})),
    }


def _table() -> pa.Table:
    numbers = np.arange(ROWS)
    return pa.table(
        {
            "i": pa.array(numbers, pa.int64(), mask=numbers % 7 == 0),
            "x": pa.array(np.sin(numbers), pa.float64()),
            "b": pa.array(numbers % 2 == 0),
            "s": pa.array([f"text {k % 40}" for k in numbers]),
            "t": pa.array(numbers, pa.timestamp("us")),
        }
    )


def write_bytes(table: pa.Table, **how: Any) -> bytes:
    """Return a table as a Parquet file's bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return bytes(sink.getvalue())


class _Keys(encryption.KmsClient):
    """Keys that are wrapped by nothing, for files that nobody shall read."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def make_encrypted_file(plaintext_footer: bool) -> bytes:
    """Return a file whose columns are encrypted, and its footer where that is not plain."""
    factory = encryption.CryptoFactory(lambda connection: _Keys())
    how = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["i", "s"]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
    return write_bytes(_table(), encryption_properties=properties)


def break_file(data: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield broken forms of a good file, each with what was done to it."""
    draw = random.Random(seed)
    footer = len(data) - 8 - _footer_length(data)
    edges = {1, 3, 4, 7, 8, 12, footer, footer + 1, *(len(data) - k for k in (9, 8, 7, 4, 1))}
    for cut in sorted(edges | {draw.randrange(len(data)) for _ in range(_CUTS)}):
        yield f"cut at {cut}", data[:cut]
    for place in sorted(draw.randrange(4, footer) for _ in range(_PAGE_FLIPS)):
        yield f"page byte {place}", _spliced(data, place, bytes([draw.randrange(256)]))
    for place in sorted(draw.randrange(footer, len(data) - 8) for _ in range(_FOOTER_FLIPS)):
        yield f"footer byte {place}", _spliced(data, place, bytes([draw.randrange(256)]))
    yield "pages zeroed", _spliced(data, 4, bytes(footer - 4))
    yield "footer zeroed", _spliced(data, footer, bytes(len(data) - 8 - footer))
    yield "middle left out", data[: len(data) // 3] + data[len(data) // 2 :]
    yield "twice", data + data
    yield from _wrong_ends(data)
    yield from _wrong_counts(data)


def _wrong_ends(data: bytes) -> Iterator[tuple[str, bytes]]:
    length = _footer_length(data)
    for wrong in (0, 1, length - 1, length + 1, len(data), (1 << 31) - 1, (1 << 32) - 1):
        yield f"footer length {wrong}", _spliced(data, len(data) - 8, wrong.to_bytes(4, "little"))
    yield "first magic", b"RAP1" + data[4:]
    yield "last magic", data[:-4] + b"RAP1"
    yield "encrypted magic", b"PARE" + data[4:-4] + b"PARE"
    yield "more behind", data + b"more"


def _wrong_counts(data: bytes) -> Iterator[tuple[str, bytes]]:
    rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    for claimed in {0, rows + 1, rows // 2, 1 << 31, 1 << 40} - {rows}:
        for field in ("file", "group", "both"):
            if rows or field == "file":
                yield f"{claimed} rows by {field}", claim_rows(data, field, claimed)


def claim_rows(data: bytes, field: str, rows: int) -> bytes:
    """Return a file whose footer claims other rows: for the `file`, its first `group`, or `both`.

    The count is looked for among all equal numbers of the footer, as only Thrift knows its place.
    """
    if field == "both":
        before = _claimed(data)
        data = claim_rows(data, "group", rows)
        return claim_rows(data, "file", before["file"] - before["group"] + rows)
    start, end = len(data) - 8 - _footer_length(data), len(data) - 8
    before = _claimed(data)
    old, new = _varint(before[field]), _varint(rows)
    for place in range(start, end):
        if data[place : place + len(old)] == old:
            footer = data[start:place] + new + data[place + len(old) : end]
            broken = data[:start] + footer + len(footer).to_bytes(4, "little") + _MAGIC
            if _claimed(broken) == {**before, field: rows}:
                return broken
    raise AssertionError(f"the footer does not show where it has the rows of {field}")


def _claimed(data: bytes) -> dict[str, int]:
    try:
        metadata = pq.read_metadata(pa.BufferReader(data))
        first = metadata.row_group(0) if metadata.num_row_groups else None
        values = first.column(0).num_values if first else 0
        group = first.num_rows if first else 0
        return {"file": metadata.num_rows, "group": group, "values": values}
    except (pa.ArrowException, OSError):
        return {}


def _varint(number: int) -> bytes:
    """A number as Thrift's compact protocol has it: zigzag, seven bits a byte."""
    left, found = number << 1, bytearray()
    while left > 127:
        found.append(left & 127 | 128)
        left >>= 7
    return bytes([*found, left])


def _footer_length(data: bytes) -> int:
    return int.from_bytes(data[-8:-4], "little")


def _spliced(data: bytes, place: int, part: bytes) -> bytes:
    return data[:place] + part + data[place + len(part) :]
