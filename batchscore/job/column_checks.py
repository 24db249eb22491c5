"""Checks of columns, one for each column: what is counted, and how it is named."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from batchscore.job.rules import Checks


@dataclass(frozen=True)
class ColumnCheck:
    """One check of one column.

    Args:
        kind: `not_null`, `accepted` or `fresh`, as its key of the job file is called; or `unseen`,
            which the model brings and each run passes, to count categories that training lacks.
        column: Column of the input, or a score.
        values: Values that `accepted` allows, or that training saw.
        is_made: Whether the column is one that `preprocess.function` makes. It is counted while
            rows are scored, and never again.
        of_sample: Whether `values` are those of a sample of training.
    """

    kind: str
    column: str
    values: tuple[Any, ...] = ()
    is_made: bool = False
    of_sample: bool = False

    @cached_property  # each block asks for it, and thousands of values may be accepted
    def key(self) -> str:
        """Names what is counted: what counts alike has the same key, in any run."""
        if self.kind not in ("accepted", "unseen"):
            return f"{self.kind} {self.column}"
        texts = sorted(f"{type(each).__name__} {each}" for each in self.values)
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return f"{self.kind} {digest[:16]} {self.column}"


def column_checks(checks: Checks) -> tuple[ColumnCheck, ...]:
    """Returns a job's checks of columns, in the order of the job file's keys."""
    return (
        *(ColumnCheck("not_null", name) for name in checks.not_null),
        *(ColumnCheck("accepted", name, values) for name, values in checks.accepted.items()),
        *(ColumnCheck("fresh", name) for name in checks.fresh),
    )
