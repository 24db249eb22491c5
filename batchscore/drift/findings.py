"""The result of comparing two profiles: measures, and verdicts of columns and of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Verdict = Literal["ok", "warn", "fail", "insufficient_data", "insufficient_resolution"]
# From the best to the worst.
VERDICTS: tuple[Verdict, ...] = (
    "ok",
    "insufficient_resolution",
    "insufficient_data",
    "warn",
    "fail",
)
Outcome = Literal["ok", "warn", "fail", "undecided", "shown"]


@dataclass(frozen=True)
class Shares:
    """Two figures of both sides, most often shares of rows, for a sentence about them.

    Args:
        before: The figure in the reference; what is expected, where that is another figure.
        now: The figure in the current data.
        value: The value or element that has these figures, if it is one.
    """

    before: float
    now: float
    value: str = ""


@dataclass(frozen=True)
class Measure:
    """One measure of the difference between reference and current.

    Args:
        name: Names it, as in the job file; `drift/measures/` declares them.
        value: The effect; None where it is not defined.
        low: Lower bound of the effect where it is known within bounds only.
        high: Upper bound.
        estimate: Whether the value is an estimate from a sample, between the bounds.
        floor: What noise alone may reach at the corrected level, in the effect's unit; None where
            the test against noise has no such figure.
        beyond_noise: Whether the effect is more than noise.
        warn: The effect from which on a warning is due; None where it is only shown.
        fail: The effect from which on it fails.
        outcome: `undecided` within noise that an effect of `fail` would be within too; `shown`
            where the measure takes no part.
        detail: What it is about, such as the category that changed most; may be empty.
        shares: The figures of `detail`, for sentences; not part of its JSON.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    estimate: bool = False
    floor: float | None = None
    beyond_noise: bool = False
    warn: float | None = None
    fail: float | None = None
    outcome: Outcome = "shown"
    detail: str = ""
    shares: Shares | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns what others read of it, as JSON-able values."""
        return {name: value for name, value in vars(self).items() if name != "shares"}


@dataclass(frozen=True)
class AspectDrift:
    """One aspect of a column, as its values or its length, and how it changed.

    Args:
        column: The column's name.
        aspect: `value`, `length`, `norm`, `vector`, `argmax`, … ; one that only counts nulls, as
            of a type without statistics, is `nulls`.
        kind: Kind of the accumulator: numbers, categories or vectors; `nulls` where there is none.
        verdict: The worst of the measures.
        measures: Measures that take part first, the worst first; then those that are shown.
        note: What else to know, such as a type that changed.
        judged: Whether it takes part in the table's verdict.
        cause: What may lie behind it, in words; empty where nothing explains enough of it.
    """

    column: str
    aspect: str
    kind: str
    verdict: Verdict
    measures: tuple[Measure, ...]
    note: str = ""
    judged: bool = True
    cause: str = ""


@dataclass(frozen=True)
class TableDrift:
    """How a table changed against a reference.

    Args:
        verdict: The worst of the judged aspects.
        alpha: The chance, at most, that noise alone warns or fails anywhere.
        comparisons: Tests against noise that share it.
        reference_rows: `n`.
        current_rows: `m`.
        aspects: Worst first.
        gone: Columns of the reference that are not there.
        added: Columns that the reference lacks.
    """

    verdict: Verdict
    alpha: float
    comparisons: int
    reference_rows: int
    current_rows: int
    aspects: tuple[AspectDrift, ...]
    gone: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as JSON-able values."""
        aspects = [
            {**vars(aspect), "measures": [each.to_json() for each in aspect.measures]}
            for aspect in self.aspects
        ]
        return {**vars(self), "aspects": aspects}


@dataclass(frozen=True)
class Thresholds:
    """The effects from which on one measure warns and fails; None: it does not."""

    warn: float | None
    fail: float | None


NO_THRESHOLDS = Thresholds(None, None)


@dataclass(frozen=True)
class Rules:
    """How two profiles are judged.

    Args:
        alpha: The chance, at most, that noise alone warns or fails in the whole comparison.
        columns: The columns that are judged; None: all.
        thresholds: Thresholds by measure, instead of the defaults, for all columns.
        column_thresholds: Thresholds by column, then measure, instead of `thresholds`.
        nights: By how much earlier nights differ among themselves, by column, aspect and measure;
            a smaller effect is noise.
    """

    alpha: float = 0.001
    columns: frozenset[str] | None = None
    thresholds: Mapping[str, Thresholds] = field(default_factory=lambda: MappingProxyType({}))
    column_thresholds: Mapping[str, Mapping[str, Thresholds]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    nights: Mapping[tuple[str, str, str], float] = field(
        default_factory=lambda: MappingProxyType({})
    )
