"""Rows with the same key: sorted runs of key hashes, merged as streams in bounded memory.

Suffixes: `_m` keys of a batch, `_g` groups of equal keys.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import Array, to_numpy
from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.runs.open_table import open_table
from batchscore.storage.documents import parse_json
from batchscore.storage.store import Store
from batchscore.units.unit import HIVE_NULL

FAN_IN = 64
HI_FAN_IN = 256
EXAMPLES = 5
_MEMBERS = 5
_BATCH_ROWS = 16_384
_RUN_ROWS = 1_000_000

# A row's key hash in two halves, its number, and the run that it is in.
KEY = np.dtype(
    [("hi", np.uint64), ("lo", np.uint64), ("row", np.int64), ("run", np.int64)], align=True
)
HashKeys = Callable[[pa.RecordBatch, tuple[str, ...]], tuple[Array, Array]]
_Reader = Callable[[], Iterator[Array]]


@dataclass(frozen=True)
class SortedKeys:
    """Key hashes sorted by both halves.

    Args:
        label: Says, to a reader of the examples, where the rows are.
        read: Starts to read them, in batches (n,) of KEY that the caller may change.
        read_hi: Starts to read their first halves alone, in batches (n,) of uint64.
    """

    label: str
    read: _Reader
    read_hi: _Reader


@dataclass(frozen=True)
class Duplicates:
    """Rows whose key an earlier row has.

    Args:
        count: Of three rows with one key it counts two.
        examples: Some keys, each as the label and number of its first rows.
    """

    count: int
    examples: tuple[tuple[tuple[str, int], ...], ...]


class Scratch:
    """Sorted runs on this machine's disk (TMPDIR), in one file that goes with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._end = 0

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, batches: Iterable[Array]) -> _Reader:
        """Keeps batches (n,) of KEY as one run, and returns what reads it."""
        start = self._end
        for keys_n in batches:
            self._file.write(keys_n.tobytes())
            self._end += keys_n.nbytes
        self._file.flush()
        return partial(self._read, start, self._end)

    def _read(self, start: int, end: int) -> Iterator[Array]:
        step = _BATCH_ROWS * KEY.itemsize
        for offset in range(start, end, step):
            data = os.pread(self._file.fileno(), min(step, end - offset), offset)
            yield np.frombuffer(bytearray(data), KEY)


def read_keys(store: Store, path: str, label: str) -> list[SortedKeys]:
    """Returns the sorted runs of a keys file that an attempt wrote.

    Raises:
        RecordError: It is not there or damaged; so does reading a run.
    """
    with open_table(store, path) as file:
        parts = _parts(file)
    return [
        SortedKeys(
            label, partial(_read_run, store, path, part), partial(_read_hi, store, path, part)
        )
        for part in parts
    ]


def _parts(file: pq.ParquetFile) -> list[range]:
    """Returns the row groups of each run; ArrowInvalid if the file does not tell them."""
    try:
        begins = parse_json((file.metadata.metadata or {})[b"runs"])
        parts = [range(first, end) for first, end in pairwise(begins)]
    except (LookupError, TypeError, ValueError) as error:
        raise pa.ArrowInvalid(f"its runs are unknown ({reason(error)})") from error
    if any(part.start < 0 or part.stop > file.num_row_groups for part in parts):
        raise pa.ArrowInvalid("its runs name row groups that it does not have")
    return parts


def _read_run(store: Store, path: str, groups: range) -> Iterator[Array]:
    with open_table(store, path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, list(groups), ["hi", "lo", "row"]):
            yield _keys(*(to_numpy(column) for column in batch.columns))


def _read_hi(store: Store, path: str, groups: range) -> Iterator[Array]:
    with open_table(store, path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, list(groups), ["hi"]):
            yield to_numpy(batch.column(0))


def only_hi(read: _Reader) -> Iterator[Array]:
    """Yields the first halves of what a reader yields."""
    for keys_n in read():
        yield np.ascontiguousarray(keys_n["hi"])


def _keys(hi_n: Array, lo_n: Array, row_n: Array) -> Array:
    keys_n = np.zeros(len(hi_n), KEY)
    keys_n["hi"], keys_n["lo"], keys_n["row"] = hi_n, lo_n, row_n
    return keys_n


