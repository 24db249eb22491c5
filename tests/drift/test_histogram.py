"""Test the histogram against its definition, its exactness and its accuracy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchscore.drift.histogram import CAP, Buckets, Histogram
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED, UNSIGNED, Keys, KeySpace

SEEDS = st.integers(0, 2**32 - 1)
SPACES = [FLOAT, PROBABILITY, SIGNED, UNSIGNED]
ODD_FLOATS = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38]


def sample(space: KeySpace, seed: int) -> Keys:
    """Return keys of a random mixture: few or many distinct values, narrow or wide, extremes."""
    chance = np.random.default_rng(seed)
    pieces = []
    for _ in range(chance.integers(1, 4)):
        size = int(chance.choice([1, 50, 3000, 30_000]))
        scale = 10.0 ** chance.uniform(-3, 17)
        values_n = chance.normal(chance.choice([0, 1, 100]), 1, size) * scale
        if chance.random() < 0.4:
            values_n = np.exp(chance.uniform(-60, 60, size)) * chance.choice([-1, 1], size)
        if space is PROBABILITY:
            values_n = 1 / (1 + np.exp(-np.clip(values_n, -700, 700)))
        elif space is not FLOAT:
            low, high = (0, 2**64 - 2048) if space is UNSIGNED else (-(2**63), 2**63 - 1024)
            values_n = np.clip(values_n, float(low), float(high))
        pieces.append(values_n.astype(space.dtype))
    if space is PROBABILITY:
        pieces.append(np.array([0.0, -0.0, 5e-324, 0.5, 1 - 2.0**-53, 1.0]))
    elif space is FLOAT:
        pieces.append(np.array([0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308]))
    else:
        bounds = np.iinfo(space.dtype)
        pieces.append(np.array([bounds.min, 0, 1, bounds.max], space.dtype))
    return chance.permutation(space.encode(np.concatenate(pieces)))


def by_definition(space: KeySpace, keys_n: Keys) -> tuple[list[int], list[int], list[int]]:
    """Return shifts, prefixes and counts straight from the definition, over all keys at once."""
    octaves = {}
    distinct_n, counts_n = np.unique(keys_n, return_counts=True)
    octaves_n = space.octave(distinct_n)
    for octave in dict.fromkeys(octaves_n.tolist()):
        octaves[octave] = octaves_n == octave
    sizes = [int(rows.sum()) for rows in octaves.values()]
    budget = max(b for b in (2**j for j in range(13)) if sum(min(b, d) for d in sizes) <= CAP)
    shifts: list[int] = []
    prefixes: list[int] = []
    counts: list[int] = []
    for rows in octaves.values():
        shift = 0
        while np.unique(distinct_n[rows] >> np.uint64(shift)).size > budget:
            shift += 1
        found_b, where_n = np.unique(distinct_n[rows] >> np.uint64(shift), return_inverse=True)
        shifts += [shift] * found_b.size
        prefixes += found_b.tolist()
        counts += np.bincount(where_n, counts_n[rows]).astype(int).tolist()
    return shifts, prefixes, counts


def as_lists(buckets: Buckets) -> tuple[list[int], list[int], list[int]]:
    """Return buckets in a form that compares."""
    return buckets.shifts_b.tolist(), buckets.prefixes_b.tolist(), buckets.counts_b.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_any_way_of_counting_gives_the_definition(space: KeySpace, seed: int) -> None:
    """Split, counted and merged in any way, the buckets are those of the definition."""
    keys_n = sample(space, seed)
    chance = np.random.default_rng(seed)
    cuts = np.sort(chance.integers(0, keys_n.size + 1, chance.integers(0, 12)))
    parts = [Histogram(space)]
    for part_n in np.split(keys_n, cuts):
        if chance.random() < 0.5:
            parts.append(Histogram(space))
        parts[-1].update(part_n)
    while len(parts) > 1:
        merged = parts.pop(int(chance.integers(1, len(parts))))
        parts[int(chance.integers(len(parts)))].merge(merged)
    assert as_lists(parts[0].buckets()) == by_definition(space, keys_n)
    assert parts[0].n == keys_n.size
    assert parts[0].key_range == (int(keys_n.min()), int(keys_n.max()))


def floats(dtype: str, seed: int) -> NDArray[Any]:
    """Return finite values of a random mixture, as of the dtype."""
    chance = np.random.default_rng(seed)
    size = int(chance.choice([1, 300, 20_000, 60_000]))
    zero_n, normal_n = np.zeros(size), chance.normal(size=size)
    makers: dict[str, Callable[[], NDArray[Any]]] = {
        "normal": lambda: normal_n,
        "peak": lambda: chance.choice([1e9, 100, -7]) + normal_n,
        "mixture": lambda: np.where(chance.random(size) < 0.9, 1e9 + normal_n, np.exp(normal_n)),
        "wide": lambda: np.exp(chance.uniform(-103, 88, size)) * chance.choice([-1, 1], size),
        "zeros": lambda: np.where(chance.random(size) < 0.8, zero_n, np.exp(normal_n)),
        "minus": lambda: -np.maximum(normal_n, 0),
        "integers": lambda: chance.integers(-1000, 1000, size) + zero_n,
        "ties": lambda: chance.choice(chance.normal(size=chance.choice([20, 5000])), size),
        "subnormal": lambda: chance.integers(-(2**23), 2**23, size) * 2.0**-149,
        "tiny": lambda: chance.integers(-(2**50), 2**50, size) * 5e-324,
    }
    names = chance.choice(list(makers), chance.integers(1, 4))
    values_n = np.concatenate([*(makers[name]() for name in names), ODD_FLOATS])
    return chance.permutation(values_n).astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [["f4"], ["f8"], ["f4", "f8"]], ids="-".join)
@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_values_are_counted_like_their_keys(dtypes: list[str], seed: int) -> None:
    """Values give bitwise the buckets of their keys, in any split, order and merge tree."""
    chance = np.random.default_rng(seed)
    values_n = [floats(dtype, seed) for dtype in dtypes]
    parts = [
        part_n
        for each_n in values_n
        for part_n in np.split(each_n, np.sort(chance.integers(0, each_n.size + 1, 6)))
    ]
    nodes = [Histogram(FLOAT) for _ in range(chance.integers(1, 4))]
    for i in chance.permutation(len(parts)):
        known = parts[i].size > 0 and chance.random() < 0.5
        ends = (parts[i].min(), parts[i].max()) if known else None
        nodes[int(chance.integers(len(nodes)))].update_values(parts[i], ends)
    while len(nodes) > 1:
        nodes[-2].merge(nodes.pop())
    nodes[0].update_values(values_n[0])
    keys_n = FLOAT.encode(np.concatenate([*values_n, values_n[0]]).astype(np.float64))
    assert as_lists(nodes[0].buckets()) == by_definition(FLOAT, keys_n)
    assert nodes[0].n == keys_n.size
    assert nodes[0].key_range == (int(keys_n.min()), int(keys_n.max()))


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_float32_scores_are_counted_like_their_keys(seed: int) -> None:
    """Scores of a network give bitwise the buckets of their keys, however cut."""
    chance = np.random.default_rng(seed)
    logits_n = chance.normal(chance.choice([0, 5]), chance.choice([0.1, 2, 30]), 60_000)
    odd = [0.0, -0.0, 1e-45, 0.5, 0.50000006, 0.99999994, 1.0]
    scores_n = np.concatenate([1 / (1 + np.exp(-logits_n)), odd * 3]).astype(np.float32)
    histogram = Histogram(PROBABILITY)
    for part_n in np.split(scores_n, np.sort(chance.integers(0, scores_n.size + 1, 4))):
        histogram.update_values(part_n)
    keys_n = PROBABILITY.encode(scores_n.astype(np.float64))
    assert as_lists(histogram.buckets()) == by_definition(PROBABILITY, keys_n)


def integers(space: KeySpace, seed: int) -> NDArray[Any]:
    """Return integers of a random mixture, the ends of the space's dtype among them."""
    chance = np.random.default_rng(seed)
    least, most = np.iinfo(space.dtype).min, np.iinfo(space.dtype).max
    size = int(chance.choice([300, 20_000, 60_000]))
    makers: dict[str, Callable[[], NDArray[Any]]] = {
        "any": lambda: chance.integers(least, most, size, space.dtype, endpoint=True),
        "few": lambda: chance.integers(0, 7, size, space.dtype),
        "row numbers": lambda: np.arange(size, dtype=space.dtype),
        "times": lambda: chance.integers(17 * 10**17, 18 * 10**17, size, space.dtype),
        "top": lambda: chance.integers(most - 10_000, most, size, space.dtype, endpoint=True),
        "bottom": lambda: chance.integers(least, least + 10_000, size, space.dtype),
        "skewed": lambda: chance.lognormal(5, 4, size).clip(0, 2**62).astype(space.dtype),
        "ends": lambda: chance.choice(np.array([least, most, 0, 1], space.dtype), size),
    }
    names = chance.choice(list(makers), chance.integers(1, 4))
    return chance.permutation(np.concatenate([makers[name]() for name in names]))


