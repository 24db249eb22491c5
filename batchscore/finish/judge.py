"""Every check of a run whose rows were reconciled, with the facts that each of them needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np

from batchscore.errors import RecordError
from batchscore.messages.values import plain_value
from batchscore.messages.wording import one_line
from batchscore.runs.checks import (
    Check,
    check_bad_shards,
    check_golden,
    check_not_empty,
    check_rejects,
    check_rows,
    check_schema,
    check_score_range,
    check_unique,
    check_volume,
)
from batchscore.runs.column_checks import check_columns
from batchscore.runs.history import rows_before
from batchscore.runs.lineage import find_scored_row, find_source_rows, read_row
from batchscore.runs.manifest_model import Manifest
from batchscore.runs.reconcile import Rows
from batchscore.runs.unique import (
    Scratch,
    SortedKeys,
    find_duplicates,
    hash_file,
    partition_values,
    read_keys,
)
from batchscore.stages.block import locate_rows
from batchscore.stages.key_hashes import hash_keys
from batchscore.units.record import UnitRecord
from batchscore.units.tallies import Tally, merge_tallies
from batchscore.units.unit import Unit
from batchscore.worker.golden_results import golden_results
from batchscore.worker.spec import RunSpec, Spec


def judge(
    spec: RunSpec,
    rows: Rows,
    records: Sequence[UnitRecord],
    bad_shards: Sequence[tuple[str, str]],
    base: Manifest | None,
) -> list[Check]:
    """Returns the checks of a run.

    Args:
        records: Records of all units that would be published.
        bad_shards: Paths and reasons of shards that were left out.
        base: The manifest of what is published of the slice, or None.
    """
    reasons = Counter[str]()
    for record in records:
        reasons.update(record.reject_reasons)
    columns = next((record.columns for record in records if record.scored), ())
    return [
        check_rows(rows),
        *check_rejects(rows, reasons, spec.scoring.rejects),
        check_not_empty(rows, spec.scoring.allow_empty),
        *check_bad_shards(bad_shards, spec.scoring.max_bad_shards),
        *judge_volume(spec, rows, base),
        *check_schema(columns, base.columns if base else None),
        *check_score_range(records, spec.scoring.checks),
        *_golden(spec),
        *_unique(spec, records),
    ]


def judge_sample(spec: Spec, record: UnitRecord) -> list[Check]:
    """Returns the checks that fail for all rows where they fail for some, here of a sample."""
    return [
        *check_score_range([record], spec.scoring.checks),
        *_unique(spec, [record]),
        *judge_values(spec, [record]),
    ]


def judge_values(spec: Spec, records: Sequence[UnitRecord]) -> list[Check]:
    """Returns the checks of columns that one row can fail, as far as records have counted them.

    A newer value may come in any row, so `fresh` is none of them.
    """
    wanted = [check for check in spec.scoring.target.checks if check.kind != "fresh"]
    tallies = {
        each.key: merge_tallies([r.tallies[each.key] for r in records if each.key in r.tallies])
        for each in wanted
    }
    return check_columns(wanted, tallies, spec.scoring.checks)


def judge_ages(spec: Spec, bounds: Mapping[str, Tally], moment: datetime) -> list[Check]:
    """Returns the check of ages, where it fails however new the values turn out to be.

    Args:
        spec: Spec of the run.
        bounds: By a check's key, a tally whose newest value no row exceeds, where one is known.
        moment: When the ages are taken.
    """
    wanted = [each for each in spec.scoring.target.checks if each.key in bounds]
    found = check_columns(wanted, bounds, spec.scoring.checks, moment)
    return [check for check in found if not check.passed]


def judge_volume(spec: Spec, rows: Rows, base: Manifest | None) -> list[Check]:
    """Returns the check of the number of rows.

    Args:
        spec: Spec of the run.
        rows: Rows of the run.
        base: The manifest of what is published of the slice, or None.
    """
    if base is not None:
        before = base.rows.scored + base.rows.rejected
        return check_volume(rows, [before], f"run {base.run}", spec.scoring.checks)
    near = rows_before(spec.output, spec.slice, spec.job)
    return check_volume(
        rows, near, f"the job's last slices, {len(near)} of them", spec.scoring.checks
    )


def _golden(spec: RunSpec) -> list[Check]:
    """Judges what the processes that loaded the model found; the ledger keeps it for later runs."""
    found = golden_results(spec)
    rows = max((each["rows"] for each in found), default=0)
    gaps = [{k: float(v) for k, v in each["gaps"].items()} for each in found]
    return check_golden(gaps, spec.scoring.model.tolerance, rows)


def _unique(spec: Spec, records: Sequence[UnitRecord]) -> list[Check]:
    """Judges the key over all units; those scored before it was asked for are hashed from files."""
    columns = spec.scoring.checks.unique
    if not columns:
        return []
    with Scratch() as scratch:
        runs = [run for record in records for run in _key_runs(spec, record, scratch)]
        found = find_duplicates(runs, scratch)
    examples = " | ".join(_examples(spec, records, found.examples))
    return [check_unique(columns, found.count, examples)]


def _examples(
    spec: Spec, records: Sequence[UnitRecord], groups: Sequence[Sequence[tuple[str, int]]]
) -> Iterator[str]:
    """Yields each key that several rows have: its values, and the places of its first rows."""
    places = {record.unit: (record, "") for record in records}
    places |= {file.staged: (record, file.staged) for record in records for file in record.files}
    for group in groups:
        rows = [(*places[label], row) for label, row in group]
        yield _key_text(spec, *rows[0]) + "; ".join(_place(spec, *each) for each in rows)


def _key_text(spec: Spec, record: UnitRecord, file: str, row: int) -> str:
    """Returns the key of a row, looked up in the file that it was written to.

    Empty where that cannot be read: the places of the rows are named all the same.
    """
    columns = spec.scoring.checks.unique
    with suppress(RecordError):
        staged, at = (file, row) if file else find_scored_row(spec.output, record, row)
        partition = next(each.partition for each in record.files if each.staged == staged)
        values = partition_values(partition, spec.scoring.source.schema)
        found = {name: plain_value(value) for name, value in values.items()}
        if stored := [name for name in columns if name not in values]:
            found |= read_row(spec.output, staged, at, stored)
        return f"{', '.join(f'{name}={_shown(found[name])}' for name in columns)} in "
    return ""


def _shown(value: Any) -> str:
    """Returns a value of a key as `trace` takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return one_line(value, 40)


def _key_runs(spec: Spec, record: UnitRecord, scratch: Scratch) -> list[SortedKeys]:
    store, columns = spec.output, spec.scoring.checks.unique
    if record.keys_file is not None and record.keys_columns == columns:
        return read_keys(store, record.keys_file, record.unit)
    runs = []
    for file in record.files:
        values = partition_values(file.partition, spec.scoring.source.schema)
        runs += hash_file(store, file.staged, values, columns, hash_keys, scratch)
    return runs


def _place(spec: Spec, record: UnitRecord, file: str, row: int) -> str:
    """Names the source of a row, given by its number within its unit, or within a scored file."""
    rows_n = np.array([row])
    if file:
        rows_n = find_source_rows(spec.output, record, file, rows_n)
    shards, rows = locate_rows(Unit(record.unit, record.pieces), rows_n)
    return f"row {rows[0].as_py():,} of {shards[0].as_py()}"
