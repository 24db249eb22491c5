"""Test what is called removed, rewritten, late or a replacement, and whether it holds a run."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.job import OnChange
from batchscore.plan.changes import Changes, changed_facts, find_changes, judge_changes
from batchscore.units.unit import Piece, Shard

COST = "a run would score 7 rows"
PATHS = st.sampled_from([f"{folder}/{name}.parquet" for folder in "pq" for name in "abc"])
SHARDS = st.builds(Shard, PATHS, st.integers(1, 2), st.sampled_from("mn"), st.integers(1, 9))
INPUT = st.lists(SHARDS, unique_by=lambda shard: shard.path, max_size=6)


def pieces_of(shards: Iterable[Shard]) -> list[Piece]:
    """All rows of shards, each as one row group."""
    return [Piece(shard, (0,), (0,), (shard.rows,)) for shard in shards]


def changes_between(before: Iterable[Shard], now: Iterable[Shard]) -> Changes:
    """What changed where all rows of both inputs are to be scored."""
    shards = [*now]
    return find_changes((), pieces_of(shards), pieces_of(before), shards)


def shard(path: str, mark: str = "m", rows: int = 5) -> Shard:
    return Shard(path, 1, mark, rows)


@given(INPUT)
def test_the_same_input_has_no_change(shards: list[Shard]) -> None:
    """Where nothing differs there is no change and no check, in whatever order shards come."""
    assert changes_between(shards, shards[::-1]) == Changes()
    assert judge_changes(Changes(), OnChange(), COST) == []


@pytest.mark.slow
@given(INPUT, INPUT)
def test_every_difference_is_of_one_kind(before: list[Shard], now: list[Shard]) -> None:
    """What left is removed or rewritten, what came late or a replacement, and nothing is both."""
    found = changes_between(before, now)
    old, new = ({s.path: (s.size, s.mark) for s in shards} for shards in (before, now))
    gone, came = set(old) - set(new), set(new) - set(old)
    edited = {path for path in set(old) & set(new) if old[path] != new[path]}
    assert not set(found.removed) & set(found.rewritten)
    assert not set(found.late) & set(found.replacements)
    assert {*found.removed, *found.rewritten} == gone | edited
    assert {*found.late, *found.replacements} == came | edited
    assert edited <= set(found.rewritten) & set(found.replacements)


@given(INPUT, INPUT)
def test_folders_decide_what_takes_whose_place(before: list[Shard], now: list[Shard]) -> None:
    """A folder that shards left is compacted just where others came into it."""
    found = changes_between(before, now)
    folders = {path: posixpath.dirname(path) for path in (*found.removed, *found.late)}
    lost = {folders[path] for path in found.removed}
    assert not lost & {folders[path] for path in found.late}
    swapped = {posixpath.dirname(path) for path in found.rewritten}
    assert swapped == {posixpath.dirname(path) for path in found.replacements}


@pytest.mark.slow
@given(INPUT, INPUT)
def test_rows_are_those_of_what_is_lost_and_of_what_replaces_it(
    before: list[Shard], now: list[Shard]
) -> None:
    """Late shards and untouched ones count on neither side."""
    found = changes_between(before, now)
    lost = {*found.removed, *found.rewritten}
    assert found.rows_before == sum(s.rows for s in before if s.path in lost)
    assert found.rows_after == sum(s.rows for s in now if s.path in found.replacements)


@given(INPUT, st.randoms())
def test_shards_whose_rows_are_filtered_are_not_gone(shards: list[Shard], chance: Any) -> None:
    """A filter that leaves a shard's rows out changes the job, and removes nothing of the input."""
    kept = [shard for shard in shards if chance.random() < 0.5]
    found = find_changes(("input.filters",), pieces_of(kept), pieces_of(shards), shards)
    assert found == Changes(score=("input.filters",))


def test_a_filtered_shard_that_was_written_again_is_rewritten() -> None:
    """Its published rows are not what it holds any more, though none of them is scored."""
    found = find_changes((), [], pieces_of([shard("p/a")]), [shard("p/a", "n")])
    assert (found.rewritten, found.rows_before, found.rows_after) == (("p/a",), 5, 0)


def test_footers_of_one_shard_are_one_shard() -> None:
    """However a shard was cut into units, its rows are counted together and its path once."""
    whole = Shard("p/a", 1, "m", 9)
    parts = [Piece(whole, (0,), (0,), (5,)), Piece(whole, (1,), (5,), (4,))]
    found = find_changes((), pieces_of([shard("q/b")]), parts, [shard("q/b")])
    assert (found.removed, found.rows_before, found.late) == (("p/a",), 9, ("q/b",))


