"""Checks that a row passes or fails alone: rows that fail one are rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, numbers_by_row, to_arrow
from batchscore.errors import StepError
from batchscore.job import Checks, ColumnCheck
from batchscore.messages.values import joined_texts, number_texts
from batchscore.messages.wording import nearest
from batchscore.stages.block import Block, reject_rows
from batchscore.stages.tally import check_type, failing_rows, value_texts

STAGE = "checks"


def reject_failing(block: Block, checks: Sequence[ColumnCheck], asked: Checks) -> Block:
    """Rejects scored rows that fail a check; a run with such a row would be held.

    Args:
        block: Its values are the scores.
        checks: Those of columns; the age of the newest value is none of a row, and no row fails
            for an unseen category.
        asked: The job's section, for the range of scores.

    Raises:
        StepError: There is no column of a check.
    """
    if block.values is None or not len(block):
        return block
    for check in checks:
        if check.kind not in ("fresh", "unseen"):
            block = _reject_column(block, check)
    for name, (low, high) in _ranges(block, asked).items():
        block = _reject_outside(block, name, low, high)
    return block


def _reject_column(block: Block, check: ColumnCheck) -> Block:
    column = _column(block, check)
    check_type(check, column.type)
    bad_b = failing_rows(check, column)
    if bad_b is None or not bad_b.any():
        return block
    where = f"checks.{check.kind}: column {check.column!r}"
    if check.kind == "not_null":
        return _reject(block, bad_b, "Null", f"{where} is null", None)
    found = value_texts(column.filter(to_arrow(bad_b)))
    return _reject(block, bad_b, "NotAccepted", f"{where} has a value that is not listed", found)


def _column(block: Block, check: ColumnCheck) -> pa.Array:
    assert block.values is not None
    for batch in (block.values, block.batch):
        if check.column in batch.schema.names:
            return batch.column(check.column)
    known = [*block.batch.schema.names, *block.values.schema.names]
    raise StepError(
        f"checks.{check.kind}: there is no column {check.column!r} among what is read and the "
        f"scores; {nearest(check.column, known)}"
    )


def _ranges(block: Block, asked: Checks) -> Mapping[str, tuple[float, float]]:
    assert block.values is not None
    if isinstance(asked.score_range, tuple):
        return dict.fromkeys(block.values.schema.names, asked.score_range)
    return asked.score_range or {}


def _reject_outside(block: Block, name: str, low: float, high: float) -> Block:
    assert block.values is not None
    if name not in block.values.schema.names or not len(block):
        return block
    found = numbers_by_row(block.values.column(name))
    if found is None:
        return block
    rows_n, numbers_n = found
    outside_n = (numbers_n < low) | (numbers_n > high)
    if not outside_n.any():
        return block
    bad_rows, first_n = np.unique(rows_n[outside_n], return_index=True)
    bad_b = np.isin(np.arange(len(block)), bad_rows)
    values = number_texts(to_arrow(numbers_n[outside_n][first_n]))
    message = f"checks.score_range: score {name!r} is not from {low:g} to {high:g}"
    return _reject(block, bad_b, "OutOfRange", message, values)


def _reject(block: Block, bad_b: Array, error: str, message: str, found: pa.Array | None) -> Block:
    details = None if found is None else joined_texts(["found ", found])
    return reject_rows(block, to_arrow(bad_b), STAGE, error, message, details)
