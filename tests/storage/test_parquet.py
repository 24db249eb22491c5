"""Tests of how Parquet files are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.storage.parquet import extension_options, open_reader
from batchscore.storage.store import open_filesystem


def test_a_reader_by_leaf_columns_has_the_types_of_a_reader_by_names(tmp_path: Path) -> None:
    """A UUID that another program wrote is one for both, or bytes for both."""
    path = tmp_path / "0.parquet"
    values = pa.array([bytes(range(16))], pa.binary(16))
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), values)
    pq.write_table(pa.table({"a": uuids}), path, store_schema=False)
    with open_reader(*open_filesystem(str(path)), 0) as reader:
        (batch,) = reader.iter_batches(1, [0], [0])
    assert batch.schema.equals(pq.ParquetFile(path).schema_arrow)


def test_an_arrow_that_has_no_option_for_extension_types_is_not_asked_for_it() -> None:
    """It would refuse to open any file."""

    def earlier(source: Any, *, pre_buffer: bool = False) -> None:
        """Takes what Arrow 20 takes."""

    def later(source: Any, *, arrow_extensions_enabled: bool = True) -> None:
        """Takes what Arrow 21 takes."""

    assert extension_options(earlier) == {}
    assert extension_options(later) == {"arrow_extensions_enabled": True}
