"""Test which effects warn and fail, and which rules are refused."""

from __future__ import annotations

import pytest

from batchscore.drift.findings import Rules, Thresholds
from batchscore.drift.thresholds import DEFAULTS, NO_THRESHOLDS, check_rules, thresholds_for

LOOSE = Thresholds(0.3, 0.6)


def test_column_thresholds_come_before_those_of_all_and_those_before_the_defaults() -> None:
    """The nearest thresholds count."""
    rules = Rules(thresholds={"psi": LOOSE}, column_thresholds={"x": {"psi": Thresholds(1, 2)}})
    assert thresholds_for(rules, "x", "double", "psi") == Thresholds(1, 2)
    assert thresholds_for(rules, "y", "double", "psi") == LOOSE
    assert thresholds_for(rules, "y", "double", "ks") == DEFAULTS["ks"]
    assert thresholds_for(rules, "y", "double", "js") == NO_THRESHOLDS


@pytest.mark.parametrize("type_", ["timestamp[us, tz=UTC]", "date32[day]"])
def test_dates_are_judged_by_null_rate_unless_their_column_says_more(type_: str) -> None:
    """What moves by design has no thresholds but the null rate's."""
    rules = Rules(thresholds={"psi": LOOSE}, column_thresholds={"own": {"psi": LOOSE}})
    assert thresholds_for(rules, "day", type_, "psi") == NO_THRESHOLDS
    assert thresholds_for(rules, "day", type_, "null_rate") == DEFAULTS["null_rate"]
    assert thresholds_for(rules, "own", type_, "psi") == LOOSE
    assert thresholds_for(rules, "hours", "duration[s]", "psi") == LOOSE


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(thresholds={"pzi": LOOSE}), "there is no measure 'pzi'; nearest: 'psi'"),
        (Rules(column_thresholds={"x": {"kss": LOOSE}}), "nearest: 'ks'"),
        (Rules(thresholds={"frechet": LOOSE}), "only shown"),
        (Rules(thresholds={"ks": Thresholds(0.3, 0.2)}), "warn must not be above fail"),
        (Rules(thresholds={"ks": Thresholds(None, 1.5)}), "at most 1"),
        (Rules(thresholds={"psi": Thresholds(0.0, None)}), "above 0"),
        (Rules(alpha=0.0), "alpha is 0"),
        (Rules(alpha=1.0), "alpha is 1"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules: Rules, message: str) -> None:
    """An unknown measure names the nearest, impossible thresholds what is possible."""
    with pytest.raises(ValueError, match=message):
        check_rules(rules)