@pytest.mark.slow
@pytest.mark.parametrize("space", [SIGNED, UNSIGNED], ids=lambda space: space.name)
@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_integers_are_counted_like_their_keys(space: KeySpace, seed: int) -> None:
    """Integers up to the ends of their type give bitwise the buckets of their keys, however cut."""
    values_n = integers(space, seed)
    chance = np.random.default_rng(seed)
    histogram = Histogram(space)
    for part_n in np.split(values_n, np.sort(chance.integers(0, values_n.size + 1, 6))):
        histogram.update_values(part_n)
    histogram.update_values(values_n)
    keys_n = space.encode(np.concatenate([values_n, values_n]))
    assert as_lists(histogram.buckets()) == by_definition(space, keys_n)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("step", [1, -1])
def test_values_that_go_on_where_others_ended_are_counted(space: KeySpace, step: int) -> None:
    """Parts that lie beyond all before them, as row numbers do, are counted whole and only read."""
    values_n = np.arange(1, 160_001)[::step].astype(space.dtype)
    values_n = values_n / 160_000 if space is PROBABILITY else values_n
    values_n.flags.writeable = False
    histogram = Histogram(space)
    for part_n in np.split(values_n, [40_000, 120_000]):
        histogram.update_values(part_n)
    buckets = histogram.buckets()
    assert as_lists(buckets) == by_definition(space, space.encode(values_n))
    assert buckets.counts_b.sum() == histogram.n == values_n.size


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_keys_with_counts_are_counted_like_as_many_keys(space: KeySpace, seed: int) -> None:
    """A key with a count is that many keys, there already, repeated, or between others."""
    keys_n = sample(space, seed)
    chance = np.random.default_rng(seed)
    counts_n = chance.integers(1, 5, keys_n.size)
    histogram = Histogram(space)
    for part_n in np.array_split(np.arange(keys_n.size), chance.integers(1, 5)):
        if chance.random() < 0.5:
            histogram.update_counted(keys_n[part_n], counts_n[part_n])
        else:
            histogram.update(np.repeat(keys_n[part_n], counts_n[part_n]))
    assert as_lists(histogram.buckets()) == by_definition(space, np.repeat(keys_n, counts_n))
    assert histogram.n == counts_n.sum()


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_other_values_are_counted_like_their_keys(seed: int) -> None:
    """Integers and probabilities of any width give the buckets of their keys."""
    chance = np.random.default_rng(seed)
    shares_n = chance.beta(0.3, 0.3, 50_000).astype(chance.choice(["f4", "f8"]))
    counts_n = (chance.lognormal(5, 4, 50_000) % 2**31).astype(chance.choice(["i4", "i8"]))
    for space, values_n in ((PROBABILITY, shares_n), (SIGNED, counts_n)):
        histogram = Histogram(space)
        for part_n in np.array_split(values_n, 3):
            histogram.update_values(part_n)
        keys_n = space.encode(values_n.astype(space.dtype))
        assert as_lists(histogram.buckets()) == by_definition(space, keys_n)


