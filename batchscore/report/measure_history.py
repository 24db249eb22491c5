"""What each measure found in a column over runs, and whether it rises or falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.slow_drift import Trend, find_trend
from batchscore.messages.wording import counted
from batchscore.report.formats import figure, percent
from batchscore.report.past import PastRun

_LEAST_CHANCE = 0.001


@dataclass(frozen=True)
class MeasureHistory:
    """A measure over runs, the oldest first.

    Args:
        column: The column.
        aspect: Which of its aspects, such as `value`.
        measure: The measure's name.
        values: Its effect in each run; None where a run did not judge it.
        floors: What noise may have reached in each run.
        outcomes: What each run made of it, such as `fail`.
        warn: From which effect on it warned in the last run that judged it; None for never.
        fail: From which effect on it failed there.
    """

    column: str
    aspect: str
    measure: str
    values: tuple[float | None, ...]
    floors: tuple[float | None, ...]
    outcomes: tuple[str | None, ...]
    warn: float | None
    fail: float | None

    @property
    def title(self) -> str:
        """The measure in words, with its aspect where that is not the column's own values."""
        label = MEASURES[self.measure].label if self.measure in MEASURES else self.measure
        return label if self.aspect == "value" else f"{label} of {self.aspect}"

    @property
    def severity(self) -> float:
        """The largest effect over its threshold."""
        limit = self.fail or self.warn
        most = max(value for value in self.values if value is not None)
        return most / limit if limit else 0.0

    @property
    def trend(self) -> Trend | None:
        """How it rises or falls; None where chance may have made it."""
        return find_trend(self.values)


def measures_of(name: str, runs: Sequence[PastRun]) -> list[MeasureHistory]:
    """Returns what was judged of a column, the worst first; what one run alone judged is not."""
    found = [run.measures.get(name, {}) for run in runs]
    keys = dict.fromkeys(key for measures in found for key in measures)
    listed = [_history(name, key, [each.get(key) for each in found]) for key in keys]
    kept = [each for each in listed if sum(value is not None for value in each.values) > 1]
    return sorted(kept, key=lambda each: -each.severity)


def trend_words(trend: Trend | None, shares: bool = False) -> str:
    """Returns a trend as a sentence; empty without one."""
    if trend is None:
        return ""
    size = percent(abs(trend.slope)) if shares else figure(abs(trend.slope), 2)
    how = "Rises" if trend.slope >= 0 else "Falls"
    small = trend.chance < _LEAST_CHANCE
    chance = f"< {_LEAST_CHANCE:g}" if small else f"{trend.chance:.2g}"
    over = counted(trend.nights, "run")
    return f"{how} by about {size} a run over {over} (Mann-Kendall, p {chance})."


def _history(
    column: str, key: tuple[str, str], measures: Sequence[Mapping[str, Any] | None]
) -> MeasureHistory:
    last = next(each for each in reversed(measures) if each is not None)
    warn, fail = (last.get(kind) for kind in ("warn", "fail"))
    values, floors = (
        tuple(_float((each or {}).get(field)) for each in measures) for field in ("value", "floor")
    )
    outcomes = tuple(None if each is None else each.get("outcome") for each in measures)
    return MeasureHistory(column, *key, values, floors, outcomes, _float(warn), _float(fail))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
