"""Hashes of the columns that together name a row, and the sorted file of them.

Suffixes: `_h` rows that are hashed together, `_g` rows of a row group, `_m` rows whose hashes are
alike, `_nw` values by 64-bit words.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.columnar.hashing import mix
from batchscore.errors import StepError
from batchscore.stages.sidecar import Sidecar
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store

RUN_ROWS = 1_000_000
ROW_GROUP_ROWS = 65_536
_HASHED_ROWS = 65_536  # at a time: memory is bounded, and other threads seldom step between

_SEEDS = (np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344))
_NULLS = (np.uint64(0xA4093822299F31D0), np.uint64(0x082EFA98EC4E6C89))
_TEXT_SEEDS = ("batchscore keys1", "batchscore keys2")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_MILLISECONDS = 86_400_000
_OPTIONS = {
    "compression": "none",  # of hashes it saves nothing
    "use_dictionary": False,
    "column_encoding": {"hi": "DELTA_BINARY_PACKED", "lo": "PLAIN", "row": "DELTA_BINARY_PACKED"},
    "write_statistics": False,
}
# Columns without nulls need no definition levels, which cost half the time of plain numbers.
_SCHEMA = pa.schema(
    [
        pa.field("hi", pa.uint64(), nullable=False),
        pa.field("lo", pa.uint64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)


class KeysFile:
    """Writes the key hashes of an attempt's rows in sorted runs; one run is in memory at a time.

    Its columns are `hi` and `lo`, the halves of the hash, and `row`, the row's number within the
    unit. A run is sorted by all three. The footer's `runs` is a JSON list of the row groups at
    which runs begin, and the number of all row groups.

    Args:
        store: The output.
        path: Where the file lies within; it is created with the first row.
        columns: The key.
        rows: Expected number of rows; room is kept for as many, up to a run.
    """

    def __init__(self, store: Store, path: str, columns: tuple[str, ...], rows: int) -> None:
        self._columns = columns
        self._most = min(max(rows, _HASHED_ROWS), RUN_ROWS)
        self._sidecar = Sidecar(store, path, **_OPTIONS)
        self._run: list[Array] = []
        self._rows = 0
        self._runs = [0]

    @property
    def written(self) -> str | None:
        """The file's path, or None where no row was written."""
        return self._sidecar.written

    @property
    def digest(self) -> Digest | None:
        """Bytes and SHA-256 of the closed file, or None where there is none."""
        return self._sidecar.digest

    def add(self, batch: pa.RecordBatch, rows_b: pa.Array) -> None:
        """Takes the next rows and their int64 numbers within the unit, which ascend.

        Raises:
            StepError: A key column is not there or holds lists or structs.
        """
        for start in range(0, batch.num_rows, _HASHED_ROWS):
            hi_h, lo_h = hash_keys(batch.slice(start, _HASHED_ROWS), self._columns)
            self._keep(hi_h, lo_h, to_numpy(rows_b)[start : start + _HASHED_ROWS])

    def close(self) -> None:
        """Completes the file."""
        self._write_run()
        self._run = []
        self._sidecar.close({"runs": json.dumps(self._runs)})

    def abort(self) -> None:
        """Closes the file without its end; what was written stays."""
        self._run = []
        self._sidecar.abort()

    def _keep(self, hi_h: Array, lo_h: Array, row_h: Array) -> None:
        if self._rows + len(hi_h) > self._most:
            self._write_run()
        self._run = self._run or [np.empty(self._most, d) for d in (np.uint64, np.uint64, np.int64)]
        end = self._rows + len(hi_h)
        for kept_n, new_h in zip(self._run, (hi_h, lo_h, row_h), strict=True):
            kept_n[self._rows : end] = new_h
        self._rows = end

    def _write_run(self) -> None:
        if not self._rows:
            return
        hi_n, lo_n, row_n = (kept_n[: self._rows] for kept_n in self._run)
        order_n = _sort_order(hi_n, lo_n)
        for start in range(0, self._rows, ROW_GROUP_ROWS):
            rows_g = order_n[start : start + ROW_GROUP_ROWS]
            columns = [to_arrow(each.take(rows_g)) for each in (hi_n, lo_n, row_n)]
            self._sidecar.write(pa.Table.from_arrays(columns, schema=_SCHEMA), ROW_GROUP_ROWS)
        self._runs.append(self._runs[-1] - (-self._rows // ROW_GROUP_ROWS))
        self._rows = 0


def hash_keys(batch: pa.RecordBatch, columns: tuple[str, ...]) -> tuple[Array, Array]:
    """Returns the two halves (b,), uint64, of each row's hash over the key columns, in order.

    Equal values hash alike whatever the width of their type: integers, floats (0.0 and -0.0, and
    all NaN, are one value), texts and binaries, times of any unit, and dictionaries of these.
    Decimals hash alike at one scale. Unlike in SQL a null equals a null: two rows with the same
    null key are duplicates.

    Raises:
        StepError: A column is not there or holds lists or structs.
    """
    hi_b, lo_b = (np.full(batch.num_rows, seed) for seed in _SEEDS)
    for name in columns:
        if name not in batch.schema.names:
            raise StepError(
                f"checks.unique: column {name!r} is not among what is written, "
                f"{', '.join(batch.schema.names)}; add it to output.columns"
            )
        column_hi_b, column_lo_b = _hash_column(name, batch.column(name))
        hi_b, lo_b = mix(hi_b, column_hi_b), mix(lo_b, column_lo_b)
    return hi_b, lo_b


def _hash_column(name: str, column: pa.Array) -> tuple[Array, Array]:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if _is_text(column.type):
        column = column.cast(pa.large_binary())
    valued = column.drop_null() if column.null_count else column
    words = _words(name, valued)
    hi_n, lo_n = (_mixed(words, np.full(len(valued), seed)) for seed in _SEEDS)
    if not column.null_count:
        return hi_n, lo_n
    valid_b = to_numpy(column.is_valid())
    hi_b, lo_b = (np.full(len(column), null) for null in _NULLS)
    hi_b[valid_b], lo_b[valid_b] = hi_n, lo_n
    return hi_b, lo_b


def _mixed(words: list[Array], hash_n: Array) -> Array:
    for word_n in words:
        hash_n = mix(hash_n, word_n)
    return hash_n


def _words(name: str, column: pa.Array) -> list[Array]:
    """Returns 64-bit words (n,) that are equal where the values of a column without nulls are."""
    for belongs, words in _FAMILIES:
        if belongs(column.type):
            return words(column)
    raise StepError(
        f"checks.unique: column {name!r} is {column.type}, which cannot be part of a key; name "
        "columns of numbers, texts, binaries, booleans, dates or times"
    )


def _integer_words(column: pa.Array) -> list[Array]:
    return [to_numpy(column).astype(np.int64).view(np.uint64)]


def _float_words(column: pa.Array) -> list[Array]:
    # Adding zero turns -0.0 into 0.0.
    numbers_n = to_numpy(column).astype(np.float64) + 0.0
    numbers_n[np.isnan(numbers_n)] = np.nan
    return [numbers_n.view(np.uint64)]


def _text_words(column: pa.Array) -> list[Array]:
    from pandas.util import hash_array

    texts_n = column.to_numpy(zero_copy_only=False)
    return [hash_array(texts_n, hash_key=seed, categorize=False) for seed in _TEXT_SEEDS]


def _date_words(column: pa.Array) -> list[Array]:
    if pa.types.is_date32(column.type):
        return _integer_words(column.view(pa.int32()))
    return [(to_numpy(column.view(pa.int64())) // _DAY_MILLISECONDS).view(np.uint64)]


def _time_words(column: pa.Array) -> list[Array]:
    own = column.type
    assert pa.types.is_time(own) or pa.types.is_timestamp(own) or pa.types.is_duration(own)
    per_second = _PER_SECOND[own.unit]
    kind = pa.int32() if pa.types.is_time32(own) else pa.int64()
    seconds_n, rest_n = np.divmod(to_numpy(column.view(kind)).astype(np.int64), per_second)
    return [seconds_n.view(np.uint64), (rest_n * (10**9 // per_second)).view(np.uint64)]


def _decimal_words(column: pa.Array) -> list[Array]:
    if not len(column):
        return []
    kind = column.type
    assert pa.types.is_decimal(kind)
    wide = column.cast(pa.decimal256(76, kind.scale))
    data = wide.buffers()[1]
    assert data is not None
    words_nw = np.frombuffer(memoryview(data), np.uint64, 4 * len(wide), 32 * wide.offset)
    scale_n = np.full(len(wide), kind.scale, np.int64).view(np.uint64)
    return [scale_n, *words_nw.reshape(-1, 4).T]


def _no_words(_: pa.Array) -> list[Array]:
    return []


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    binaries = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(each(kind) for each in (*texts, *binaries, types.is_fixed_size_binary))


def _is_time(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind))


_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Array]]], ...] = (
    (pa.types.is_null, _no_words),
    (pa.types.is_boolean, _integer_words),
    (pa.types.is_integer, _integer_words),
    (pa.types.is_floating, _float_words),
    (pa.types.is_large_binary, _text_words),
    (pa.types.is_date, _date_words),
    (_is_time, _time_words),
    (pa.types.is_decimal, _decimal_words),
)


def _sort_order(hi_n: Array, lo_n: Array) -> Array:
    """Returns the order (n,) of hashes by both halves, equal ones by their place."""
    # To sort numbers takes a third of the time of finding their order. So each half gives up its
    # low bits to its place, and only halves that are then alike, which are few, are looked at.
    bits = np.uint64(len(hi_n).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed_n = hi_n & ~low
    packed_n |= np.arange(len(hi_n), dtype=np.uint64)
    packed_n.sort()
    order_n = (packed_n & low).view(np.int64)
    packed_n >>= bits
    same = packed_n[1:] == packed_n[:-1]
    places_m = np.flatnonzero(np.append(same, False) | np.append(False, same))
    alike_m = order_n[places_m]
    order_n[places_m] = alike_m[np.lexsort((alike_m, lo_n[alike_m], hi_n[alike_m]))]
    return order_n