def partition_values(partition: str, schema: pa.Schema) -> dict[str, pa.Scalar]:
    """Returns the values of a file's partition, such as `month=9`.

    Args:
        partition: Named like the scored files' folders.
        schema: Has the columns' types.

    Raises:
        RecordError: A value is not of its column's type.
    """
    values = {}
    for level in partition.split("/") if partition else ():
        name, text = (unquote(part) for part in level.split("=", 1))
        value = None if text == HIVE_NULL else text
        try:
            values[name] = pa.array([value], pa.string()).cast(schema.field(name).type)[0]
        except (KeyError, pa.ArrowException) as error:
            raise RecordError(
                f"partition {partition!r}: {text!r} is not a value of column {name!r} "
                f"({reason(error)}); score the slice again with --rescore"
            ) from error
    return values


def hash_file(
    store: Store,
    path: str,
    partition: Mapping[str, pa.Scalar],
    columns: tuple[str, ...],
    hash_keys: HashKeys,
    scratch: Scratch,
) -> list[SortedKeys]:
    """Returns sorted runs, labelled with the path, of the keys of a scored file.

    Args:
        store: The output.
        path: Path of the file; a key's number is its row's within it.
        partition: The columns that live in the path, by name.
        columns: The key.
        hash_keys: Hashes a batch's key columns to two halves (b,), as attempts do.
        scratch: Keeps the runs.

    Raises:
        RecordError: The file is not there, is damaged, or lacks a column of the key.
    """
    hashed = _hash_batches(store, path, partition, columns, hash_keys)
    reads = [scratch.write([keys_n]) for keys_n in _sorted_runs(hashed)]
    return [SortedKeys(path, read, partial(only_hi, read)) for read in reads]


def _hash_batches(
    store: Store,
    path: str,
    partition: Mapping[str, pa.Scalar],
    columns: tuple[str, ...],
    hash_keys: HashKeys,
) -> Iterator[Array]:
    stored = [name for name in columns if name not in partition]
    row = 0
    with open_table(store, path) as file:
        _check_columns(store, path, stored, file.schema_arrow.names)
        for batch in file.iter_batches(_BATCH_ROWS, columns=stored):
            count = batch.num_rows
            arrays = [
                pa.repeat(partition[name], count) if name in partition else batch.column(name)
                for name in columns
            ]
            key = pa.RecordBatch.from_arrays(arrays, names=list(columns))
            yield _keys(*hash_keys(key, columns), np.arange(row, row + count))
            row += count


