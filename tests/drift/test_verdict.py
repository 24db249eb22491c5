"""Test that measures are judged by effect and noise, and columns by their worst measure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.findings import Measure, Outcome, Thresholds
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.verdict import judge, severity, verdict_of, worst_first

LIMITS = Thresholds(0.1, 0.2)
OUTCOMES: tuple[Outcome, ...] = ("fail", "warn", "undecided", "ok", "shown")


def constant(floor: float) -> Difference:
    """Return a comparison without an effect, whose noise reaches `floor` at every level."""
    return Difference(0.0, lambda alpha: floor, name="ks")


def measure(
    name: str, outcome: Outcome, low: float | None = None, high: float | None = None
) -> Measure:
    """Return a judged measure."""
    return Measure(name, 0.0, low=low, high=high, warn=0.1, fail=0.2, outcome=outcome)


@pytest.mark.parametrize(
    ("effect", "floor", "outcome"),
    [
        (0.05, 0.01, "ok"),
        (0.1, 0.1, "warn"),
        (0.15, 0.16, "ok"),
        (0.15, 0.25, "undecided"),
        (0.2, 0.2, "fail"),
        (0.5, 0.4, "fail"),
        (0.5, 0.6, "undecided"),
    ],
)
def test_an_alarm_needs_an_effect_and_more_than_noise(
    effect: float, floor: float, outcome: Outcome
) -> None:
    """Within noise nothing alarms, and nothing is decided where a failing effect would be too."""
    assert judge([replace(constant(floor), value=effect)], LIMITS, 0.01).outcome == outcome


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.5), st.floats(0.5, 1))
def test_a_larger_effect_is_never_judged_better(
    effect: float, floor: float, warn: float, fail: float
) -> None:
    """Outcomes worsen with the effect, whatever floor and thresholds."""
    ranks = [
        {"ok": 0, "undecided": 0, "warn": 1, "fail": 2}[
            judge([replace(constant(floor), value=each)], Thresholds(warn, fail), 0.01).outcome
        ]
        for each in (effect / 2, effect)
    ]
    assert ranks == sorted(ranks)


def test_the_lower_bound_is_what_is_judged() -> None:
    """An effect that is known within bounds warns by the lower one."""
    bounded = replace(constant(0.01), value=0.15, low=0.05, high=0.3)
    assert judge([bounded], LIMITS, 0.01).outcome == "ok"


def test_of_many_categories_the_worst_counts() -> None:
    """The largest change stands for all, unless another one alarms."""
    largest = Difference(0.15, lambda alpha: 0.3, chance=0.5, detail="a", name="category")
    sure = Difference(0.12, lambda alpha: 0.1, chance=1e-9, detail="b", name="category")
    rise = Difference(0.03, lambda alpha: 0.1, chance=1e-9, detail="c", warns=True, name="category")
    assert judge([largest, sure], LIMITS, 0.01).detail == "b"
    assert judge([largest, rise], LIMITS, 0.01).outcome == "warn"
    assert judge([largest, replace(rise, warns=False)], LIMITS, 0.01).detail == "a"


def test_without_thresholds_a_measure_is_shown() -> None:
    """A measure without thresholds, or without a test against noise, takes no part."""
    assert judge([constant(0.1)], Thresholds(None, None), 0.01).outcome == "shown"
    assert judge([Difference(None, name="w1")], LIMITS, 0.01).outcome == "shown"


@pytest.mark.parametrize(
    ("measures", "verdict"),
    [
        ([measure("psi", "undecided"), measure("tail", "fail")], "fail"),
        ([measure("psi", "warn"), measure("ks", "ok")], "warn"),
        ([measure("psi", "undecided"), measure("ks", "undecided"), measure("w1", "ok")],
         "insufficient_data"),
        ([measure("psi", "undecided"), measure("ks", "ok")], "ok"),
        ([measure("null_rate", "undecided")], "insufficient_data"),
        ([measure("ks", "ok", low=0.05, high=0.25)], "insufficient_resolution"),
        ([measure("ks", "ok", low=0.05, high=0.15)], "ok"),
        ([measure("ks", "shown", low=0.05, high=0.25)], "ok"),
        ([], "ok"),
    ],
)  # fmt: skip
def test_a_verdict_is_the_worst_measure_or_says_why_there_is_none(
    measures: list[Measure], verdict: str
) -> None:
    """Alarms count first, then whether PSI or KS can decide, then whether KS is known."""
    assert verdict_of(measures) == verdict


@given(st.lists(st.sampled_from(OUTCOMES), max_size=8))
def test_the_worst_measures_come_first_and_equal_ones_stay_in_order(
    outcomes: list[Outcome],
) -> None:
    """Measures are sorted by outcome, stably."""
    measures = [measure(str(i), outcome) for i, outcome in enumerate(outcomes)]
    ranks = [(OUTCOMES.index(each.outcome), int(each.name)) for each in worst_first(measures)]
    assert ranks == sorted(ranks)


def test_severity_is_in_units_of_the_threshold() -> None:
    """Of the worst measures the largest ratio counts."""
    fails = [replace(measure("a", "fail"), value=0.4), replace(measure("b", "fail"), value=0.3)]
    assert severity([*fails, replace(measure("c", "ok"), value=9.0)]) == pytest.approx(2)
    assert severity([]) == 0