@pytest.mark.parametrize("space", [FLOAT, SIGNED, UNSIGNED], ids=lambda space: space.name)
def test_cap_distinct_values_are_exact(space: KeySpace) -> None:
    """Up to 4096 distinct values, however far apart, each keeps a bucket of its own."""
    chance = np.random.default_rng(1)
    values_b = np.unique((2.0 ** chance.uniform(0, 63, CAP)).astype(space.dtype))
    keys_n = chance.permutation(np.repeat(space.encode(values_b), 40))
    histogram = Histogram(space)
    histogram.update(keys_n)
    buckets = histogram.buckets()
    assert not buckets.shifts_b.any()
    np.testing.assert_array_equal(space.decode(buckets.first_keys_b), values_b)
    assert (buckets.counts_b == 40).all()


def test_every_float_octave_fits() -> None:
    """With all octaves of float64 occupied, each still has its bucket."""
    exponents_g = np.arange(2046, dtype=np.uint64) << np.uint64(52)
    values_n = np.r_[exponents_g, exponents_g + np.uint64(1)].view(np.float64)
    histogram = Histogram(FLOAT)
    histogram.update(FLOAT.encode(np.r_[values_n, -values_n]))
    buckets = histogram.buckets()
    octaves_b = FLOAT.octave(buckets.first_keys_b)
    assert np.unique(octaves_b).size == octaves_b.size == 2 * 2046
    assert buckets.counts_b.sum() == values_n.size * 2


