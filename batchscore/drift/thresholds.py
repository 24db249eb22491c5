"""Which effects warn and fail: the defaults of each measure, or the rules' own."""

from __future__ import annotations

import math

from batchscore.drift.findings import NO_THRESHOLDS, Rules, Thresholds
from batchscore.drift.measures.all_measures import MEASURES
from batchscore.messages.wording import nearest

ITEMS = "items"  # the aspect of what the lists of a column hold
_LEAST_ALPHA = 1e-100  # below, tests that share it have levels that floats and SciPy lose
_MOVING = ("timestamp", "date")


def check_rules(rules: Rules) -> None:
    """Refuses rules that cannot judge anything.

    Raises:
        ValueError: `alpha` is not between 0 and 1, or next to 0, a measure is unknown or only
            shown, or thresholds are out of range or in the wrong order. Its text begins with the
            field's name, as the job file has it.
    """
    if not _LEAST_ALPHA <= rules.alpha < 1:
        raise ValueError(
            f"alpha is {rules.alpha}; it must be between 0 and 1, and at least {_LEAST_ALPHA}, "
            "such as 0.001"
        )
    by_key = {f"column_thresholds.{name}": each for name, each in rules.column_thresholds.items()}
    for key, thresholds in {"thresholds": rules.thresholds, **by_key}.items():
        for measure, each in thresholds.items():
            _check_measure(key, measure)
            _check_thresholds(key, measure, each)


def thresholds_for(
    rules: Rules, column: str, type_: str, aspect: str, measure: str, aside: bool = False
) -> Thresholds:
    """Returns what a measure of a column's aspect is judged by.

    Dates and timestamps move by design, so by default only their null rate and the hour of day are
    judged. Items of one
    list depend on each other, which the tests against noise do not know, so by default they are
    not judged; nor is what others judge. Thresholds of the column itself change all of that.

    Args:
        rules: Rules that are valid.
        column: Its name.
        type_: The name of its Arrow type.
        aspect: As in `AspectDrift.aspect`.
        measure: As in `Measure.name`.
        aside: As in `Difference.aside`.
    """
    own = rules.column_thresholds.get(column, {})
    if measure in own:
        return own[measure]
    if aspect == ITEMS or aside:
        return NO_THRESHOLDS
    spec = MEASURES[measure]
    if moves_by_design(type_) and not (spec.of_nulls or spec.of_clock):
        return NO_THRESHOLDS
    return rules.thresholds.get(measure, spec.defaults)


def moves_by_design(type_: str) -> bool:
    """Returns whether an Arrow type is of dates or timestamps, which differ from run to run."""
    return type_.startswith(_MOVING)


def _check_measure(key: str, measure: str) -> None:
    tested = sorted(name for name, spec in MEASURES.items() if spec.tested)
    if measure not in MEASURES:
        raise ValueError(f"{key}: there is no measure {measure!r}; {nearest(measure, tested)}")
    if measure not in tested:
        raise ValueError(
            f"{key}: measure {measure!r} is only shown: no test separates its effect from noise; "
            f"give thresholds to one of {', '.join(tested)}"
        )


def _check_thresholds(key: str, measure: str, thresholds: Thresholds) -> None:
    warn, fail = thresholds.warn, thresholds.fail
    most = MEASURES[measure].most
    for name, effect in (("warn", warn), ("fail", fail)):
        if effect is not None and not 0 < effect <= most:
            limit = f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"{key}: {name} of {measure} is {effect}; it must be above 0{limit}")
    if warn is not None and fail is not None and warn > fail:
        raise ValueError(
            f"{key}: {measure} warns from {warn} and fails from {fail}; warn must not be above fail"
        )
