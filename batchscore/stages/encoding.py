"""How scored columns are encoded, chosen by the bytes that a sample of them takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.columnar.arrays import raw_values

AUTO = "auto"
_ZSTD, _SNAPPY = "zstd", "snappy"
_LEVELS = {_ZSTD: 1}
_SAMPLE_ROWS = 8_192
_SLICES = 16
_SAMPLE_VALUES = 1 << 20
# What saves less than this share of the bytes costs more time than it is worth: of random floats
# zstd saves 8 %, and takes twice the time of all the rest of writing them.
_WORTH = 0.1
# zstd takes about twice the CPU time of Snappy. Of sentences that saves 60 MB for each further
# second, of JSON, addresses and ascending numbers more than 100 MB, and there it saves 40 %.
_WORTH_ZSTD = 0.4
# What is left at most. Compared in place: each unit asks for each column, and a call costs more.
_LEFT, _LEFT_ZSTD = 1 - _WORTH, 1 - _WORTH_ZSTD

_Sizes = dict[str, tuple[int, int]]
"""Each leaf column's bytes compressed and not, by its path in the schema."""


def choose_encoding(table: pa.Table, codec: str = AUTO) -> dict[str, Any]:
    """Returns the Parquet options for rows like a table's, from slices all over it.

    Each leaf column gets a dictionary where that makes the sample a tenth smaller, and compression
    where that does. It goes by bytes, which are the same every time, and not by seconds.

    Args:
        table: The first rows of a file.
        codec: Parquet's name of a compression, or `none`; `auto`: a column gets zstd where that
            makes it two fifths smaller than Snappy does, and else Snappy.
    """
    sample, tried = _sample(table), _ZSTD if codec == AUTO else codec
    plain = _sizes(sample, tried, use_dictionary=False)
    repeated = _sizes(sample.select(_repeating(sample)), tried, use_dictionary=True)
    dictionary = [c for c in repeated if repeated[c][0] < _LEFT * plain[c][0]]
    chosen = {**plain, **{column: repeated[column] for column in dictionary}}
    packed = [c for c, (compressed, raw) in chosen.items() if compressed < _LEFT * raw]
    # Of what is hardly there, as a column of nulls, later rows may tell more: both cost nothing.
    unknown = [c for c, (_, raw) in plain.items() if raw < sample.num_rows]
    dictionary, packed = sorted({*dictionary, *unknown}), sorted({*packed, *unknown})
    quick = _quick(sample, dictionary, {c: chosen[c][0] for c in packed}) if codec == AUTO else []
    codecs = {c: tried if c in packed else "none" for c in chosen} | dict.fromkeys(quick, _SNAPPY)
    levels = {c: _LEVELS[used] for c, used in codecs.items() if used in _LEVELS}
    return {
        "use_dictionary": dictionary or False,
        "compression": codecs,
        "compression_level": levels or None,
    }


def _repeating(sample: pa.Table) -> list[str]:
    """Returns the columns that a dictionary may make smaller.

    A dictionary holds each value once and an index for each row, so values must repeat.
    """
    most = int(_LEFT * sample.num_rows)
    columns = zip(sample.schema.names, sample.columns, strict=True)
    return [name for name, column in columns if _distinct(column) <= most]


def _distinct(column: pa.ChunkedArray) -> int:
    """Returns how many values a column has; 0 where to count them costs more than a trial."""
    values = column.combine_chunks()
    types, kind = pa.types, column.type
    if types.is_string(kind) or types.is_binary(kind):
        return len(values.unique())
    if types.is_boolean(kind) or not types.is_primitive(kind):
        return 0
    numbers_n = raw_values(values)
    sorted_n = np.sort(numbers_n.view(f"u{numbers_n.itemsize}"))
    return int(np.count_nonzero(sorted_n[1:] != sorted_n[:-1])) + 1


def _quick(sample: pa.Table, dictionary: list[str], zstd: dict[str, int]) -> list[str]:
    """Returns the columns that Snappy makes smaller, and zstd not by so much more.

    Args:
        sample: Rows of all columns.
        dictionary: Columns that have a dictionary.
        zstd: Bytes of the columns in question, compressed with zstd.
    """
    tops = [n for n in sample.schema.names if any(c == n or c.startswith(f"{n}.") for c in zstd)]
    snappy = _sizes(sample.select(tops), _SNAPPY, dictionary or False)
    return [
        c
        for c, (compressed, raw) in snappy.items()
        if c in zstd and compressed < _LEFT * raw and zstd[c] >= _LEFT_ZSTD * compressed
    ]


def _sample(table: pa.Table) -> pa.Table:
    rows = min(_SAMPLE_ROWS, max(_SLICES, _SAMPLE_VALUES // max(1, table.num_columns)))
    if table.num_rows <= rows:
        return table
    starts = np.linspace(0, table.num_rows - rows // _SLICES, _SLICES).astype(int)
    return pa.concat_tables([table[start : start + rows // _SLICES] for start in starts.tolist()])


def _sizes(sample: pa.Table, codec: str, use_dictionary: bool | list[str]) -> _Sizes:
    if not sample.num_columns:
        return {}
    sink = pa.BufferOutputStream()
    pq.write_table(
        sample,
        sink,
        use_dictionary=use_dictionary,
        compression=codec,
        compression_level=_LEVELS.get(codec),
        write_statistics=False,
    )
    group = pq.read_metadata(pa.BufferReader(sink.getvalue())).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {c.path_in_schema: (c.total_compressed_size, c.total_uncompressed_size) for c in columns}