@pytest.mark.slow
def test_an_octave_that_comes_late_is_exact_until_it_is_full() -> None:
    """A value in an octave that was empty between coarse ones keeps a bucket of its own."""
    exponents_g = np.delete(np.arange(1, 2046, dtype=np.uint64), 1000) << np.uint64(52)
    steps_d = np.linspace(0, 2**52 - 1, 5, dtype=np.uint64)
    values_n = (exponents_g[:, None] + steps_d).ravel().view(np.float64)
    late_n = np.array([1001 << 52 | 12345], np.uint64).view(np.float64)
    histogram = Histogram(FLOAT)
    for part_n in (*np.split(values_n, 5), *[values_n] * 2, late_n):
        histogram.update_values(part_n)
    keys_n = FLOAT.encode(np.concatenate([values_n] * 3 + [late_n]))
    assert as_lists(histogram.buckets()) == by_definition(FLOAT, keys_n)


@pytest.mark.slow
def test_integers_of_many_magnitudes_keep_their_resolution() -> None:
    """Log-uniform integers up to 10**15 have no bucket with more than .2 % of the rows.

    With the octave key >> 52 all of them lie in one, and one bucket holds over half of the rows.
    """
    chance = np.random.default_rng(2)
    values_n = np.exp(chance.uniform(0, np.log(1e15), 200_000)).astype(np.int64)
    histogram = Histogram(SIGNED)
    histogram.update(SIGNED.encode(values_n[values_n > 1000]))
    assert histogram.buckets().counts_b.max() < 0.002 * values_n.size
    distinct_n = np.unique(values_n)
    shift = next(s for s in range(64) if np.unique(distinct_n >> s).size <= CAP)
    assert np.count_nonzero(values_n >> shift == 0) > 0.5 * values_n.size


def test_a_mixture_keeps_the_resolution_of_both_parts() -> None:
    """A narrow peak at 1e9 keeps many buckets next to a wide log-normal."""
    chance = np.random.default_rng(3)
    values_n = np.r_[1e9 + chance.normal(size=90_000), chance.lognormal(size=10_000)]
    histogram = Histogram(FLOAT)
    histogram.update(FLOAT.encode(values_n))
    assert histogram.buckets().counts_b.max() < 0.1 * values_n.size


