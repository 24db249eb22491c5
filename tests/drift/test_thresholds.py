"""Test which effects warn and fail, and which rules are refused."""

from __future__ import annotations

import numpy as np
import pytest

from batchscore.drift.categorical import AlignedCategories
from batchscore.drift.findings import NO_THRESHOLDS, Rules, Thresholds
from batchscore.drift.measures.all_measures import MEASURES, differences
from batchscore.drift.measures.of_categories import CategorySides
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.ordered import Aligned
from batchscore.drift.thresholds import check_rules, thresholds_for

LOOSE = Thresholds(0.3, 0.6)
COUNTS = np.arange(5000, 5100)
ALIGNED = Aligned.of_values(np.arange(100.0), COUNTS, COUNTS[::-1])
HASHES = np.arange(100, dtype=np.uint64)
CATEGORIES = AlignedCategories(
    HASHES, COUNTS, COUNTS[::-1], HASHES, COUNTS, COUNTS[::-1], sampled=1.0, exact=True
)


def test_column_thresholds_come_before_those_of_all_and_those_before_the_defaults() -> None:
    """The nearest thresholds count."""
    rules = Rules(thresholds={"psi": LOOSE}, column_thresholds={"x": {"psi": Thresholds(1, 2)}})
    assert thresholds_for(rules, "x", "double", "value", "psi") == Thresholds(1, 2)
    assert thresholds_for(rules, "y", "double", "value", "psi") == LOOSE
    assert thresholds_for(rules, "y", "double", "value", "ks") == MEASURES["ks"].defaults
    assert thresholds_for(rules, "y", "double", "value", "js") == NO_THRESHOLDS


@pytest.mark.parametrize("type_", ["timestamp[us, tz=UTC]", "date32[day]"])
def test_dates_are_judged_by_null_rate_unless_their_column_says_more(type_: str) -> None:
    """What moves by design has no thresholds but the null rate's."""
    rules = Rules(thresholds={"psi": LOOSE}, column_thresholds={"own": {"psi": LOOSE}})
    assert thresholds_for(rules, "day", type_, "value", "psi") == NO_THRESHOLDS
    assert (
        thresholds_for(rules, "day", type_, "value", "null_rate") == MEASURES["null_rate"].defaults
    )
    assert thresholds_for(rules, "own", type_, "value", "psi") == LOOSE
    assert thresholds_for(rules, "hours", "duration[s]", "value", "psi") == LOOSE


def test_items_are_not_judged_unless_their_column_says_so() -> None:
    """Items of one list depend on each other, so that only thresholds of the column count."""
    rules = Rules(thresholds={"psi": LOOSE}, column_thresholds={"own": {"psi": LOOSE}})
    assert thresholds_for(rules, "x", "list<item: int64>", "items", "psi") == NO_THRESHOLDS
    assert thresholds_for(rules, "x", "list<item: int64>", "length", "psi") == LOOSE
    assert thresholds_for(rules, "own", "list<item: int64>", "items", "psi") == LOOSE
    assert thresholds_for(rules, "own", "list<item: int64>", "items", "ks") == NO_THRESHOLDS


def test_the_least_alpha_can_be_judged_by() -> None:
    """At the smallest level of all every floor is a number still."""
    rules = Rules(alpha=1e-100)
    check_rules(rules)
    for found in (NumberSides(ALIGNED), CategorySides(CATEGORIES, str)):
        floors = [each.floor(rules.alpha / 10**6) for each in differences(found) if each.floor]
        assert len(floors) >= 3
        assert all(0 < floor < np.inf for floor in floors)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(thresholds={"pzi": LOOSE}), "thresholds: there is no measure 'pzi'; nearest: 'psi'"),
        (Rules(column_thresholds={"x": {"kss": LOOSE}}), "column_thresholds.x: .*nearest: 'ks'"),
        (Rules(thresholds={"frechet": LOOSE}), "only shown"),
        (Rules(thresholds={"ks": Thresholds(0.3, 0.2)}), "warn must not be above fail"),
        (Rules(thresholds={"ks": Thresholds(None, 1.5)}), "at most 1"),
        (Rules(thresholds={"psi": Thresholds(0.0, None)}), "above 0"),
        (Rules(alpha=0.0), "alpha is 0"),
        (Rules(alpha=1.0), "alpha is 1"),
        (Rules(alpha=5e-324), "alpha is 5e-324; .* at least 1e-100"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules: Rules, message: str) -> None:
    """An unknown measure names the nearest, impossible thresholds what is possible."""
    with pytest.raises(ValueError, match=message):
        check_rules(rules)