@pytest.mark.parametrize(
    ("facts", "before", "expected"),
    [
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, ()),
        ({"b": "2", "a": "1"}, {"b": "3", "a": "2"}, ("a", "b")),
        ({"a": "1"}, {}, ("a",)),
        ({}, {"a": "1"}, ("a",)),
        ({"version of torch": "2"}, {"version of torch": "1"}, ("version of torch",)),
        ({"version of torch": "2"}, {}, ("version of torch",)),
        ({}, {"version of pandas": "1"}, ()),
    ],
)
def test_facts_that_differ_are_named(
    facts: dict[str, str], before: dict[str, str], expected: tuple[str, ...]
) -> None:
    """A fact that is new, gone or other is named, but no package that is not needed any more."""
    assert changed_facts(facts, before) == expected


CHANGES = Changes(
    score=("explain", "model"),
    removed=("p/r",),
    rewritten=("p/w",),
    late=("q/l",),
    replacements=("p/x",),
    reasons=("model 1.0 to 1.1",),
)


def test_by_default_what_is_lost_holds() -> None:
    """A changed model is scored again and new shards are added; lost or altered ones hold."""
    checks = judge_changes(CHANGES, OnChange(), COST)
    assert {check.name: check.passed for check in checks} == {
        "on_change.model": True,
        "on_change.explain": False,
        "on_change.removed_shards": False,
        "on_change.rewritten_shards": False,
        "on_change.late_shards": True,
    }
    assert {check.status for check in checks} == {"held"}


@pytest.mark.parametrize(
    ("kind", "go_on"),
    [
        ("model", "rescore"),
        ("explain", "rescore"),
        ("removed_shards", "remove"),
        ("rewritten_shards", "rescore"),
        ("late_shards", "add"),
    ],
)
def test_each_kind_obeys_its_own_key(kind: str, go_on: str) -> None:
    """`hold` holds that kind alone and names the override that goes on; the action lets it pass."""
    actions = {
        "model": "rescore",
        "explain": "rescore",
        "removed_shards": "remove",
        "rewritten_shards": "rescore",
        "late_shards": "add",
    }
    for action, passed in (("hold", False), (go_on, True)):
        checks = judge_changes(CHANGES, OnChange.model_validate({**actions, kind: action}), COST)
        held = [check.name for check in checks if not check.passed]
        assert held == ([] if passed else [f"on_change.{kind}"])
        (check,) = (check for check in checks if check.name == f"on_change.{kind}")
        assert COST in check.detail
        assert (f"--set on_change.{kind}={go_on}" in check.detail) is not passed


def test_only_kinds_that_occur_are_checked() -> None:
    """A late shard alone makes one check."""
    (check,) = judge_changes(Changes(late=("q/l",)), OnChange(), COST)
    assert check.detail == f"1 shard (q/l) is new: {COST}"


def test_the_first_of_many_are_named() -> None:
    """Three shards and five facts are named, however many there are, with the count of all."""
    paths = tuple(f"in/{n:04}" for n in range(1_234))
    (check,) = judge_changes(Changes(late=paths), OnChange(), COST)
    assert check.detail.startswith("1,234 shards (in/0000, in/0001, in/0002, …) are new")
    facts = tuple("abcdefg")
    (check,) = judge_changes(Changes(score=facts, reasons=facts), OnChange(), COST)
    assert check.detail.startswith("a; b; c; d; e; …, so every row")
    (check,) = judge_changes(Changes(score=facts[:5], reasons=facts[:5]), OnChange(), COST)
    assert check.detail.startswith("a; b; c; d; e, so every row")


def test_a_rewriting_tells_rows_before_and_after() -> None:
    """Who has to decide sees how many rows are published, and how many replace them."""
    before = [shard("p/a", rows=1_000), shard("p/b", rows=500)]
    found = changes_between(before, [shard("p/all", rows=1_500)])
    (check,) = judge_changes(found, OnChange(), COST)
    assert check.name == "on_change.rewritten_shards"
    assert "2 shards (p/a, p/b) are rewritten or replaced by 1 other in the same" in check.detail
    assert "1,500 rows are published" in check.detail
    assert "1,500 would take their place" in check.detail
