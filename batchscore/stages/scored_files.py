"""Record batches to growing Parquet files, one a hive partition, all within fixed bounds.

Suffixes: `_p` rows of a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import (
    Array,
    beyond_years,
    escaped_texts,
    take_rows,
    to_arrow,
    to_numpy,
    undecodable,
)
from batchscore.errors import StepError
from batchscore.messages.values import bounded, date_text, joined_texts
from batchscore.stages.ahead import WriteBehind
from batchscore.stages.block import Block, reject_rows
from batchscore.stages.encoding import AUTO, choose_encoding
from batchscore.stages.hashed_file import PIECES_BEHIND, HashingSink, pass_on
from batchscore.stages.rows_file import RowsFile
from batchscore.stages.sidecar import buffered
from batchscore.storage.store import Store
from batchscore.units.record import StagedFile
from batchscore.units.unit import HIVE_NULL

ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 16 << 20  # of wide rows fewer: the last group is written when all else is done
FILE_BYTES = 256 << 20
BUFFER_BYTES = 64 << 20
OPEN_FILES = 64
UNIT_PARTITIONS = 1_000
NAME_BYTES = 255  # of one file or folder, on Linux and macOS
_MISREAD = frozenset("/=%\\:?*[]{}")


@dataclass(frozen=True)
class PartitionRows:
    """Rows of one partition.

    Args:
        folder: Such as `month=9`, percent-encoded so that no value can leave it.
        batch: The rows, without the columns that live in the path.
        rows_p: Their int64 numbers within the unit.
    """

    folder: str
    batch: pa.RecordBatch
    rows_p: pa.Array

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and their numbers."""
        return int(self.batch.nbytes + self.rows_p.nbytes)


def reject_unnamed(block: Block, partition_by: tuple[str, ...]) -> Block:
    """Takes rows out of a block whose partition has no name.

    A text is not valid UTF-8, or a date is of a year that readers of folders do not know.
    """
    for name in partition_by if len(block) else ():
        block = _reject(block, name, undecodable, _UNDECODABLE)
        block = _reject(block, name, beyond_years, _BEYOND)
    return block


def _dates(column: pa.Array) -> pa.Array:
    return pa.array([date_text(value) for value in column], pa.string())


class _Unnamed(NamedTuple):
    error: str
    problem: str
    expected: str
    show: Callable[[pa.Array], pa.Array]


_UNDECODABLE = _Unnamed("InvalidText", "is not valid UTF-8", "valid UTF-8", escaped_texts)
_BEYOND = _Unnamed("InvalidDate", "is not in the years 1 to 9999", "a year from 1 to 9999", _dates)


def _reject(block: Block, name: str, find: Callable[[pa.Array], Array], why: _Unnamed) -> Block:
    column = block.batch.column(name)
    bad_b = find(column)
    if not bad_b.any():
        return block
    message = f"column {name!r} of output.partition_by {why.problem}"
    found = bounded(why.show(column.filter(to_arrow(bad_b))))
    details = joined_texts([f"column {name!r}: ", found, f", expected {why.expected}"])
    return reject_rows(block, to_arrow(bad_b), "write", why.error, message, details)


def split_partitions(
    batch: pa.RecordBatch,
    rows_b: pa.Array,
    partition_by: tuple[str, ...],
    plain_keys: Collection[str] = (),
) -> list[PartitionRows]:
    """Splits rows by the columns that live in the path, keeping their order in each part.

    Of several parts each is a copy of its rows: a slice would keep the batch alive.

    Args:
        plain_keys: Columns whose folders have their names as they are; of others, percent-encoded.
    """
    kept = batch.select([name for name in batch.schema.names if name not in partition_by])
    if not batch.num_rows:
        return []
    if not partition_by:
        return [PartitionRows("", kept, rows_b)]
    keys = {name: name if name in plain_keys else encoded_key(name) for name in partition_by}
    codes_b, folders = _partition_codes(batch, keys)
    if len(folders) == 1:
        return [PartitionRows(folders[0], kept, rows_b)]
    order_b = np.argsort(codes_b, kind="stable")
    ends = np.cumsum(np.bincount(codes_b, minlength=len(folders)))
    taken = [to_arrow(taken_p) for taken_p in np.split(order_b, ends[:-1])]
    return [
        PartitionRows(folder, take_rows(kept, taken_p), rows_b.take(taken_p))
        for folder, taken_p in zip(folders, taken, strict=True)
    ]


def _partition_codes(batch: pa.RecordBatch, keys: Mapping[str, str]) -> tuple[Array, list[str]]:
    codes_b = np.zeros(batch.num_rows, np.int64)
    folders = [""]
    for name, key in keys.items():
        encoded = batch.column(name).dictionary_encode(null_encoding="encode")
        texts = [_folder_name(name, key, value) for value in encoded.dictionary.to_pylist()]
        codes_b = codes_b * len(texts) + to_numpy(encoded.indices).astype(np.int64)
        folders = [f"{a}/{b}" if a else b for a in folders for b in texts]
        used, codes_b = np.unique(codes_b, return_inverse=True)
        folders = [folders[int(code)] for code in used]
    return codes_b, folders


def _folder_name(column: str, key: str, value: Any) -> str:
    name = f"{key}={_path_value(column, value)}"
    if len(name.encode()) > NAME_BYTES:
        raise StepError(
            f"output.partition_by: column {column!r} has a value of {len(str(value)):,} "
            f"characters, {str(value)[:32]!r}…, which cannot name a folder: it takes more than "
            f"{NAME_BYTES} bytes; partition by a column with short values"
        )
    return name


