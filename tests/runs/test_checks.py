"""Test each check at its borders: what passes, what does not, and the words that it says so in."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.job import Checks, Rejects
from batchscore.runs.checks import (
    Check,
    check_bad_shards,
    check_golden,
    check_not_empty,
    check_rejects,
    check_rows,
    check_schema,
    check_score_range,
    check_unique,
    check_volume,
    merge_ranges,
    outcome,
    rejects_allowed,
)
from batchscore.runs.reconcile import Rows
from batchscore.units.record import UnitRecord

COUNTS = st.integers(0, 10**7)
COLUMNS = (("id", "int64"), ("score", "float"))


def rows_of(scored: int, rejected: int = 0) -> Rows:
    """A run that filtered nothing."""
    return Rows(scored + rejected, 0, scored, rejected)


def checks_of(**facts: Any) -> Checks:
    """A job's section `checks`."""
    return Checks.model_validate(facts)


def ranges_of(scored: int = 1, /, **ranges: tuple[float, float]) -> UnitRecord:
    """A unit's record with these smallest and largest scores."""
    rest: dict[str, Any] = {"reject_reasons": {}, "rejects_file": None, "files": (), "columns": ()}
    counts = (scored, 0, scored, 0)
    return UnitRecord("u", "u-1", "r", (), *counts, **rest, seconds={}, score_ranges=ranges)


def test_rows_are_an_equation() -> None:
    """The check of the rows names every part, quarantined ones only where there are any."""
    check = check_rows(Rows(10, 1, 7, 2))
    assert (check.passed, check.status) == (True, "failed")
    assert check.detail == "input 10 = 7 + 2 + 1 scored, rejected, filtered"
    detail = check_rows(Rows(15, 1, 7, 2, 5)).detail
    assert detail == "input 15 = 7 + 2 + 1 + 5 scored, rejected, filtered, quarantined"


@pytest.mark.parametrize(
    ("rejected", "bounds", "passed"),
    [
        (1, {}, True),
        (2, {}, False),
        (0, {"max_ratio": 0}, True),
        (1, {"max_ratio": 0}, False),
        (1000, {"max_ratio": 1}, True),
        (3, {"max_ratio": 1, "max_rows": 3}, True),
        (4, {"max_ratio": 1, "max_rows": 3}, False),
        (2, {"max_rows": 3}, False),
    ],
)
def test_rejects_are_compared_with_both_bounds(
    rejected: int, bounds: dict[str, Any], passed: bool
) -> None:
    """Just as many as are allowed pass; one more fails the run, which nobody can release."""
    given = rows_of(1000 - rejected, rejected)
    check = check_rejects(given, Counter({"infer: NaN": rejected}), Rejects(**bounds))[0]
    assert (check.name, check.passed, check.status) == ("rejects", passed, "failed")
    verb = "was" if rejected == 1 else "were"
    assert f"{rejected:,} of 1,000 rows {verb} rejected" in check.detail
    assert "; most often infer: NaN" in check.detail
    assert ("rejects.max_rows 3" in check.detail) == ("max_rows" in bounds)


@given(COUNTS, COUNTS, st.floats(0, 1), st.none() | st.integers(0, 1000))
def test_a_run_is_stopped_early_just_where_it_would_fail(
    scored: int, rejected: int, ratio: float, most: int | None
) -> None:
    """More rows than are allowed is what fails the check, whatever the bounds are."""
    bounds = Rejects(max_ratio=ratio, max_rows=most)
    allowed = rejects_allowed(bounds, scored + rejected)
    check = check_rejects(rows_of(scored, rejected), Counter(), bounds)[0]
    share = rejected - ratio * (scored + rejected)
    if abs(share) > 1e-6 or (most is not None and rejected > most):
        assert check.passed == (rejected <= allowed)


@pytest.mark.parametrize(("ratio", "rows"), [(0.1, 10), (0.001, 1000), (0.07, 100), (0.29, 100)])
def test_a_ratio_that_gives_whole_rows_allows_them(ratio: float, rows: int) -> None:
    """What floating point makes of 0.29 of 100 rows takes no row away."""
    allowed = rejects_allowed(Rejects(max_ratio=ratio), rows)
    assert allowed == round(ratio * rows)
    given = rows_of(rows - allowed, allowed)
    assert check_rejects(given, Counter(), Rejects(max_ratio=ratio))[0].passed


