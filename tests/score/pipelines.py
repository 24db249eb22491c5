"""What pipelines of the tests of `bs.Score` end with: each element in a file of its own."""

from __future__ import annotations

import pickle
import secrets
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection


class Keep(beam.PTransform[Any, Any]):
    """Writes each element, with its time and its window, to a folder that a test reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = str(folder)

    def expand(self, elements: PCollection[Any]) -> PCollection[Any]:
        """Returns nothing but the names of the files."""
        names: PCollection[Any] = elements | beam.ParDo(_Write(self._folder))
        return names


class _Write(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> list[str]:
        """Writes an element."""
        end = float(window.max_timestamp())
        name = f"{secrets.token_hex(8)}.pickle"
        Path(self._folder, name).write_bytes(pickle.dumps((element, float(timestamp), end)))
        return [name]


def kept(folder: Path) -> list[Any]:
    """Returns the elements that a pipeline kept, in any order."""
    return [element for element, _, _ in kept_in_time(folder)]


def kept_in_time(folder: Path) -> list[tuple[Any, float, float]]:
    """Returns elements with their timestamps and the ends of their windows, in any order."""
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pickle"))]


def kept_table(folder: Path) -> pa.Table:
    """Returns the rows of all batches that a pipeline kept, in any order."""
    return pa.Table.from_batches(kept(folder))
