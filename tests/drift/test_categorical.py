"""Test the comparison of categories by value, by fold and by sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchscore.columnar.hashing import hash_bytes
from batchscore.drift.categorical import (
    AlignedCategories,
    align_categories,
    category_changes,
    pool_rare,
    unseen,
)
from batchscore.drift.categories import FOLDS, Categories
from batchscore.drift.divergences import l_infinity, psi

SEEDS = st.integers(0, 2**32 - 1)
TEXTS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)


def categories(texts: Iterable[str]) -> Categories:
    """Returns the accumulator of `texts`."""
    accumulator = Categories("string")
    accumulator.update(pa.array(texts, pa.string()))
    return accumulator


def named(numbers_n: NDArray[np.int64]) -> list[str]:
    """Returns a text for each number."""
    return [f"value {number}" for number in numbers_n.tolist()]


def hashes_of(texts: Iterable[str]) -> dict[str, int]:
    """Returns the hash under which each text is counted."""
    distinct = list(dict.fromkeys(texts))
    hashes_d = hash_bytes(pa.array([text.encode() for text in distinct], pa.large_binary()))
    return dict(zip(distinct, hashes_d.tolist(), strict=True))


def by_value(p_v: NDArray[np.int64], q_v: NDArray[np.int64]) -> AlignedCategories:
    """Returns exact counts of values."""
    hash_v = np.arange(p_v.size, dtype=np.uint64)
    return AlignedCategories(hash_v, p_v, q_v, hash_v, p_v, q_v, 1.0, True)


@settings(deadline=None)
@given(reference=TEXTS, current=TEXTS)
def test_exact_sides_are_counted_by_value(reference: list[str], current: list[str]) -> None:
    """Every value of either side has its counts of both, by ascending hash."""
    aligned = align_categories(categories(reference), categories(current))
    assert aligned.exact
    hashes = hashes_of([*reference, *current])
    before, after = Counter(reference), Counter(current)
    expected = {hash_: (before[text], after[text]) for text, hash_ in hashes.items()}
    counts = zip(aligned.p_v.tolist(), aligned.q_v.tolist(), strict=True)
    assert list(zip(aligned.hash_v.tolist(), counts, strict=True)) == sorted(expected.items())
    assert (aligned.cell_c is aligned.hash_v, aligned.p_c is aligned.p_v) == (True, True)


@pytest.mark.parametrize("current_distinct", [300, 9_000])
def test_a_folded_side_is_compared_by_fold_and_by_sample(current_distinct: int) -> None:
    """Above 4096 values cells are folds, and values are those that both would have sampled."""
    chance = np.random.default_rng(1)
    reference = named(chance.integers(0, 6_000, 40_000))
    current = named(chance.integers(0, current_distinct, 30_000))
    both = categories(reference), categories(current)
    aligned = align_categories(*both)
    assert not aligned.exact
    hashes = hashes_of([*reference, *current])
    texts = {hash_: text for text, hash_ in hashes.items()}
    limit = min(side.sample()[2] for side in both)
    assert aligned.sampled == limit / 2**64
    assert aligned.hash_v.tolist() == sorted(hash_ for hash_ in texts if hash_ < limit)
    assert aligned.hash_v.size > 500
    sides = (aligned.p_c, aligned.p_v, reference), (aligned.q_c, aligned.q_v, current)
    for counts_f, counts_v, source in sides:
        folds, values = Counter(hashes[text] % FOLDS for text in source), Counter(source)
        assert counts_f.tolist() == [folds[fold] for fold in range(FOLDS)]
        assert counts_v.tolist() == [values[texts[hash_]] for hash_ in aligned.hash_v.tolist()]


def test_rare_values_are_pooled_on_both_sides() -> None:
    """Values with a pooled expected count below 5 on the smaller side are one bin, the last."""
    p_v, q_v = np.array([900, 50, 50, 0, 0]), np.array([80, 5, 4, 6, 5])
    # The smaller side has 100 of 1100 rows: 55 rows are expected to give 5 of them.
    p_k, q_k = pool_rare(p_v, q_v)
    assert p_k.tolist() == [900, 50, 50]
    assert q_k.tolist() == [80, 5, 15]


def test_nothing_is_pooled_where_nothing_is_rare() -> None:
    """The worked examples keep their values, an unseen one of exactly 5 expected among them."""
    p_v, q_v = np.array([50, 50, 0]), np.array([50, 40, 10])
    pooled = pool_rare(p_v, q_v)
    assert [side_k.tolist() for side_k in pooled] == [[50, 50, 0], [50, 40, 10]]
    assert psi(*pooled) == pytest.approx(0.321694, abs=5e-7)


@settings(deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1).filter(
        lambda pairs: all(map(any, zip(*pairs, strict=True)))
    )
)
@example(counts=[(6, 6), (94, 64)])
def test_pooling_keeps_the_rows_and_leaves_no_other_rare_value(
    counts: list[tuple[int, int]],
) -> None:
    """Both sides keep their totals; of all bins only the last may have fewer than 5 expected."""
    p_v, q_v = np.array(counts, np.int64).T
    p_k, q_k = pool_rare(p_v, q_v)
    n, m = int(p_v.sum()), int(q_v.sum())
    assert (int(p_k.sum()), int(q_k.sum())) == (n, m)
    kept = [(int(p) + int(q)) * min(n, m) >= 5 * (n + m) for p, q in counts]
    pooled = not all(kept)
    assert p_k.size == sum(kept) + pooled
    assert p_k[: sum(kept)].tolist() == [
        p for (p, _), keep in zip(counts, kept, strict=True) if keep
    ]


def test_unseen_share_counts_rows_of_unknown_values() -> None:
    """Share, values seen once and twice, and the variance follow their definitions."""
    found = unseen(by_value(np.array([6, 1, 1, 2, 0, 0]), np.array([5, 0, 1, 0, 3, 1])))
    assert (found.share, found.f1, found.f2, found.expected) == (0.4, 2, 1, 0.2)
    assert found.variance == pytest.approx(0.4 * 0.6 / 10 + (2 + 2 + 1) / 100)


def zipf_shares(distinct: int) -> NDArray[np.float64]:
    """Returns shares that fall with the rank."""
    weights_v = 1 / np.arange(1, distinct + 1)
    shares_v: NDArray[np.float64] = weights_v / weights_v.sum()
    return shares_v


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [1.0, 0.1])
@pytest.mark.parametrize("sizes", [(5_000, 5_000), (500, 20_000), (20_000, 500)])
def test_samples_of_one_distribution_have_no_more_unseen_rows_than_expected(
    sampled: float, sizes: tuple[int, int]
) -> None:
    """Of 400 pairs of equal Zipf columns, few exceed what noise reaches once in a thousand."""
    chance = np.random.default_rng(2)
    shares_v = zipf_shares(20_000)
    alarms, excess = 0, []
    for _ in range(400):
        p_v, q_v = (chance.multinomial(size, shares_v) for size in sizes)
        picked_v = chance.random(p_v.size) < sampled
        hash_v = np.flatnonzero(picked_v).astype(np.uint64)
        found = unseen(
            AlignedCategories(
                hash_v, p_v, q_v, hash_v, p_v[picked_v], q_v[picked_v], sampled, sampled == 1
            )
        )
        excess.append(found.share - found.expected)
        alarms += excess[-1] > 3.09 * np.sqrt(found.variance)
    assert alarms <= 4
    assert abs(np.mean(excess)) < 4 * np.std(excess) / 20 + 1 / sizes[0]


def test_unseen_rows_of_folded_sides_are_estimated() -> None:
    """With folds on both sides a tenth of new rows is found within its own margin."""
    chance = np.random.default_rng(4)
    known, new = chance.integers(0, 5_000, 90_000), chance.integers(10_000, 15_000, 10_000)
    reference = categories(named(chance.integers(0, 5_000, 90_000)))
    found = unseen(align_categories(reference, categories(named(np.r_[known, new]))))
    assert abs(found.share - 0.1) < 3 * found.variance**0.5 < 0.05


def test_changes_have_counts_and_shares_of_each_category() -> None:
    """A category that goes from .30 to .35 of the rows is the largest change, and is named."""
    before, after = ["a"] * 300 + ["b"] * 700, ["a"] * 700 + ["b"] * 1280 + ["new"] * 20
    both = categories(before), categories(after)
    changes = category_changes(align_categories(*both))
    cell = int(np.abs(changes.q_share_c - changes.p_share_c).argmax())
    labels = {both[1].label(int(hash_)): c for c, hash_ in enumerate(changes.cell_c)}
    assert (changes.n, changes.m, changes.folded, set(labels)) == (
        1000,
        2000,
        False,
        {*"ab", "new"},
    )
    assert changes.q_share_c[labels["a"]] == 0.35
    assert (changes.p_c[labels["new"]], changes.q_c[labels["new"]]) == (0, 20)
    assert changes.q_share_c[cell] - changes.p_share_c[cell] == pytest.approx(-0.06)


def test_a_frequent_value_that_changes_shows_in_its_fold() -> None:
    """Among more than 4096 values a category that goes from .30 to .40 is seen, sampled or not."""
    chance = np.random.default_rng(5)
    sides = [
        categories(["often"] * often + named(chance.integers(0, 8_000, 100_000 - often)))
        for often in (30_000, 40_000)
    ]
    aligned = align_categories(*sides)
    changes = category_changes(aligned)
    cell = int(np.abs(changes.q_share_c - changes.p_share_c).argmax())
    assert changes.folded
    assert changes.cell_c[cell] == hashes_of(["often"])["often"] % FOLDS
    assert l_infinity(aligned.p_c, aligned.q_c) == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_side_is_refused(empty: int) -> None:
    """Without any value on a side the comparison is an error; the alignment itself is not."""
    sides = [categories(["a"]), categories(["b"])]
    sides[empty] = categories([])
    aligned = align_categories(*sides)
    assert aligned.hash_v.size == 1
    for function in (unseen, category_changes):
        with pytest.raises(ValueError, match="at least one"):
            function(aligned)
    with pytest.raises(ValueError, match="at least one"):
        pool_rare(aligned.p_c, aligned.q_c)
