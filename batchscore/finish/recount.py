"""What checks of columns count of units that were scored before the job asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.errors import RecordError
from batchscore.job import ColumnCheck
from batchscore.runs.lineage import find_source_rows, source_rows
from batchscore.runs.open_table import open_table
from batchscore.runs.unique import partition_values
from batchscore.stages.read import read_unit
from batchscore.stages.tally import Tallies, located
from batchscore.units.record import StagedFile, UnitRecord
from batchscore.units.tallies import Tally, merge_tallies
from batchscore.units.unit import Unit
from batchscore.worker.spec import RunSpec

_BATCH_ROWS = 65_536
# Opening a shard is mostly waiting, for a store or for its footer.
_THREADS = 16


def complete_tallies(spec: RunSpec, records: Mapping[str, UnitRecord]) -> dict[str, UnitRecord]:
    """Returns units' records with a tally for each check of a column; nothing is scored.

    A column that is written is counted in the unit's scored files, and any other in its shards.
    Some units are read at a time.

    Raises:
        RecordError: A file of the unit is gone or damaged.
        StepError: There is no such column, or its type cannot be checked so.
        ShardError: A shard cannot be read, or changed since it was planned.
    """
    lacking = {unit: record for unit, record in records.items() if _missing(spec, record)}
    if not lacking:
        return dict(records)
    with ThreadPoolExecutor(min(_THREADS, len(lacking)), thread_name_prefix="recount") as pool:
        counted = pool.map(lambda record: _completed(spec, record), lacking.values())
        return {**records, **dict(zip(lacking, counted, strict=True))}


def _missing(spec: RunSpec, record: UnitRecord) -> list[ColumnCheck]:
    checks = (check for check in spec.scoring.target.checks if not check.is_made)
    return [check for check in checks if check.key not in record.tallies]


def _completed(spec: RunSpec, record: UnitRecord) -> UnitRecord:
    known, missing = record.tallies, _missing(spec, record)
    written = {name for name, _ in record.columns}
    in_files = [check for check in missing if check.column in written]
    others = [check for check in missing if check.column not in written]
    found = {**_of_files(spec, record, in_files), **_of_shards(spec, record, others)}
    _check_counts(record, found)
    kept = {
        check.key: known[check.key] for check in spec.scoring.target.checks if check.key in known
    }
    return replace(record, tallies={**kept, **found})


def _of_files(spec: RunSpec, record: UnitRecord, checks: Sequence[ColumnCheck]) -> dict[str, Tally]:
    files = record.files if checks else ()
    counted = [_of_file(spec, record, file, checks) for file in files]
    return {c.key: merge_tallies([each[c.key] for each in counted]) for c in checks}


def _of_file(
    spec: RunSpec, record: UnitRecord, file: StagedFile, checks: Sequence[ColumnCheck]
) -> dict[str, Tally]:
    unit = Unit(record.unit, record.pieces)
    tallies = Tallies(checks, unit, partial(_source_places, spec, record, file, unit))
    _count_file(spec, file, sorted({check.column for check in checks}), tallies)
    return tallies.found


def _count_file(spec: RunSpec, file: StagedFile, columns: Sequence[str], tallies: Tallies) -> None:
    values = partition_values(file.partition, spec.scoring.source.schema)
    stored = [name for name in columns if name not in values]
    row = 0
    with open_table(spec.output, file.staged) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=stored):
            count = batch.num_rows
            arrays = [
                pa.repeat(values[n], count) if n in values else batch.column(n) for n in columns
            ]
            rows = to_arrow(np.arange(row, row + count, dtype=np.int64))
            tallies.add([pa.RecordBatch.from_arrays(arrays, names=list(columns))], rows)
            row += count


def _source_places(
    spec: RunSpec, record: UnitRecord, file: StagedFile, unit: Unit, rows_n: Array
) -> list[tuple[str, int]]:
    return located(unit, find_source_rows(spec.output, record, file.staged, rows_n))


def _of_shards(
    spec: RunSpec, record: UnitRecord, checks: Sequence[ColumnCheck]
) -> dict[str, Tally]:
    unit = Unit(record.unit, record.pieces)
    tallies = Tallies(checks, unit)
    if not checks or not record.scored:
        return tallies.found
    filtered = {column for group in spec.scoring.source.filters or () for column, *_ in group}
    names = filtered | {check.column for check in checks}
    schema = pa.schema([field for field in spec.scoring.source.schema if field.name in names])
    scored_n = _scored_rows(spec, record, unit)
    for block in read_unit(
        unit, replace(spec.scoring.source, schema=schema), len(record.bad_shards)
    ):
        if block.sequence == 0:  # a shard failed: what was read before counts for nothing
            tallies = Tallies(checks, unit)
        if block.end is None:
            mask = to_arrow(scored_n[to_numpy(block.rows_b)])
            tallies.add([block.batch.filter(mask)], block.rows_b.filter(mask))
    return tallies.found


def _scored_rows(spec: RunSpec, record: UnitRecord, unit: Unit) -> Array:
    """Returns which of a unit's rows (n,) were scored."""
    scored_n = np.zeros(unit.rows, np.bool_)
    for file in record.files:
        for row_n in source_rows(spec.output, record, file.staged):
            scored_n[row_n] = True
    return scored_n


def _check_counts(record: UnitRecord, found: Mapping[str, Tally]) -> None:
    for key, tally in found.items():
        if tally.rows != record.scored:
            raise RecordError(
                f"unit {record.unit}: {tally.rows:,} rows were found for the check {key!r}, and "
                f"{record.scored:,} were scored; score the slice again with --rescore"
            )
