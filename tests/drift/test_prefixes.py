"""Test that leading bits lead to the right bucket, or to none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchscore.drift.histogram import Histogram
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED, UNSIGNED, KeySpace, Layout
from batchscore.drift.prefixes import AT_ONCE, PrefixTable, Room, prefix_table

BITS = st.integers(0, 2**32 - 1)


def look_up(table: PrefixTable, values_n: NDArray[Any]) -> NDArray[np.intp]:
    """Return what a table finds of any number of values."""
    parts = [values_n[start : start + AT_ONCE] for start in range(0, values_n.size, AT_ONCE)]
    room = Room()
    return np.concatenate([table.find(part, room).copy() for part in parts])


def near(values_n: NDArray[Any], seed: int) -> NDArray[Any]:
    """Return finite values whose bits lie around those of given ones, and some of any bits."""
    words_n = values_n.view(f"u{values_n.itemsize}")
    one = words_n.dtype.type(1)
    any_n = np.frombuffer(np.random.default_rng(seed).bytes(8000), words_n.dtype)
    zeros_n = np.array([0.0, -0.0], values_n.dtype).view(words_n.dtype)
    words_n = np.concatenate([words_n, words_n - one, words_n + one, any_n, zeros_n, zeros_n + one])
    found_n: NDArray[Any] = words_n.view(values_n.dtype)
    finite_n: NDArray[Any] = found_n[np.isfinite(found_n)]
    return finite_n


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@settings(deadline=None, max_examples=40)
@given(seed=BITS)
def test_what_is_found_is_the_bucket(dtype: str, seed: int) -> None:
    """Each value has the entry of the bucket that holds its key, or none."""
    chance = np.random.default_rng(seed)
    scale = 2.0 ** chance.choice([-1060, -140, -126, 0, 30])
    values_n = (chance.normal(chance.choice([0, 3]), 1, 20_000) * scale).astype(dtype)
    histogram = Histogram(FLOAT)
    histogram.update(FLOAT.encode(values_n.astype(np.float64)))
    buckets = histogram.buckets()
    ends = buckets.first_keys_b, buckets.last_keys_b
    table = prefix_table(FLOAT.layouts[dtype], *ends, buckets.counts_b)
    if table is None:
        return
    seen_n = near(values_n, seed)
    found_n = look_up(table, seen_n)
    keys_m = FLOAT.encode(seen_n[found_n > 0].astype(np.float64))
    rows_m = found_n[found_n > 0] - 1
    assert (ends[0][rows_m] <= keys_m).all()
    assert (keys_m <= ends[1][rows_m]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shift", [0, 5, 100])
def test_most_of_a_spread_column_is_found(dtype: str, shift: float) -> None:
    """Of a normal column with many distinct values over nine tenths are found at once."""
    values_n = np.random.default_rng(1).normal(shift, 1, 200_000).astype(dtype)
    histogram = Histogram(FLOAT)
    histogram.update_values(values_n)
    buckets = histogram.buckets()
    ends = buckets.first_keys_b, buckets.last_keys_b
    table = prefix_table(FLOAT.layouts[dtype], *ends, buckets.counts_b)
    assert table is not None
    assert np.mean(look_up(table, values_n) > 0) > 0.9


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@settings(deadline=None, max_examples=20)
@given(seed=BITS)
def test_scores_are_found_in_their_buckets(dtype: str, seed: int) -> None:
    """Each score has the entry of the bucket that holds its key, or none."""
    chance = np.random.default_rng(seed)
    spread = chance.choice([0.01, 1, 20])
    scores_n = (1 / (1 + np.exp(-chance.normal(0, spread, 20_000)))).astype(dtype)
    histogram = Histogram(PROBABILITY)
    histogram.update(PROBABILITY.encode(scores_n.astype(np.float64)))
    buckets = histogram.buckets()
    ends = buckets.first_keys_b, buckets.last_keys_b
    table = prefix_table(PROBABILITY.layouts[dtype], *ends, buckets.counts_b)
    if table is None:
        return
    seen_n = near(scores_n, seed)
    seen_n = seen_n[(seen_n >= 0) & (seen_n <= 1)]
    found_n = look_up(table, seen_n)
    keys_m = PROBABILITY.encode(seen_n[found_n > 0].astype(np.float64))
    rows_m = found_n[found_n > 0] - 1
    assert (ends[0][rows_m] <= keys_m).all()
    assert (keys_m <= ends[1][rows_m]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_probabilities_are_found_near_both_ends(dtype: str) -> None:
    """Scores near 0 and near 1 are found alike."""
    scores_n = np.random.default_rng(2).beta(0.5, 0.5, 200_000).astype(dtype)
    histogram = Histogram(PROBABILITY)
    histogram.update_values(scores_n)
    buckets = histogram.buckets()
    ends = buckets.first_keys_b, buckets.last_keys_b
    table = prefix_table(PROBABILITY.layouts[dtype], *ends, buckets.counts_b)
    assert table is not None
    for part in (scores_n < 0.5, scores_n > 0.5):
        assert np.mean(look_up(table, scores_n[part]) > 0) > 0.9


def test_buckets_between_two_float32_are_not_found() -> None:
    """A float32 is found in a bucket that is narrower than its rounding only if it lies inside."""
    chance = np.random.default_rng(3)
    for spread in (3e-8, 1e-7, 1e-6):
        histogram = Histogram(FLOAT)
        values_n = chance.choice([-3, 3], 40_000) + chance.normal(0, spread, 40_000)
        histogram.update(FLOAT.encode(values_n))
        buckets = histogram.buckets()
        lows_b, highs_b = FLOAT.layouts["f4"].word_range(buckets.first_keys_b, buckets.last_keys_b)
        for words_b in (lows_b, highs_b):
            keys_b = FLOAT.encode(words_b.view(np.float32).astype(np.float64))
            inside_b = (buckets.first_keys_b <= keys_b) & (keys_b <= buckets.last_keys_b)
            assert inside_b[lows_b <= highs_b].all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("value", [0.0, 5e-324, 1.5, -1.5, 3.4028234663852886e38])
def test_what_lies_before_and_behind_is_not_found(dtype: str, value: float) -> None:
    """A table of one value leads no other to its bucket, be its word smaller or larger."""
    values_n = np.array([value]).astype(dtype)
    keys_n = FLOAT.encode(np.array([value]))
    table = prefix_table(FLOAT.layouts[dtype], keys_n, keys_n, np.array([10]))
    if table is None:
        assert float(values_n[0]) != value
        return
    seen_n = near(np.array([value, -value], dtype), 1)
    assert look_up(table, values_n).tolist() == [1]
    assert not look_up(table, seen_n[seen_n != value]).any()


@pytest.mark.parametrize("space", [SIGNED, UNSIGNED], ids=lambda space: space.name)
@pytest.mark.parametrize("wide", [1, 256, 2**40])
@pytest.mark.parametrize("above", [2**63, 2**64, 0])
def test_a_bucket_may_end_with_the_last_word(space: KeySpace, above: int, wide: int) -> None:
    """Buckets below the largest key, or at either side of the middle, are found, and no more."""
    top = above - 1 if above else 2**63 + wide - 1
    last_keys_b = np.array([top], np.uint64)
    first_keys_b = last_keys_b - np.uint64(wide - 1)
    layout = space.layouts["i8" if space is SIGNED else "u8"]
    table = prefix_table(layout, first_keys_b, last_keys_b, np.array([10]))
    assert table is not None
    ends = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, top, top - wide + 1, max(0, top - wide)]
    keys_n = np.unique(np.array(ends, np.uint64))
    inside_n = (first_keys_b <= keys_n) & (keys_n <= last_keys_b)
    found_n = look_up(table, space.decode(keys_n))
    assert (found_n == inside_n).all()


@settings(deadline=None, max_examples=60)
@given(seed=BITS)
def test_any_ranges_are_kept(seed: int) -> None:
    """Whatever words belong into the buckets, aligned or not, or none, no other is found there."""
    chance = np.random.default_rng(seed)
    first, wide = chance.choice([0, 5, 1000, 2**32 - 70_000]), chance.choice([1, 7, 64])
    bounds_e = np.sort(first + chance.choice(1000 * wide, 40, replace=False)).astype(np.uint64)
    lows_b, highs_b = bounds_e[::2], bounds_e[1::2]
    highs_b = highs_b - (chance.random(highs_b.size) < 0.2) * (highs_b - lows_b + (lows_b > 0))
    words = Layout(
        int(chance.integers(8)),
        lambda values_n: values_n,
        lambda lows_b, highs_b: (lows_b.astype(np.uint32), highs_b.astype(np.uint32)),
    )
    table = prefix_table(words, lows_b, highs_b, chance.integers(1, 100, lows_b.size))
    if table is None:
        return
    seen_n = np.concatenate([bounds_e - 1, bounds_e, bounds_e + 1]).astype(np.uint32)
    found_n = look_up(table, seen_n)
    rows_m, seen_m = found_n[found_n > 0] - 1, seen_n[found_n > 0]
    assert ((lows_b[rows_m] <= seen_m) & (seen_m <= highs_b[rows_m])).all()


def test_few_distinct_values_have_no_table() -> None:
    """Where every value is a bucket of its own, leading bits do not tell it."""
    histogram = Histogram(FLOAT)
    histogram.update(FLOAT.encode(np.arange(1.0, 300.0)))
    buckets = histogram.buckets()
    ends = buckets.first_keys_b, buckets.last_keys_b
    assert prefix_table(FLOAT.layouts["f4"], *ends, buckets.counts_b) is None