def test_a_run_without_a_score_fails_unless_it_had_no_row() -> None:
    """However many rejects are allowed, rows without one score are a failure; no rows are none."""
    bounds = Rejects(max_ratio=1)
    all_rejected = check_rejects(rows_of(0, 9), Counter(), bounds)[1]
    assert (all_rejected.name, all_rejected.passed, all_rejected.status) == (
        "scored",
        False,
        "failed",
    )
    assert [check.passed for check in check_rejects(Rows(9, 9, 0, 0), Counter(), bounds)] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("rows", "allow", "passed"),
    [(rows_of(0), False, False), (rows_of(0), True, True), (rows_of(0, 1), False, True)],
)
def test_no_row_to_score_is_held_unless_allowed(rows: Rows, allow: bool, passed: bool) -> None:
    """A rejected row is a row; where there is none, the key that would allow it is named."""
    check = check_not_empty(rows, allow)
    assert (check.passed, check.status) == (passed, "held")
    assert ("input.allow_empty: true" in check.detail) == (not rows.rejected)


def test_bad_shards_are_counted_and_the_first_are_named() -> None:
    """As many as allowed pass, one more fails; without any there is no check."""
    bad = [(f"in/{n}.parquet", "is torn") for n in range(5)]
    assert check_bad_shards([], 0) == []
    assert [check_bad_shards(bad, n)[0].passed for n in (4, 5)] == [False, True]
    (check,) = check_bad_shards(bad, 4)
    assert check.status == "failed"
    assert "5 shards were left out, input.max_bad_shards allows 4" in check.detail
    assert "in/2.parquet: is torn" in check.detail
    assert "in/3.parquet" not in check.detail


@pytest.mark.parametrize(
    ("rows", "bounds", "passed"),
    [
        (50, {}, True),
        (49, {}, False),
        (1_000_000, {}, True),
        (0, {"min_ratio": 0}, True),
        (120, {"max_ratio": 1.2}, True),
        (121, {"max_ratio": 1.2}, False),
    ],
)
def test_volume_is_compared_with_its_bounds(
    rows: int, bounds: dict[str, Any], passed: bool
) -> None:
    """Half of what was published, and as much as max_ratio says, just pass; beyond is held."""
    (check,) = check_volume(
        rows_of(rows - rows // 10, rows // 10), [100], "it", checks_of(rows=bounds)
    )
    assert (check.name, check.passed, check.status) == ("volume", passed, "held")
    assert f"{rows:,} rows are" in check.detail
    assert "of the 100 of it" in check.detail


def test_volume_is_compared_with_the_median() -> None:
    """One strange night among the last ones does not move what is usual."""
    (check,) = check_volume(rows_of(60), [100, 90, 100_000], "the last slices", checks_of())
    assert check.passed
    assert not check_volume(rows_of(60), [130, 140, 1], "the last slices", checks_of())[0].passed


@pytest.mark.parametrize("before", [[], [0], [0, 0, 5]])
def test_without_a_usual_volume_there_is_no_check(before: list[int]) -> None:
    """A first run, and one after empty ones, has nothing to be compared with."""
    assert check_volume(rows_of(5), before, "", checks_of()) == []


@pytest.mark.parametrize(
    ("before", "detail"),
    [
        (COLUMNS, "2 columns as published before"),
        ((*COLUMNS, ("a", "float")), "a float is gone"),
        (COLUMNS[:1], "score float is new"),
        ((COLUMNS[0], ("score", "double")), "score was double, is float"),
        (COLUMNS[::-1], "their order changed"),
        ((("score", "double"), ("b", "int8")), "b int8 is gone; id int64 is new; score was double"),
    ],
)
def test_columns_are_compared_with_those_before(before: tuple[Any, ...], detail: str) -> None:
    """What is gone, new, of another type, or in another place is named, and holds the run."""
    (check,) = check_schema(COLUMNS, [list(column) for column in before])
    assert (check.name, check.passed, check.status) == ("schema", before == COLUMNS, "held")
    assert detail in check.detail


@pytest.mark.parametrize(("now", "before"), [(COLUMNS, None), (COLUMNS, []), ((), COLUMNS)])
def test_without_columns_on_both_sides_there_is_no_check(now: Any, before: Any) -> None:
    """A first run has nothing to compare with, and an empty result no columns."""
    assert check_schema(now, before) == []


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [
        ([0.25, 0.5], True),
        ([0.26, 0.5], False),
        ([0.25, 0.49], False),
        ({"score": [0, 1]}, True),
        ({"score": [0, 0.4]}, False),
        ({"other": [0, 1]}, False),
    ],
)
def test_scores_are_compared_with_their_range(bounds: Any, passed: bool) -> None:
    """The smallest and largest of all units' scores may touch the bounds and not pass them."""
    records = [ranges_of(score=(0.25, 0.3)), ranges_of(score=(0.3, 0.5))]
    (check,) = check_score_range(records, checks_of(score_range=bounds))
    assert (check.name, check.passed, check.status) == ("score_range", passed, "held")
    assert ("other" if "other" in bounds else "score") in check.detail


