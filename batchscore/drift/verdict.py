"""Judges measures: an effect alarms if it reaches a threshold and is more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from batchscore.drift.findings import Measure, Outcome, Thresholds, Verdict
from batchscore.drift.measures.all_measures import decides
from batchscore.drift.measures.declaration import Difference

_WORST_FIRST: tuple[Outcome, ...] = ("fail", "warn", "undecided", "ok", "shown")


def takes_part(comparison: Difference, thresholds: Thresholds) -> bool:
    """Returns whether a comparison is a test that shares the chance of a false alarm."""
    given = thresholds.warn is not None or thresholds.fail is not None
    return given and comparison.floor is not None and comparison.value is not None


def judge(
    variants: Sequence[Difference], thresholds: Thresholds, alpha: float, between: float = 0.0
) -> Measure:
    """Returns the measure that comparisons of one name come to: the worst, else the first.

    Args:
        variants: At least one.
        thresholds: Thresholds of this measure.
        alpha: The level of each test.
        between: By how much earlier nights differ among themselves; a smaller effect is noise.
    """
    outcomes = [_alarm(each, thresholds, alpha, between) for each in variants]
    worst = min(outcomes, key=_WORST_FIRST.index)
    chosen = variants[outcomes.index(worst)]
    # What noise may reach is asked of one comparison only, since it may take long.
    floor = math.inf if chosen.floor is None else max(chosen.floor(alpha), between)
    usual = chosen.effect is not None and chosen.effect < between
    return Measure(
        chosen.name,
        chosen.value,
        low=chosen.low,
        high=chosen.high,
        estimate=chosen.estimate,
        floor=floor if math.isfinite(floor) else None,
        beyond_noise=not usual and chosen.is_beyond_noise(alpha),
        warn=thresholds.warn,
        fail=thresholds.fail,
        outcome=_outcome(chosen, worst, thresholds, floor, alpha),
        detail=chosen.detail,
        shares=chosen.shares,
    )


def verdict_of(measures: Iterable[Measure]) -> Verdict:
    """Returns the verdict that one aspect's measures come to."""
    part = [each for each in measures if each.outcome != "shown"]
    outcomes = {each.outcome for each in part}
    if "fail" in outcomes:
        return "fail"
    if "warn" in outcomes:
        return "warn"
    deciding = [each for each in part if decides(each.name)] or part
    if deciding and all(each.outcome == "undecided" for each in deciding):
        return "insufficient_data"
    return "insufficient_resolution" if any(map(is_unresolved, part)) else "ok"


def worst_first(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Returns measures by outcome; those of one outcome stay in order."""
    return tuple(sorted(measures, key=_rank))


def severity(measures: Sequence[Measure]) -> float:
    """Returns the largest effect in units of its threshold, of the measures of worst outcome."""
    worst = min(map(_rank, measures), default=0)
    return max((_ratio(each) for each in measures if _rank(each) == worst), default=0.0)


def is_unresolved(measure: Measure) -> bool:
    """Returns whether the effect fails at its upper bound and does not warn at its lower.

    An estimate that could not have seen an effect of the fail threshold is no better known.
    """
    if measure.estimate and measure.outcome == "undecided":
        return True
    if measure.low is None or measure.high is None or measure.fail is None:
        return False
    warn = measure.fail if measure.warn is None else measure.warn
    return measure.high >= measure.fail and measure.low < warn


def _alarm(comparison: Difference, thresholds: Thresholds, alpha: float, between: float) -> Outcome:
    warn, fail, effect = thresholds.warn, thresholds.fail, comparison.effect
    if effect is None or effect < between or not comparison.is_beyond_noise(alpha):
        return "ok"
    if fail is not None and effect >= fail:
        return "fail"
    return "warn" if warn is not None and (effect >= warn or comparison.warns) else "ok"


def _outcome(
    comparison: Difference, alarm: Outcome, thresholds: Thresholds, floor: float, alpha: float
) -> Outcome:
    limit = thresholds.warn if thresholds.fail is None else thresholds.fail
    if limit is None or comparison.floor is None:
        return "shown"
    if comparison.effect is None:
        return "undecided"
    unseen = floor > limit and not comparison.is_beyond_noise(alpha)
    return "undecided" if alarm == "ok" and unseen else alarm


def _rank(measure: Measure) -> int:
    return _WORST_FIRST.index(measure.outcome)


def _ratio(measure: Measure) -> float:
    limit = measure.warn if measure.fail is None else measure.fail
    effect = measure.value if measure.low is None else measure.low
    return 0.0 if limit is None or effect is None else effect / limit
