"""The records of all units, compared with the plan: every row is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from batchscore.errors import FailedError
from batchscore.messages.wording import counted
from batchscore.units.record import UnitRecord


@dataclass(frozen=True)
class Rows:
    """Rows of a run; `input` is always the sum of filtered, scored, rejected and quarantined.

    `quarantined` are rows of shards that were left out since they could not be read; `reused` are
    rows, among the others, of units that were scored by an earlier run.
    """

    input: int
    filtered: int
    scored: int
    rejected: int
    quarantined: int = 0
    reused: int = 0


def reconcile(
    records: Mapping[str, UnitRecord],
    planned: Mapping[str, int],
    pruned: int,
    shard_rows: int,
    reused: int = 0,
) -> Rows:
    """Adds up all units and proves that every row of the input ended exactly once.

    Args:
        records: The chosen attempt of each unit.
        planned: Rows of each unit, by the footers.
        pruned: Rows of the row groups that no unit reads, since the filter excludes them.
        shard_rows: Rows of all shards, by the footers.
        reused: Rows of units that an earlier run scored.

    Raises:
        FailedError: A unit is missing or strange, or rows do not add up.
    """
    if set(records) != set(planned):
        missing, strange = set(planned) - set(records), set(records) - set(planned)
        raise FailedError(
            f"{counted(len(missing), 'planned unit')} without a record and "
            f"{counted(len(strange), 'record')} of no planned unit "
            f"({sorted(missing | strange)[:3]}); nothing was published: run again"
        )
    for unit, record in records.items():
        _reconcile_unit(record, planned[unit])
    rows = Rows(
        shard_rows,
        pruned + sum(r.filtered for r in records.values()),
        sum(r.scored for r in records.values()),
        sum(r.rejected for r in records.values()),
        sum(bad.rows for r in records.values() for bad in r.bad_shards),
        reused,
    )
    if rows.input != rows.filtered + rows.scored + rows.rejected + rows.quarantined:
        raise FailedError(f"rows do not add up: {rows}; nothing was published: run again")
    _same_columns(records)
    return rows


def _reconcile_unit(record: UnitRecord, planned: int) -> None:
    written = sum(file.rows for file in record.files)
    reasoned = sum(record.reject_reasons.values())
    counts = (record.filtered, record.scored, record.rejected)
    read = planned - sum(bad.rows for bad in record.bad_shards)
    adds_up = read == record.read == sum(counts) and min(counts) >= 0
    if not adds_up or written != record.scored or reasoned != record.rejected:
        raise FailedError(
            f"unit {record.unit}: {counted(planned, 'row')} planned, {record.read:,} read, "
            f"{record.filtered:,} filtered, {record.scored:,} scored and {written:,} of them "
            f"written, {record.rejected:,} rejected and {reasoned:,} of them with a reason; "
            "nothing was published: run again"
        )


def _same_columns(records: Mapping[str, UnitRecord]) -> None:
    kinds = Counter(record.columns for record in records.values() if record.scored)
    if len(kinds) > 1:
        first, second = [", ".join(" ".join(c) for c in columns) for columns in list(kinds)[:2]]
        raise FailedError(
            f"units have different columns: {first}; and {second}. "
            "A function must return the same columns and types for every batch"
        )
