"""Parquet files that a run wrote, opened with errors that name the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import RecordError
from batchscore.messages.wording import reason
from batchscore.storage.parquet import open_parquet
from batchscore.storage.store import Store, open_filesystem

_LOCAL_BUFFER_BYTES = 1 << 20


@contextmanager
def open_table(store: Store, path: str) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file of an output, to be read piece by piece.

    Raises:
        RecordError: It is not there, or is damaged where the block reads it.
    """
    address, filesystem = store.url(path), open_filesystem(store.address)[0]
    try:
        with open_parquet(filesystem, store.path(path), _LOCAL_BUFFER_BYTES, cache="none") as file:
            yield file
    except FileNotFoundError as error:
        raise RecordError(
            f"file {address}: no such file; restore it, or score the slice again with --rescore"
        ) from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RecordError(
            f"file {address}: damaged ({reason(error)}); restore it, or score the slice again "
            "with --rescore"
        ) from error
