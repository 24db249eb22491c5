"""How scored columns are encoded, chosen by the bytes that a sample of them takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ZSTD = "zstd"
_LEVELS = {ZSTD: 1}
_SAMPLE_ROWS = 8_192
_SLICES = 16
_SAMPLE_VALUES = 1 << 20
# What saves less than this share of the bytes costs more time than it is worth: of random floats
# zstd saves 8 %, and takes twice the time of all the rest of writing them.
_WORTH = 0.1


def choose_encoding(table: pa.Table, codec: str = ZSTD) -> dict[str, Any]:
    """Returns the Parquet options for rows like a table's, from slices all over it.

    Each leaf column gets a dictionary where that makes the sample a tenth smaller, and compression
    where that does. It goes by bytes, which are the same every time, and not by seconds.

    Args:
        table: The first rows of a file.
        codec: Parquet's name of a compression, or `none`.
    """
    sample = _sample(table)
    plain = _sizes(sample, codec, use_dictionary=False)
    repeated = _sizes(sample, codec, use_dictionary=True)
    dictionary = [c for c in plain if _is_worth(repeated[c][0], plain[c][0])]
    chosen = {**plain, **{column: repeated[column] for column in dictionary}}
    packed = [c for c, (compressed, raw) in chosen.items() if _is_worth(compressed, raw)]
    # Of what is hardly there, as a column of nulls, later rows may tell more: both cost nothing.
    unknown = [c for c, (_, raw) in plain.items() if raw < sample.num_rows]
    dictionary, packed = sorted({*dictionary, *unknown}), sorted({*packed, *unknown})
    return {
        "use_dictionary": dictionary or False,
        "compression": {c: codec if c in packed else "none" for c in chosen},
        "compression_level": _levels(packed, codec),
    }


def _sample(table: pa.Table) -> pa.Table:
    rows = min(_SAMPLE_ROWS, max(_SLICES, _SAMPLE_VALUES // max(1, table.num_columns)))
    if table.num_rows <= rows:
        return table
    starts = np.linspace(0, table.num_rows - rows // _SLICES, _SLICES).astype(int)
    return pa.concat_tables([table[start : start + rows // _SLICES] for start in starts.tolist()])


def _is_worth(bytes_: int, otherwise: int) -> bool:
    return bytes_ < (1 - _WORTH) * otherwise


def _levels(packed: Iterable[str], codec: str) -> dict[str, int] | None:
    level = _LEVELS.get(codec)
    return None if level is None else dict.fromkeys(packed, level) or None


def _sizes(sample: pa.Table, codec: str, use_dictionary: bool) -> dict[str, tuple[int, int]]:
    """Returns each leaf column's bytes compressed and not, by its path in the schema."""
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