@pytest.mark.parametrize(
    ("name", "worst"),
    [("normal", 0.0079), ("lognormal", 0.006), ("uniform", 0.0034), ("1e9", 0.001)],
)
def test_quantiles_are_accurate(name: str, worst: float) -> None:
    """Over a million rows no percentile is off by more than a known part of sigma."""
    chance = np.random.default_rng(4)
    values_n: NDArray[np.float64] = {
        "normal": lambda: chance.normal(size=10**6),
        "lognormal": lambda: chance.lognormal(size=10**6),
        "uniform": lambda: chance.random(10**6),
        "1e9": lambda: 1e9 + chance.normal(size=10**6),
    }[name]()
    histogram = Histogram(FLOAT)
    histogram.update(FLOAT.encode(values_n))
    buckets = histogram.buckets()
    lows_b, highs_b = FLOAT.decode(buckets.first_keys_b), FLOAT.decode(buckets.last_keys_b)
    ranks = np.arange(1, 100) * 10**4
    found = ((lows_b + highs_b) / 2)[np.searchsorted(buckets.counts_b.cumsum(), ranks)]
    errors = np.abs(found - np.sort(values_n)[ranks - 1]) / values_n.std()
    assert errors.max() < worst


def cells(dtype: str, odd: int) -> NDArray[Any]:
    """Return 65,536 values of [1, 2) in every second one of 8,192 cells, without the last two."""
    chance = np.random.default_rng(5)
    cells_n = np.arange(65_536) % 4095 * 2 + odd
    return (1 + (cells_n + chance.random(cells_n.size) / 2) / 8192).astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_in_gaps_count_against_the_budget(dtype: str) -> None:
    """Values that come between the buckets coarsen an octave though all of them are found."""
    histogram = Histogram(FLOAT)
    values_n = np.append(cells(dtype, 0), np.array([1 + 8190 / 8192], dtype))
    for part_n in (values_n[::-1], cells(dtype, 1)):
        histogram.update_values(part_n)
    keys_n = FLOAT.encode(np.concatenate([values_n, cells(dtype, 1)]).astype(np.float64))
    assert as_lists(histogram.buckets()) == by_definition(FLOAT, keys_n)


def test_gaps_are_not_merged() -> None:
    """Empty buckets that a histogram keeps for values to come do not count in another."""
    other, histogram = Histogram(FLOAT), Histogram(FLOAT)
    other.update_values(cells("f8", 0))
    histogram.merge(other)
    assert as_lists(histogram.buckets()) == by_definition(FLOAT, FLOAT.encode(cells("f8", 0)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_copy_goes_on_counting(dtype: str) -> None:
    """A histogram that was copied or pickled among its updates ends with the same buckets."""
    values_n = np.random.default_rng(6).normal(size=150_000).astype(dtype)
    histogram = Histogram(FLOAT)
    for part_n in np.split(values_n, 3):
        histogram = pickle.loads(pickle.dumps(copy.deepcopy(histogram)))
        histogram.update_values(part_n[:100])
        histogram.update_values(part_n[100:])
    keys_n = FLOAT.encode(values_n.astype(np.float64))
    assert as_lists(histogram.buckets()) == by_definition(FLOAT, keys_n)


def test_merging_leaves_the_other_as_it_was() -> None:
    """The merged histogram has the same buckets afterwards, and does not follow the first."""
    first, second = Histogram(FLOAT), Histogram(FLOAT)
    second.update(FLOAT.encode(np.array([1.0, 2.0])))
    before = as_lists(second.buckets())
    first.merge(second)
    first.update(FLOAT.encode(np.linspace(1, 2, 10_000)))
    assert as_lists(second.buckets()) == before


@given(st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(-3, 2**63 - 1))
def test_impossible_buckets_are_refused(shift: int, prefix: int, count: int) -> None:
    """A bucket that no histogram can have raises ValueError, one that it can have is restored."""
    bucket = Buckets(np.array([shift], "u1"), np.array([prefix], "u8"), np.array([count], "i8"))
    key = (prefix << shift) % 2**64
    octaves = SIGNED.octave(np.array([key, key | ((1 << shift) - 1) % 2**64], np.uint64))
    if count > 0 and prefix << shift < 2**64 and octaves[0] == octaves[1]:
        restored = Histogram.from_buckets(SIGNED, bucket, (key, key))
        assert as_lists(restored.buckets()) == ([shift], [prefix], [count])
    else:
        with pytest.raises(ValueError, match="bucket"):
            Histogram.from_buckets(SIGNED, bucket, (key, key))