def test_the_range_of_each_column_is_reported() -> None:
    """One pair holds for every score; a mapping for those that it names, and no other."""
    records = [ranges_of(a=(0, 1), b=(5, 6))]
    (check,) = check_score_range(records, checks_of(score_range=[0, 1]))
    assert check.detail == "b goes from 5 to 6, allowed is 0 to 1"
    (check,) = check_score_range(records, checks_of(score_range={"a": [0, 1]}))
    assert (check.passed, check.detail) == (True, "a 0 to 1, b 5 to 6")
    assert check_score_range(records, checks_of()) == []


def test_a_run_without_scores_is_in_any_range() -> None:
    """Where no unit has a score there is nothing outside of the bounds, named ones too."""
    for bounds in ([0, 1], {"score": [0, 1]}):
        assert check_score_range([ranges_of(0)], checks_of(score_range=bounds))[0].passed


@pytest.mark.parametrize(
    ("bounds", "detail"),
    [
        ([0, 1], "there is no score column of numbers"),
        ({"score": [0, 1]}, "there is no score column 'score' of numbers"),
    ],
)
def test_scored_rows_without_a_number_are_in_no_range(bounds: Any, detail: str) -> None:
    """Bounds that fit no score column do not pass what was scored."""
    records = [ranges_of(0), ranges_of(5)]
    (check,) = check_score_range(records, checks_of(score_range=bounds))
    assert (check.passed, check.detail) == (False, detail)


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(-9, 9), min_size=1), min_size=1), st.randoms())
def test_merged_ranges_are_those_of_all_scores(units: list[list[float]], chance: Any) -> None:
    """Whatever unit a score is in, and in whatever order they come, the ends are the same."""
    records = [ranges_of(s=(min(scores), max(scores))) for scores in units]
    everything = [score for scores in units for score in scores]
    chance.shuffle(records)
    assert merge_ranges(records) == {"s": (min(everything), max(everything))}


@pytest.mark.parametrize(
    ("gap", "passed"),
    [(0.0, True), (0.1, True), (0.11, False), (float("inf"), False), (float("nan"), False)],
)
def test_golden_rows_differ_by_the_tolerance_at_most(gap: float, passed: bool) -> None:
    """The worst process and output decide; a score that is no number never passes."""
    gaps = [{"logit": 0.0, "total": 0.05}, {"logit": gap, "total": 0.0}]
    for order in (gaps, gaps[::-1]):
        (check,) = check_golden(order, 0.1, 7)
        assert (check.name, check.passed, check.status) == ("golden_rows", passed, "held")
        assert "7 golden rows differ in logit by" in check.detail
        assert "total by 0.05" in check.detail


def test_without_golden_results_there_is_no_check() -> None:
    """A model without golden rows is not compared with any."""
    assert check_golden([], 0.1, 0) == []


def test_rows_that_share_a_key_are_counted_with_examples() -> None:
    """The check's text names the columns of the key, the count and examples."""
    assert check_unique(("a", "b"), 0, "") == Check(
        "unique", True, "no two rows have the same key (a, b)", "held"
    )
    check = check_unique(("a", "b"), 1_234, "row 1 of x; row 2 of y")
    assert (check.passed, check.status) == (False, "held")
    assert check.detail == ("1,234 rows have the key (a, b) of another row: row 1 of x; row 2 of y")


@pytest.mark.parametrize(
    ("failed", "scored", "expected"),
    [
        ([], 1, "published"),
        ([], 0, "empty"),
        (["held"], 1, "held"),
        (["failed"], 1, "failed"),
        (["held", "failed"], 0, "failed"),
    ],
)
def test_the_worst_check_decides_the_outcome(failed: list[str], scored: int, expected: str) -> None:
    """What nobody may release outweighs what a person may; what passed counts for nothing."""
    checks = [Check("good", True, "", "failed"), *(Check("bad", False, "", s) for s in failed)]
    assert outcome(rows_of(scored), checks) == expected
    assert outcome(rows_of(scored), checks[::-1]) == expected
