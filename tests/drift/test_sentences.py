"""Each column that drifted has a sentence: what is, what was, and how much that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Rules, Thresholds
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile

ROWS = 4000


def _profile(column: Any) -> TableProfile:
    profile = TableProfile.empty()
    profile.update(pa.record_batch([column], names=["x"]))
    return profile


def _reported(before: Any, now: Any) -> dict[tuple[str, str], str]:
    sides = _profile(pa.array(before)), _profile(pa.array(now))
    return sentences(compare_profiles(*sides, Rules()), *sides, "run r1")


def test_a_mean_that_moved_is_reported_with_what_it_was() -> None:
    """Both means, the reference, and the measure with its limit are there."""
    values = np.linspace(0, 1, ROWS)
    (text,) = _reported(values, values + 0.5).values()
    assert text.startswith("x: mean 1, was 0.5 in run r1; ")
    assert ", fails from 0." in text


def test_a_null_rate_is_reported_in_shares() -> None:
    """The shares of nulls of both sides are there."""
    values = np.linspace(0, 1, ROWS)
    now = pa.array(values, mask=np.arange(ROWS) % 4 == 0)
    (text,) = _reported(pa.array(values), now).values()
    assert text == (
        "x: 25 % of the rows are null, 0 % were in run r1; a difference of 0.25, fails from 0.05"
    )


def test_a_category_is_reported_by_its_name() -> None:
    """The value whose share changed most is named, with both shares."""
    found = _reported(["a", "b"] * (ROWS // 2), ["a", "a", "a", "b"] * (ROWS // 4))
    assert "x: 'a' is 75 % of the rows, was 50 % in run r1; " in found[("x", "value")]


def test_new_values_are_reported_by_their_share() -> None:
    """The share of rows with values that the reference does not have is there."""
    new = [f"new{i}" for i in range(ROWS // 10)]
    before, now = (pa.array(each) for each in (["a", "b"] * (ROWS // 2), ["a", "b"] * ROWS + new))
    sides = _profile(before), _profile(now)
    rules = Rules(thresholds={"psi": Thresholds(None, None), "category": Thresholds(None, None)})
    found = sentences(compare_profiles(*sides, rules), *sides, "run r1")
    assert found[("x", "value")].startswith(
        "x: 4.76 % of the rows have values that are not in run r1 (0 % expected); an excess of 0.0"
    )


def test_a_duration_is_reported_as_one() -> None:
    """A duration's mean is a duration, not a count of its unit."""
    hours = np.arange(ROWS) % 24 * 3_600_000
    now = pa.array(hours + 86_400_000, pa.int64()).cast(pa.duration("ms"))
    (text,) = _reported(pa.array(hours, pa.int64()).cast(pa.duration("ms")), now).values()
    assert "mean 1 day 11:" in text
    assert ", was 11:" in text


def test_a_type_that_changed_is_reported_by_its_note() -> None:
    """Where nothing can be measured, the note is the sentence."""
    (text,) = _reported(["a"] * 9, [1] * 9).values()
    assert text.startswith("x: was string, is int64: not comparable")


def _only(before: Any, now: Any) -> str:
    return _reported(before, now)[("x", "value")].partition(";")[0]


def test_a_category_may_hold_what_separates_words() -> None:
    """A comma, a colon or an arrow in a value does not hide its shares."""
    for value in ("New York, NY", "a: b", "a → b", "50 % → 75 %, 3 times as often"):
        found = _only([value, "b"] * (ROWS // 2), [value, value, value, "b"] * (ROWS // 4))
        either = (f"x: {value!r} is 75 % of the rows, was", "x: 'b' is 25 % of the rows, was")
        assert found in [f"{each} 50 % in run r1" for each in either]


def test_the_figure_that_changed_most_is_reported() -> None:
    """Neither rounding nor a mean that moved by chance hides it."""
    normal = np.random.default_rng(0).normal(0, 1, ROWS)
    large, wide = normal + 123_456, normal[::-1] * 3
    assert _only(large, large + 14) == "x: mean 123,470, was 123,456 in run r1"
    assert _only(normal, wide) == f"x: sigma {wide.std():.3g}, was {normal.std():.3g} in run r1"
    # A single value of a long tail tells less than the mean of all.
    tailed, shorter = np.append(normal, 40.0), np.append(normal + 0.5, 20.0)
    assert _only(tailed, shorter).startswith("x: mean 0.49, was -0.0")
    infinite = np.where(np.arange(ROWS) % 4 == 0, np.inf, normal)
    assert _only(normal, infinite) == "x: 25 % of the values are infinite, 0 % were in run r1"


def test_large_integers_are_reported_exactly() -> None:
    """Of integers that no float holds the median is shown, with each digit."""
    # Each is there twice, else they would be taken for identifiers.
    whole = np.repeat(np.arange(ROWS // 2), 2) * 2 + 2**62
    before, now = whole, whole + 3000
    exact = [f"{sorted(each.tolist())[ROWS // 2 - 1]:,}" for each in (now, before)]
    assert _only(before, now) == f"x: median {exact[0]}, was {exact[1]} in run r1"
