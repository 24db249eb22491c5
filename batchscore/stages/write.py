"""Scored blocks to staged Parquet files, partitioned and of bounded size, with their hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.arrays import to_numpy
from batchscore.errors import StepError
from batchscore.records import UnitRecord
from batchscore.stages.ahead import WriteBehind
from batchscore.stages.block import Block, End, Reject, locate_rows, stopwatch
from batchscore.stages.partition import FILE_BYTES, PartitionFiles, split_partitions
from batchscore.storage import Store
from batchscore.units import Unit

SYSTEMATIC_ROWS = 256
_BLOCKS_BEHIND = 2
MODEL_VERSION = "model_version"


@dataclass(frozen=True)
class Target:
    """What is written, and how.

    Args:
        columns: input columns that are passed through, in order.
        partition_by: columns that live in the path.
        model_version: value of the column of that name.
        file_bytes: a file is closed once it is this large.
    """

    columns: tuple[str, ...]
    partition_by: tuple[str, ...]
    model_version: str
    file_bytes: int = FILE_BYTES


def scored_batch(block: Block, target: Target) -> pa.RecordBatch:
    """Returns a block's passed-through columns, then its scores, then the model's version.

    Raises:
        StepError: a score has the name of another column.
    """
    assert block.values is not None
    kept = block.batch.select(list(target.columns))
    names = [*target.columns, *block.values.schema.names, MODEL_VERSION]
    clashes = sorted(name for name, count in Counter(names).items() if count > 1)
    if clashes:
        raise StepError(
            f"output column {clashes[0]!r} would stand twice, from the input and from the scores; "
            "rename the score in postprocess, or leave the column out of output.columns"
        )
    version = pa.repeat(pa.scalar(target.model_version), len(block))
    return pa.RecordBatch.from_arrays([*kept.columns, *block.values.columns, version], names=names)


class UnitWriter:
    """Writes one attempt at one unit, and profiles it, on a thread behind the stages.

    Args:
        store: the output.
        folder: where this attempt's files go; new for each attempt.
        unit: what is written, with the rows that its footers promise.
        attempt: names the attempt.
        target: what is written of a block.
        profile: is called with the source columns and scores of each block.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        unit: Unit,
        attempt: str,
        target: Target,
        profile: Callable[[pa.RecordBatch], None],
    ) -> None:
        self._store, self._folder, self._unit, self._attempt = store, folder, unit, attempt
        self._target, self._profile = target, profile
        self._files = PartitionFiles(store, folder, target.file_bytes)
        self._rejects: tuple[pq.ParquetWriter, IO[bytes]] | None = None
        self._reasons: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._schema: pa.Schema | None = None
        self._scored = self._sequence = 0
        self._behind = WriteBehind(self._write, _BLOCKS_BEHIND)

    def add(self, block: Block) -> None:
        """Takes the unit's next block.

        Raises:
            StepError: a block is missing or came twice, so the stage was not fused.
        """
        if block.sequence != self._sequence:
            raise StepError(
                f"unit {block.unit.id}: block {block.sequence} came where {self._sequence} was "
                "expected; the engine did not keep the stages of a unit together"
            )
        self._sequence += 1
        for stage, spent in block.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + spent
        self._scored += len(block)
        self._behind.put(block)

    def finish(self, end: End) -> UnitRecord:
        """Closes all files and accounts for every row.

        Raises:
            StepError: rows read, filtered, scored and rejected do not add up; or of 256 rows or
            more not one was scored.
        """
        self._behind.close()
        with stopwatch(self._seconds, "write"):
            self._files.close()
            self._close_rejects()
        rejected = sum(self._reasons.values())
        self._reconcile(end, rejected)
        self._check_some_scored(rejected)
        return UnitRecord(
            unit=self._unit.id,
            attempt=self._attempt,
            read=end.read,
            filtered=end.filtered,
            scored=self._scored,
            rejected=rejected,
            reject_reasons=dict(self._reasons),
            rejects_file=f"{self._folder}/rejects.parquet" if rejected else None,
            files=tuple(self._files.files),
            columns=tuple((field.name, str(field.type)) for field in self._schema or ()),
            seconds=self._seconds,
        )

    def abort(self) -> None:
        """Ends the thread and lets go of the files of an attempt that failed."""
        with suppress(Exception):
            self._behind.close()
        with suppress(Exception):
            self._close_rejects()
        self._files.abort()

    def _check_some_scored(self, rejected: int) -> None:
        if rejected >= SYSTEMATIC_ROWS and not self._scored:
            reason, count = self._reasons.most_common(1)[0]
            raise StepError(
                f"none of {rejected:,} rows of a unit was scored, {count:,} for one reason: "
                f"{reason}. That is the model or the code, not these rows: check the weights, the "
                "preprocessing and the inputs"
            )

    def _reconcile(self, end: End, rejected: int) -> None:
        kept = end.read - end.filtered
        if end.read != self._unit.rows:
            raise StepError(
                f"unit {self._unit.id}: {end.read:,} rows were read where the footers promise "
                f"{self._unit.rows:,}; write the shard again"
            )
        if end.blocks != self._sequence or self._scored + rejected != kept:
            raise StepError(
                f"unit {self._unit.id}: {kept:,} rows in {end.blocks} blocks were kept, but "
                f"{self._scored:,} scored and {rejected:,} rejected in {self._sequence} blocks"
            )

    def _write(self, block: Block) -> None:
        for reject in block.rejects:
            self._write_reject(reject)
        if not len(block):
            return
        batch = scored_batch(block, self._target)
        self._check_schema(batch.schema)
        with stopwatch(self._seconds, "profile"):
            self._profile(_with_values(block))
        with stopwatch(self._seconds, "write"):
            for folder, part in split_partitions(batch, self._target.partition_by):
                self._files.add(folder, part)

    def _check_schema(self, schema: pa.Schema) -> None:
        if self._schema is None:
            self._schema = schema
        if schema != self._schema:
            raise StepError(
                f"the scores' columns changed between blocks: {_columns(self._schema)}, then "
                f"{_columns(schema)}; a function must return the same columns and types each time"
            )

    def _write_reject(self, reject: Reject) -> None:
        self._reasons[f"{reject.stage}: {reject.error}: {reject.message}"] += len(reject.rows_r)
        table = reject_table(reject, self._unit)
        if self._rejects is None:
            file = self._store.create(f"{self._folder}/rejects.parquet")
            self._rejects = pq.ParquetWriter(pa.PythonFile(file, mode="w"), table.schema), file
        self._rejects[0].write_batch(table)

    def _close_rejects(self) -> None:
        # The writer does not close a file that it was given.
        for each in self._rejects or ():
            each.close()


def reject_table(reject: Reject, unit: Unit) -> pa.RecordBatch:
    """Returns rejected rows with their source columns, shard, row number, stage and reason."""
    shard_r, row_r = locate_rows(unit, to_numpy(reject.rows_r))
    count = len(reject.rows_r)
    constants = [reject.stage, reject.error, reject.message]
    columns = [shard_r, row_r, *(pa.repeat(pa.scalar(text), count) for text in constants)]
    names = ["_shard", "_row", "_stage", "_error", "_message"]
    return pa.RecordBatch.from_arrays(
        [*columns, *reject.batch.columns], names=[*names, *reject.batch.schema.names]
    )


def _with_values(block: Block) -> pa.RecordBatch:
    assert block.values is not None
    fields = [*block.batch.schema, *block.values.schema]
    columns = [*block.batch.columns, *block.values.columns]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