def encoded_key(column: str) -> str:
    """Returns a column's name, percent-encoded, as pyarrow and Spark decode it in a folder."""
    text = quote(column, safe="")
    # Readers take a folder whose name begins with one of these for hidden.
    return f"%{ord(text[0]):02X}{text[1:]}" if text[0] in "._" else text


def is_plain_key(column: str) -> bool:
    """Tells whether every reader finds a column by a folder that has its name as it is.

    DuckDB and Polars decode no name. A slash, an equals sign or a percent sign would be misread,
    Hadoop refuses a colon, and some characters are patterns where files are listed.
    """
    return column.isprintable() and column[:1] not in {"", ".", "_"} and not _MISREAD & {*column}


def _path_value(column: str, value: Any) -> str:
    if value is None:
        return HIVE_NULL
    if value == HIVE_NULL:
        raise StepError(
            f"output.partition_by: column {column!r} holds the text {HIVE_NULL!r}, which readers "
            "of a hive folder interpret as null; make it null, or partition by another column"
        )
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return quote(text, safe=" ")


@dataclass
class _Partition:
    folder: str
    pending: list[PartitionRows] = field(default_factory=list)
    pending_rows: int = 0
    pending_bytes: int = 0
    writer: pq.ParquetWriter | None = None
    stream: pa.NativeFile | None = None
    sink: HashingSink | None = None
    number: int = 0
    staged: str = ""
    rows: int = 0

    @property
    def is_full(self) -> bool:
        """Whether the rows that are pending make a row group."""
        return self.pending_rows >= ROW_GROUP_ROWS or self.pending_bytes >= ROW_GROUP_BYTES


class PartitionFiles:
    """Writes parts to one growing file a partition; buffers and open files are bounded.

    Args:
        store: The output.
        folder: Where the files go, named 0000.parquet and so on.
        file_bytes: A file is closed once it is this large.
        lineage: Records each row as it is written.
        codec: The compression of columns that it makes a tenth smaller, `auto` or `none`.
    """

    def __init__(
        self, store: Store, folder: str, file_bytes: int, lineage: RowsFile, codec: str = AUTO
    ) -> None:
        self._store = store
        self._folder = folder
        self._file_bytes = file_bytes
        self._lineage = lineage
        self._codec = codec
        self._partitions: dict[str, _Partition] = {}
        self._started = 0
        self._encoding: dict[str, Any] = {}
        self._pieces = WriteBehind(pass_on, PIECES_BEHIND)
        self._closed: list[tuple[StagedFile, HashingSink]] = []
        self.files: list[StagedFile] = []

    def add(self, added: PartitionRows) -> None:
        """Buffers rows of a partition; writes row groups and closes files as the bounds demand."""
        part = self._partitions.setdefault(added.folder, _Partition(added.folder))
        if len(self._partitions) > UNIT_PARTITIONS:
            raise StepError(
                f"output.partition_by makes more than {UNIT_PARTITIONS:,} partitions of one unit; "
                "partition by a column with fewer values"
            )
        part.pending.append(added)
        part.pending_rows += added.batch.num_rows
        part.pending_bytes += added.nbytes
        if part.is_full:
            self._write_row_group(part)
        if sum(p.pending_bytes for p in self._partitions.values()) > BUFFER_BYTES:
            for other in self._partitions.values():
                self._write_row_group(other)

    def close(self) -> None:
        """Writes what is buffered and closes every file."""
        for part in self._partitions.values():
            self._write_row_group(part)
            self._close_file(part)
        self._pieces.close()
        self.files = [replace(file, sha256=sink.sha256) for file, sink in self._closed]

    def abort(self) -> None:
        """Closes every open file without its end; what was written stays, unlisted."""
        opened = [part for part in self._partitions.values() if part.sink is not None]
        # A writer that is not closed would write its footer when it is collected.
        ends = [each.close for part in opened for each in (part.writer, part.stream) if each]
        ends += [self._pieces.close]
        # After an error the thread leaves files open that it should close.
        ends += [sink.close_now for _, sink in self._closed]
        ends += [part.sink.close_now for part in opened if part.sink is not None]
        for end in ends:
            with suppress(Exception):
                end()

    def _write_row_group(self, part: _Partition) -> None:
        if not part.pending:
            return
        table = pa.Table.from_batches([each.batch for each in part.pending])
        writer = part.writer or self._open_file(part, table)
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._lineage.add(part.number, [each.rows_p for each in part.pending])
        part.rows += table.num_rows
        part.pending, part.pending_rows, part.pending_bytes = [], 0, 0
        if part.stream is not None and part.stream.tell() >= self._file_bytes:
            self._close_file(part)

    def _open_file(self, part: _Partition, table: pa.Table) -> pq.ParquetWriter:
        # The rows of a small file tell less than those of one before.
        if not self._encoding or part.is_full:
            self._encoding = choose_encoding(table, self._codec)
        opened = [p for p in self._partitions.values() if p.writer is not None]
        if len(opened) >= OPEN_FILES:
            self._close_file(opened[0])
        part.number = self._started
        part.staged = f"{self._folder}/{part.number:04d}.parquet"
        self._started += 1
        part.sink = HashingSink(self._store.create(part.staged), self._pieces)
        part.stream = buffered(part.sink)
        part.writer = pq.ParquetWriter(part.stream, table.schema, **self._encoding)
        return part.writer

    def _close_file(self, part: _Partition) -> None:
        if part.writer is None or part.stream is None or part.sink is None:
            return
        part.writer.close()
        part.stream.close()
        part.sink.close()
        done = StagedFile(part.staged, part.folder, part.rows, part.sink.bytes, "")
        self._closed.append((done, part.sink))
        part.writer, part.stream, part.sink, part.rows = None, None, None, 0
