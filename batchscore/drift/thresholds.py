"""Which effects warn and fail: the defaults, and what rules put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from batchscore.drift.findings import Rules, Thresholds
from batchscore.messages.wording import nearest

NO_THRESHOLDS = Thresholds(None, None)
ITEMS = "items"  # the aspect of what the lists of a column hold

DEFAULTS: Mapping[str, Thresholds] = MappingProxyType(
    {
        "psi": Thresholds(0.1, 0.25),
        "ks": Thresholds(0.1, 0.2),
        "w1": Thresholds(0.1, 0.25),
        "tail": Thresholds(0.01, 0.05),
        "null_rate": Thresholds(0.01, 0.05),
        "unseen": Thresholds(0.01, 0.05),
        "category": Thresholds(0.05, 0.10),
        "mmd": Thresholds(0.1, 0.2),
    }
)
"""What takes part of itself."""
TESTED = frozenset({*DEFAULTS, "js", "hellinger"})
"""What may take part: there is a test whether noise alone could do it."""
SHOWN = frozenset(
    {"total_variation", "l_infinity", "chi2", "cramers_v"}
    | {"w1_unclipped", "w1_iqr", "mean_shift", "frechet"}
)
"""What is only shown, for want of such a test."""
_LEAST_ALPHA = 1e-100  # below, tests that share it have levels that floats and SciPy lose
_SHARES = frozenset({"ks", "tail", "null_rate", "unseen", "category", "js", "hellinger"})
_MOVING = ("timestamp", "date")


def check_rules(rules: Rules) -> None:
    """Refuses rules that nothing can be judged by.

    Raises:
        ValueError: alpha is not between 0 and 1, or next to 0, a measure is unknown or only
            shown, or thresholds are out of range or in the wrong order.
    """
    if not _LEAST_ALPHA <= rules.alpha < 1:
        raise ValueError(
            f"alpha is {rules.alpha}; it must be between 0 and 1, and at least {_LEAST_ALPHA}, "
            "such as 0.001"
        )
    for thresholds in (rules.thresholds, *rules.column_thresholds.values()):
        for measure, each in thresholds.items():
            _check_measure(measure)
            _check_thresholds(measure, each)


def thresholds_for(rules: Rules, column: str, type_: str, aspect: str, measure: str) -> Thresholds:
    """Returns what a measure of a column's aspect is judged by.

    Dates and timestamps move by design, so that of themselves they are judged by their null rate
    only. Items of one list depend on each other, which the tests against noise do not know of, so
    that of themselves they are not judged. Rules of the column itself change both.

    Args:
        rules: valid ones.
        column: its name.
        type_: the name of its Arrow type.
        aspect: as `AspectDrift.aspect`.
        measure: as `Measure.name`.
    """
    own = rules.column_thresholds.get(column, {})
    if measure in own:
        return own[measure]
    if aspect == ITEMS:
        return NO_THRESHOLDS
    if moves_by_design(type_) and measure != "null_rate":
        return NO_THRESHOLDS
    return rules.thresholds.get(measure, DEFAULTS.get(measure, NO_THRESHOLDS))


def moves_by_design(type_: str) -> bool:
    """Tells whether an Arrow type is of dates or timestamps, which differ from run to run."""
    return type_.startswith(_MOVING)


def _check_measure(measure: str) -> None:
    if measure in SHOWN:
        raise ValueError(
            f"measure {measure!r} is only shown: no test separates its effect from noise; give "
            f"thresholds to one of {', '.join(sorted(TESTED))}"
        )
    if measure not in TESTED:
        raise ValueError(f"there is no measure {measure!r}; {nearest(measure, TESTED)}")


def _check_thresholds(measure: str, thresholds: Thresholds) -> None:
    warn, fail = thresholds.warn, thresholds.fail
    most = 1.0 if measure in _SHARES else float("inf")
    for name, effect in (("warn", warn), ("fail", fail)):
        if effect is not None and not 0 < effect <= most:
            limit = " and at most 1" if most == 1 else ""
            raise ValueError(f"{name} of {measure} is {effect}; it must be above 0{limit}")
    if warn is not None and fail is not None and warn > fail:
        raise ValueError(
            f"{measure} warns from {warn} and fails from {fail}; warn must not be above fail"
        )
