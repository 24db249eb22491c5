"""Scored blocks to staged Parquet files, partitioned and of bounded size, with their hashes.

Suffixes: `_r` rejected rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import (
    leaf_numbers,
    make_batch,
    text_array,
    to_arrow,
    to_numpy,
)
from batchscore.errors import StepError
from batchscore.job import ColumnCheck
from batchscore.messages.wording import counted, counted_were, one_line
from batchscore.models.backends.facts import DEFAULT_KERNELS
from batchscore.stages.ahead import WriteBehind
from batchscore.stages.block import Block, End, Reject, locate_rows, stopwatch
from batchscore.stages.encoding import AUTO
from batchscore.stages.key_hashes import KeysFile
from batchscore.stages.rows_file import RowsFile
from batchscore.stages.scored_files import (
    FILE_BYTES,
    PartitionFiles,
    reject_unnamed,
    split_partitions,
)
from batchscore.stages.sidecar import Sidecar
from batchscore.stages.tally import Tallies
from batchscore.stages.trial import Trial
from batchscore.storage.reading import Digest
from batchscore.storage.store import Store
from batchscore.units.record import UnitRecord
from batchscore.units.unit import Unit

SYSTEMATIC_ROWS = 256
REASONS = 50
_BLOCKS_BEHIND = 2
MODEL_VERSION = "model_version"
REASON_COLUMNS = ("_stage", "_error", "_message", "_detail")
_REJECT_COLUMNS = ("_shard", "_row", *REASON_COLUMNS)


@dataclass(frozen=True)
class Target:
    """What is written, and how.

    Args:
        columns: Input columns that are passed through, in order.
        partition_by: Columns that live in the path.
        model_version: Value of the column of that name.
        file_bytes: A file is closed once it is this large.
        unique: Columns that together name a row, whose hashes are kept; none if empty.
        plain_keys: Columns in the path whose folders have their names as they are.
        marked: Columns whose type carries an annotation, such as UUID, and that type.
        checks: What is counted of columns.
        hidden: Columns that are read for these checks alone; they are neither profiled nor written.
        codec: The compression of columns that it makes a tenth smaller, `auto` or `none`.
    """

    columns: tuple[str, ...]
    partition_by: tuple[str, ...]
    model_version: str
    file_bytes: int = FILE_BYTES
    unique: tuple[str, ...] = ()
    plain_keys: tuple[str, ...] = ()
    marked: tuple[tuple[str, pa.DataType], ...] = ()
    checks: tuple[ColumnCheck, ...] = ()
    hidden: tuple[str, ...] = ()
    codec: str = AUTO


@dataclass(frozen=True)
class Attempt:
    """One try at a unit, and where its files go.

    Args:
        unit: What is written, with the rows that its footers promise.
        name: Names the attempt; no other attempt has it.
        run: The run that makes it.
        folder: Where scored and rejected rows are staged; the attempt's own.
        ledger: Where its sidecars go, next to the records of finished units.
        kernels: The kernels that the model computes with.
        device: The device that it computes on.
    """

    unit: Unit
    name: str
    run: str
    folder: str
    ledger: str
    kernels: str = DEFAULT_KERNELS
    device: str = "cpu"

    @property
    def rejects_file(self) -> str:
        """Path of the rejected rows."""
        return f"{self.folder}/rejects.parquet"

    @property
    def rows_file(self) -> str:
        """Path of the file that tells which row of the unit each written row is."""
        return f"{self.ledger}/{self.name}.rows.parquet"

    @property
    def keys_file(self) -> str:
        """Path of the sorted key hashes."""
        return f"{self.ledger}/{self.name}.keys.parquet"


def scored_batch(block: Block, target: Target) -> pa.RecordBatch:
    """Returns a block's passed-through columns, then its scores, then the model's version.

    Raises:
        StepError: A score has the name of another column.
    """
    assert block.values is not None
    kept = block.batch.select(list(target.columns))
    columns = kept.columns
    for name, kind in target.marked:
        index = kept.schema.get_field_index(name)
        columns[index] = columns[index].cast(kind)
    names = [*target.columns, *block.values.schema.names, MODEL_VERSION]
    clashes = sorted(name for name, count in Counter(names).items() if count > 1)
    if clashes:
        raise StepError(
            f"output column {clashes[0]!r} would appear twice, from the input and from the scores; "
            "rename the score in postprocess, or leave the column out of output.columns"
        )
    version = pa.repeat(text_array([target.model_version])[0], len(block))
    return pa.RecordBatch.from_arrays([*columns, *block.values.columns, version], names=names)


class UnitWriter:
    """Writes one attempt at one unit and profiles it, each on a thread of its own.

    Args:
        store: The output.
        attempt: What is written, and where.
        target: What is written of a block.
        profile: Called with the source columns and scores of each block, and with the source
            columns of rejected rows.
        trial: Passed with the first row that was scored.
    """

    def __init__(
        self,
        store: Store,
        attempt: Attempt,
        target: Target,
        profile: Callable[[pa.RecordBatch], None],
        trial: Trial,
    ) -> None:
        self._store, self._attempt, self._unit = store, attempt, attempt.unit
        self._target, self._profile, self._trial = target, profile, trial
        self._lineage = RowsFile(store, attempt.rows_file)
        self._files = PartitionFiles(
            store, attempt.folder, target.file_bytes, self._lineage, target.codec
        )
        self._keys = KeysFile(store, attempt.keys_file, target.unique, attempt.unit.rows)
        self._rejects = Sidecar(store, attempt.rejects_file)
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._tallies = Tallies(target.checks, attempt.unit)
        self._seconds: dict[str, float] = {}
        self._schema: pa.Schema | None = None
        self._scores: pa.Schema | None = None
        self._scored = self._sequence = 0
        self._profiling = WriteBehind(self._profile_block, _BLOCKS_BEHIND)
        self._writing = WriteBehind(self._write_block, _BLOCKS_BEHIND)

    def add(self, block: Block) -> None:
        """Takes the unit's next block.

        Raises:
            StepError: A block is missing or came twice, so the stage was not fused; or before the
                trial was passed, the first 256 rows or more were all rejected for one reason.
        """
        if block.sequence != self._sequence:
            raise StepError(
                f"unit {self._unit.id}: block {block.sequence} came where {self._sequence} was "
                "expected; the engine did not keep the stages of a unit together"
            )
        self._sequence += 1
        block = reject_unnamed(block, self._target.partition_by)
        self.note(block.seconds)
        for reject in block.rejects:
            self._count(reject)
        self._scored += len(block)
        self._trial.passed = self._trial.passed or len(block) > 0
        if len(self._reasons) == 1:
            self._check_some_scored()
        self._check_columns(block)
        with stopwatch(self._seconds, "wait_write"):
            self._profiling.put(block)
            self._writing.put(block)

    def note(self, seconds: Mapping[str, float]) -> None:
        """Adds up seconds that were measured before."""
        for name, spent in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def finish(self, end: End) -> UnitRecord:
        """Closes all files, accounts for every row, and returns once local files are on disk.

        Raises:
            StepError: Rows read, filtered, scored and rejected do not add up; or of 256 rows or
                more not one was scored, nor any before them.
        """
        self._note_engine()
        for behind in (self._profiling, self._writing):
            behind.put(None)
        self._profiling.close()
        self._writing.close()
        self._reconcile(end)
        self._check_some_scored()
        self._store.flush_folders([self._attempt.folder, self._attempt.ledger])
        self._seconds["ended"] = time.time()
        return UnitRecord(
            unit=self._unit.id,
            attempt=self._attempt.name,
            run=self._attempt.run,
            pieces=self._unit.pieces,
            read=end.read,
            filtered=end.filtered,
            scored=self._scored,
            rejected=self._rejected,
            reject_reasons=dict(self._reasons),
            rejects_file=self._rejects.written,
            files=tuple(self._files.files),
            columns=tuple((field.name, str(field.type)) for field in self._schema or ()),
            seconds=self._seconds,
            bad_shards=end.bad_shards,
            rows_file=self._lineage.written,
            keys_file=self._keys.written,
            keys_columns=self._target.unique,
            score_ranges=self._ranges,
            sidecars=self._sidecars(),
            tallies=self._tallies.found,
            kernels=self._attempt.kernels,
            device=self._attempt.device,
        )

    def _sidecars(self) -> dict[str, Digest]:
        digests = {
            "rejects_file": self._rejects.digest,
            "rows_file": self._lineage.digest,
            "keys_file": self._keys.digest,
        }
        return {name: digest for name, digest in digests.items() if digest is not None}

    def abort(self) -> None:
        """Ends the threads and closes the files of an attempt that failed."""
        for behind in (self._profiling, self._writing):
            with suppress(Exception):
                behind.close()
        for files in (*self._outputs, self._keys):
            files.abort()

    def discard(self) -> None:
        """Ends an attempt that counts for nothing and removes all that it wrote."""
        self.abort()
        for path in (self._attempt.folder, self._attempt.rows_file, self._attempt.keys_file):
            self._store.remove(path)

    @property
    def _outputs(self) -> tuple[PartitionFiles | RowsFile | Sidecar, ...]:
        # The scored files tell their last rows to the lineage, which is closed after them.
        return self._files, self._lineage, self._rejects

    @property
    def _rejected(self) -> int:
        return sum(self._reasons.values())

    def _count(self, reject: Reject) -> None:
        reason = self._reason(reject)
        self._reasons[reason] += len(reject.rows_r)
        if reason not in self._examples and len(reject.rows_r):
            self._examples[reason] = one_line(reject.texts[0].as_py() or "", 300)

    def _reason(self, reject: Reject) -> str:
        """Says why rows were rejected, in one of a bounded number of texts."""
        head = f"{reject.stage}: {reject.error}"
        for most, text in ((REASONS, reject.message), (2 * REASONS, "other messages")):
            if f"{head}: {text}" in self._reasons or len(self._reasons) < most:
                return f"{head}: {text}"
        return f"{reject.stage}: other errors"

    def _check_some_scored(self) -> None:
        if self._rejected >= SYSTEMATIC_ROWS and not self._trial.passed:
            reason, count = self._reasons.most_common(1)[0]
            found = f" (for example {self._examples[reason]})" if self._examples[reason] else ""
            raise StepError(
                f"none of {self._rejected:,} rows of a unit was scored, {count:,} for one reason: "
                f"{reason}{found}. The model or the code is at fault, not these rows: check the "
                "weights, the preprocessing and the inputs"
            )

    def _reconcile(self, end: End) -> None:
        kept, bad = end.read - end.filtered, sum(shard.rows for shard in end.bad_shards)
        if end.read + bad != self._unit.rows:
            left_out = f" and {bad:,} left out" if bad else ""
            raise StepError(
                f"unit {self._unit.id}: {counted_were(end.read, 'row')} read{left_out}, but the "
                f"footers count {self._unit.rows:,}; write the shard again"
            )
        if end.blocks != self._sequence or self._scored + self._rejected != kept:
            raise StepError(
                f"unit {self._unit.id}: {counted(kept, 'row')} in {counted(end.blocks, 'block')} "
                f"were kept, but {self._scored:,} scored and {self._rejected:,} rejected in "
                f"{counted(self._sequence, 'block')}"
            )

    def _note_engine(self) -> None:
        """What is left of the time that blocks took between the reader's hands is the engine's."""
        passing = self._seconds.pop("passing", None)
        if passing is not None:
            infer = "wait_infer" if "wait_infer" in self._seconds else "infer"
            stages = ("preprocess", infer, "postprocess", "explain", "wait_write")
            known = sum(self._seconds.get(stage, 0.0) for stage in stages)
            self._seconds["engine"] = max(0.0, passing - known)

    def _profile_block(self, block: Block | None) -> None:
        """Profiles a block and keeps its keys; at the end, without one, completes their file."""
        with stopwatch(self._seconds, "profile"):
            if block is None:
                self._keys.close()
                return
            seen = _seen(block, self._target.hidden)
            for reject in seen.rejects:
                self._profile(reject.batch)
            if len(block) and block.values is not None:
                self._profile(_with_values(seen))
                widen_ranges(self._ranges, block.values)
                if self._target.checks:
                    self._tallies.add([block.values, block.batch], block.rows_b, block.made)
                if self._target.unique:
                    self._keys.add(scored_batch(block, self._target), block.rows_b)

    def _write_block(self, block: Block | None) -> None:
        """Writes a block; at the end, without one, completes all files."""
        with stopwatch(self._seconds, "write"):
            if block is None:
                for files in self._outputs:
                    files.close()
                return
            if block.rejects:
                seen = _seen(block, self._target.hidden)
                table = reject_table(seen.rejects, self._unit)
                self._rejects.write(table, table.num_rows)
            if len(block) and block.values is not None:
                self._write_scored(block)

    def _write_scored(self, block: Block) -> None:
        batch = scored_batch(block, self._target)
        by, plain = self._target.partition_by, self._target.plain_keys
        for part in split_partitions(batch, block.rows_b, by, plain):
            self._files.add(part)

    def _check_columns(self, block: Block) -> None:
        if not len(block) or block.values is None:
            return
        if self._schema is None or self._scores is None:
            self._schema = scored_batch(block, self._target).schema
            self._scores = block.values.schema
        if block.values.schema != self._scores:
            raise StepError(
                f"the scores' columns changed between blocks: {_columns(self._scores)}, then "
                f"{_columns(block.values.schema)}; a function must return the same columns and "
                "types each time"
            )


def reject_table(rejects: Sequence[Reject], unit: Unit) -> pa.Table:
    """Returns rejected rows with their source columns, shard, row number, stage and reason.

    They come in the order of the unit's rows, however they were cut into blocks.
    `_message` is the same for all rows of one cause; `_detail` has each row's column and value.
    A source column with the name of one of these six, as `_row`, becomes `input._row`.
    """
    rows_r = to_numpy(pa.concat_arrays([reject.rows_r for reject in rejects]))
    places = dict(zip(_REJECT_COLUMNS, locate_rows(unit, rows_r), strict=False))
    table = _reasons(rejects, places)
    order_r = np.argsort(rows_r, kind="stable")
    return table if len(rejects) == 1 else table.take(to_arrow(order_r))


def unplaced_rejects(rejects: Sequence[Reject]) -> pa.Table:
    """Returns rejected rows as `reject_table` does, without shard and row number."""
    rows_r = to_numpy(pa.concat_arrays([reject.rows_r for reject in rejects]))
    return _reasons(rejects, {}).take(to_arrow(np.argsort(rows_r, kind="stable")))


def _reasons(rejects: Sequence[Reject], places: Mapping[str, pa.Array]) -> pa.Table:
    """Returns columns of places, then why rows were rejected, then their source columns."""
    sizes = [len(reject.rows_r) for reject in rejects]
    which_r = to_arrow(np.repeat(np.arange(len(rejects)), sizes))
    reasons = [(reject.stage, reject.error, reject.message) for reject in rejects]
    texts = [text_array(text).take(which_r) for text in zip(*reasons, strict=True)]
    source = pa.Table.from_batches([reject.batch for reject in rejects])
    texts.append(pa.concat_arrays([reject.texts for reject in rejects]))
    names = [*places, *REASON_COLUMNS, *free_names(source.schema.names)]
    return pa.Table.from_arrays([*places.values(), *texts, *source.columns], names=names)


def free_names(names: Sequence[str]) -> list[str]:
    """Returns names of source columns next to those of reasons, which others give way to."""
    taken, free = {*_REJECT_COLUMNS, *names}, list(names)
    for index, name in enumerate(names):
        if name in _REJECT_COLUMNS:
            while free[index] in taken:
                free[index] = f"input.{free[index]}"
    return free


def widen_ranges(ranges: dict[str, tuple[float, float]], values: pa.RecordBatch) -> None:
    """Widens the ranges, in place, to hold the values, all finite, of each column of numbers.

    Lists count by their numbers, decimals as floats; booleans, texts and nulls do not count.
    """
    for name, column in zip(values.schema.names, values.columns, strict=True):
        numbers_n = leaf_numbers(column)
        if numbers_n is not None and len(numbers_n):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(numbers_n.min())), max(high, float(numbers_n.max()))


def _seen(block: Block, hidden: Sequence[str]) -> Block:
    """Returns a block without the columns that are read for checks alone."""
    if not hidden:
        return block
    drop = list(hidden)
    rejects = [replace(each, batch=each.batch.drop_columns(drop)) for each in block.rejects]
    return replace(block, batch=block.batch.drop_columns(drop), rejects=tuple(rejects))


def _with_values(block: Block) -> pa.RecordBatch:
    assert block.values is not None
    fields = [*block.batch.schema, *block.values.schema]
    columns = [*block.batch.columns, *block.values.columns]
    return make_batch(columns, pa.schema(fields), len(block))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
