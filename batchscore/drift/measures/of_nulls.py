"""The measure of how many values are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.declaration import Difference, Kind, MeasureSpec
from batchscore.drift.measures.shares import compare_shares, percent


@dataclass(frozen=True)
class NullSides:
    """How many rows of the reference, and now, have no value."""

    missing: int
    rows: int
    missing_now: int
    rows_now: int
    kind: ClassVar[Kind] = "nulls"

    @property
    def too_few(self) -> bool:
        """Whether a side has no rows."""
        return not self.rows or not self.rows_now


def _null_rate(sides: NullSides) -> Iterator[Difference]:
    yield compare_shares(sides.missing, sides.rows, sides.missing_now, sides.rows_now)


def _missing(shares: Shares, title: str) -> str:
    is_, was = percent(shares.now), percent(shares.before)
    return f"{is_} of the rows are null, {was} were in {title}"


MEASURES = (
    MeasureSpec(
        name="null_rate",
        kinds=("nulls",),
        find=_null_rate,
        label="null rate",
        meaning="share of rows without a value, NaN among them",
        tested=True,
        defaults=Thresholds(0.01, 0.05),
        most=1,
        words="a difference of",
        changed=_missing,
        samples="share of rows without a value: null, NaN, incomplete vectors; difference",
        noise="Fisher's exact test",
    ),
)