def _check_columns(store: Store, path: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise RecordError(
                f"file {store.url(path)}: has no column {name!r}, which checks.unique names; score "
                "the slice again with --rescore"
            )


def _sorted_runs(batches: Iterable[Array]) -> Iterator[Array]:
    pending: list[Array] = []
    for keys_n in batches:
        pending.append(keys_n)
        if sum(map(len, pending)) >= _RUN_ROWS:
            yield _sorted(pending)
            pending = []
    if pending:
        yield _sorted(pending)


def find_duplicates(
    runs: Sequence[SortedKeys], scratch: Scratch, fan_in: int = FAN_IN
) -> Duplicates:
    """Counts rows whose key another row has, within a run and across all.

    Args:
        runs: Each sorted.
        scratch: Keeps what is merged on the way, where there are more runs than `fan_in`.
        fan_in: Runs that are read side by side, each with its file open and one batch in memory.

    Raises:
        RecordError: A run cannot be read.
    """
    # Where no two first halves agree, no two keys do: the common case, and many times faster.
    if len(runs) <= HI_FAN_IN and not _agree([run.read_hi for run in runs]):
        return Duplicates(0, ())
    readers: list[_Reader] = [partial(_number, run, index) for index, run in enumerate(runs)]
    while len(readers) > fan_in:
        # No more than it takes to leave `fan_in`: what is merged here is written once more.
        some = min(fan_in, len(readers) - fan_in + 1)
        readers = [*readers[some:], scratch.write(_merge(readers[:some]))]
    tally = _Neighbours()
    for keys_n in _merge(readers):
        tally.add(keys_n)
    labels = [run.label for run in runs]
    groups = [sorted((labels[key["run"]], int(key["row"])) for key in g) for g in tally.groups]
    return Duplicates(tally.count, tuple(map(tuple, groups)))


def _agree(readers: Sequence[_Reader]) -> bool:
    """Tells whether any two of the sorted numbers of all readers are equal."""
    streams = [reader() for reader in readers]
    heads = [_next_hi(stream) for stream in streams]
    last_n = np.empty(0, np.uint64)
    while any(map(len, heads)):
        bound = min(head[-1] for head in heads if len(head))
        cuts = [int(np.searchsorted(head, bound, side="right")) for head in heads]
        parts = [head[:cut] for head, cut in zip(heads, cuts, strict=True)]
        hi_n = np.sort(np.concatenate([last_n, *parts]))
        if (hi_n[1:] == hi_n[:-1]).any():
            return True
        last_n = hi_n[-1:]
        heads = [
            head[cut:] if cut < len(head) else _next_hi(stream)
            for head, cut, stream in zip(heads, cuts, streams, strict=True)
        ]
    return False


def _next_hi(stream: Iterator[Array]) -> Array:
    return next((hi_n for hi_n in stream if len(hi_n)), np.empty(0, np.uint64))


def _number(run: SortedKeys, index: int) -> Iterator[Array]:
    for keys_n in run.read():
        keys_n["run"] = index
        yield keys_n


def _merge(readers: Sequence[_Reader]) -> Iterator[Array]:
    """Yields the keys of all readers in order; of each reader one batch is in memory."""
    streams = [reader() for reader in readers]
    heads = [_next(stream) for stream in streams]
    while any(map(len, heads)):
        # Up to the least of the last keys at hand nothing is still to come from any stream.
        bound = min((int(h["hi"][-1]), int(h["lo"][-1])) for h in heads if len(h))
        cuts = [_count_to(head, *bound) for head in heads]
        yield _sorted([head[:cut] for head, cut in zip(heads, cuts, strict=True)])
        heads = [
            head[cut:] if cut < len(head) else _next(stream)
            for head, cut, stream in zip(heads, cuts, streams, strict=True)
        ]


def _next(stream: Iterator[Array]) -> Array:
    return next((keys_n for keys_n in stream if len(keys_n)), np.empty(0, KEY))


def _count_to(keys_n: Array, hi: int, lo: int) -> int:
    """Counts the sorted keys that are at most the given one."""
    first = bisect_left(keys_n["hi"], hi)
    end = bisect_right(keys_n["hi"], hi, first)
    return bisect_right(keys_n["lo"], lo, first, end)


def _sorted(parts: Sequence[Array]) -> Array:
    keys_n = np.concatenate(parts)
    hi_n = np.ascontiguousarray(keys_n["hi"])
    order_n = np.argsort(hi_n, kind="stable")
    hi_n, lo_n = hi_n[order_n], keys_n["lo"][order_n]
    # Hashes that share one half alone are rarer than a fault of the machine.
    if ((hi_n[1:] == hi_n[:-1]) & (lo_n[1:] < lo_n[:-1])).any():
        order_n = np.lexsort((keys_n["lo"], keys_n["hi"]))
    return keys_n[order_n]


class _Neighbours:
    """Counts equal neighbours in keys that come in order, and keeps the first groups of them."""

    def __init__(self) -> None:
        self.count = 0
        self._groups: dict[Any, Array] = {}
        self._tail = np.empty(0, KEY)

    @property
    def groups(self) -> list[Array]:
        """The first groups, each with its first members (m,)."""
        return list(self._groups.values())

    def add(self, keys_n: Array) -> None:
        """Takes the next keys."""
        # The last group that started is put before them, so that one that continues is seen as one.
        joined_m = np.concatenate([self._tail, keys_n])
        hi_m, lo_m = joined_m["hi"], joined_m["lo"]
        begins_m = (hi_m[1:] != hi_m[:-1]) | (lo_m[1:] != lo_m[:-1])
        starts_g = np.flatnonzero(np.concatenate([[True], begins_m]))
        sizes_g = np.diff(starts_g, append=len(joined_m))
        self.count += len(joined_m) - len(starts_g) - max(len(self._tail) - 1, 0)
        for index in np.flatnonzero(sizes_g > 1)[:EXAMPLES]:
            start, size = starts_g[index], min(sizes_g[index], _MEMBERS)
            self._keep(joined_m[start : start + size])
        self._tail = joined_m[starts_g[-1] :][:_MEMBERS].copy()

    def _keep(self, group_m: Array) -> None:
        key = group_m[0][["hi", "lo"]].item()
        if key in self._groups or len(self._groups) < EXAMPLES:
            self._groups[key] = group_m.copy()
