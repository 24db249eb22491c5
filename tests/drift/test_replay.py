"""Test the laws of tuned thresholds: few enough nights alarm, the worst ones, and no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchscore.drift.replay import Key, Night, alarms, failing, tune

KEYS: list[Key] = [(column, measure) for column in "ab" for measure in ("psi", "ks", "w1")]
FAILS: dict[Key, float | None] = {key: {"psi": 0.25, "ks": 0.2, "w1": 0.25}[key[1]] for key in KEYS}
EFFECTS = st.dictionaries(st.sampled_from(KEYS), st.floats(1e-3, 1.0), max_size=4)


@st.composite
def some_nights(draw: st.DrawFn) -> list[Night]:
    """Draw up to twenty nights, some of which fail whatever the thresholds are."""
    effects = draw(st.lists(EFFECTS, max_size=20))
    broken = draw(st.lists(st.booleans(), min_size=len(effects), max_size=len(effects)))
    return [
        Night(f"night {i}", found, "a column is gone" if is_broken and i % 5 == 0 else "")
        for i, (found, is_broken) in enumerate(zip(effects, broken, strict=True))
    ]


@given(nights=some_nights(), most=st.integers(0, 20))
def test_no_more_nights_alarm_than_are_wanted(nights: list[Night], most: int) -> None:
    """Broken nights alone can be more, since no threshold makes them silent."""
    tuned = tune(nights, FAILS, most)
    left = failing(nights, {**FAILS, **tuned.fails})
    broken = sum(bool(night.broken) for night in nights)
    assert tuned.kept == tuple(night.name for night in left)
    assert len(left) <= max(most, broken)
    assert {*tuned.kept, *tuned.silent} == {night.name for night in failing(nights, FAILS)}


@given(nights=some_nights(), most=st.integers(0, 20))
def test_thresholds_are_only_raised(nights: list[Night], most: int) -> None:
    """What is raised failed on some night, and a night that was silent stays silent."""
    tuned = tune(nights, FAILS, most)
    for key, fail in tuned.fails.items():
        before = FAILS[key]
        assert before is not None
        assert fail is None or fail > before
        assert any(night.effects.get(key, 0.0) >= before for night in nights)


@given(nights=some_nights(), most=st.integers(0, 20))
def test_the_worst_nights_go_on_alarming(nights: list[Night], most: int) -> None:
    """A night by itself beyond all others, in effect over threshold, is never made silent."""

    def severity(night: Night) -> float:
        if night.broken:
            return float("inf")
        found = alarms(night, FAILS)
        return found[0][1] if found else 0.0

    ranked = sorted(nights, key=severity, reverse=True)
    if most and ranked and severity(ranked[0]) >= 1:
        others = [severity(night) for night in ranked[1:]]
        if severity(ranked[0]) > 1.1 * max(others, default=0.0):
            assert ranked[0].name in tune(nights, FAILS, most).kept


def test_an_example_by_hand() -> None:
    """Three nights alarm and one may: the threshold lies just above the second largest effect."""
    key = ("a", "w1")
    nights = [Night(str(i), {key: effect}) for i, effect in enumerate((0.3, 0.9, 0.26, 0.1))]
    tuned = tune(nights, {key: 0.25}, 1)
    assert (tuned.kept, tuned.silent, tuned.fails) == (("1",), ("0", "2"), {key: 0.31})
    assert tune(nights, {key: 0.25}, 3).fails == {}


def test_an_effect_that_cannot_be_larger_never_alarms_again() -> None:
    """A null rate that went from 0 to 1 has no threshold above it."""
    key = ("a", "null_rate")
    assert tune([Night("0", {key: 1.0})], {key: 0.05}, 0).fails == {key: None}
