"""Test that sums of vectors are canonical, accurate and guarded, and what their distances see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchscore.drift import vectors as module
from batchscore.drift.accumulator import Part
from batchscore.drift.centers import frechet, mean_shift
from batchscore.drift.vectors import (
    COVARIANCE_WIDTH,
    MAX_ROWS,
    MAX_WIDTH,
    Vectors,
    mmd,
    mmd2,
    mmd_floor,
)

Rows = NDArray[Any]
Generator = np.random.Generator

ODD = [0.0, -0.0, 5e-324, -1e-310, 1e-320, 1e30, -1e30, 1.7976931348623157e308, 1.0, 2.0**-1000]


def vectors_of(parts: Sequence[Rows], width: int) -> Vectors:
    """Returns the accumulator that took parts one after the other."""
    vectors = Vectors("a type", width)
    for part_bd in parts:
        vectors.update(part_bd)
    return vectors


def of(rows_bd: Rows) -> Vectors:
    """Returns the accumulator of rows taken at once."""
    return vectors_of([rows_bd], rows_bd.shape[1])


def content(vectors: Vectors) -> tuple[str, dict[str, tuple[Any, ...]]]:
    """Returns scalars and parts in a form that compares to the bit."""
    parts = {
        name: (part.key_r.tobytes(), part.count_r.tobytes(), repr(part.shift_r))
        for name, part in vectors.parts().items()
    }
    return json.dumps(vectors.scalars(), sort_keys=True), parts


def assert_lawful(rows_bd: Rows, cuts: Sequence[int], seed: int) -> None:
    """Row by row = in parts = merged in a random tree after a shuffle = all at once."""
    width, chance = rows_bd.shape[1], np.random.default_rng(seed)
    expected = content(of(rows_bd))
    assert content(vectors_of(np.split(rows_bd, len(rows_bd)) if len(rows_bd) else [], width)) == (
        expected
    )
    bounds = [0, *sorted(min(cut, len(rows_bd)) for cut in cuts), len(rows_bd)]
    shuffled_bd = chance.permutation(rows_bd)
    parts = [shuffled_bd[low:high] for low, high in pairwise(bounds)]
    assert content(vectors_of(parts, width)) == expected
    nodes = [Vectors("a type", width), *(vectors_of([part], width) for part in parts)]
    while len(nodes) > 1:
        other = nodes.pop(int(chance.integers(len(nodes))))
        kept = content(other)
        nodes[int(chance.integers(len(nodes)))].merge(other)
        assert content(other) == kept
    assert content(nodes[0]) == expected


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["f2", "f4", "f8"]),
    st.integers(1, 5),
    st.data(),
    st.lists(st.integers(0, 12), max_size=4),
    st.integers(0, 1000),
)
def test_odd_values_are_canonical(
    dtype: str, width: int, data: st.DataObject, cuts: list[int], seed: int
) -> None:
    """Zeros, subnormals and extremes of every dtype give the same sums in any way."""
    value = st.one_of(st.sampled_from(ODD), st.floats(allow_nan=False, allow_infinity=False))
    rows = data.draw(st.lists(st.lists(value, min_size=width, max_size=width), max_size=12))
    limits = np.finfo(dtype)
    wide_bd = np.array(rows, np.float64).reshape(len(rows), width)
    assert_lawful(wide_bd.clip(limits.min, limits.max).astype(dtype), cuts, seed)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 31, 128, 129, COVARIANCE_WIDTH, COVARIANCE_WIDTH + 1, 3000])
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_width_is_canonical(width: int, seed: int) -> None:
    """Many blocks of many magnitudes, one row at a time or at once, give the same sums."""
    chance = np.random.default_rng(seed)
    rows_bd = chance.normal(size=(150, width)) * 10.0 ** chance.uniform(-9, 9, (150, 1))
    rows_bd[7, 0], rows_bd[8] = 1e30, 0.0
    assert_lawful(rows_bd.astype(np.float32), chance.integers(0, 150, 4).tolist(), seed)


def test_large_blocks_are_canonical() -> None:
    """More rows than a block holds give the same sums in any split."""
    rows_bd = np.random.default_rng(1).normal(size=(2500, 40))
    assert content(of(rows_bd)) == content(vectors_of(np.split(rows_bd, [1, 700, 1800]), 40))


def test_the_law_holds_on_every_machine() -> None:
    """Frequencies, signs, cosines and the sums of fixed rows have known bits."""
    rows_bd = (np.arange(40 * 600) * 7919 % 1009 - 504.0).reshape(40, 600) / 7
    known = {
        "frequencies": module._frequencies(128).astype(np.int64),
        "signs": module._signs(600).astype(np.int64),
        "circle": module._circle().view(np.float64).astype(np.int64),
        "narrow": np.r_[tuple(p.count_r for p in of(rows_bd[:, :50]).parts().values())],
        "wide": np.r_[tuple(p.count_r for p in of(rows_bd).parts().values())],
    }
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:12]
        for name, value in known.items()
    }
    assert digests == {
        "frequencies": "6a9ece904fb0",
        "signs": "bacbc65120ef",
        "circle": "42d7e1fce69c",
        "narrow": "ab54f575c06f",
        "wide": "ede1b52a1d17",
    }


def directions(rows_bd: Rows) -> Rows:
    """Returns rows over their norms."""
    norms_b: Rows = np.linalg.norm(rows_bd.astype(np.float64), axis=1, keepdims=True)
    return rows_bd / norms_b


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e30, 1e300])
def test_moments_are_those_of_directions(scale: float) -> None:
    """Mean, variance and covariance are NumPy's of x / |x| to 2e-7, whatever the magnitude."""
    rows_bd = (np.random.default_rng(2).normal(size=(3000, 24)) + 0.3) * scale
    units_bd = directions(rows_bd / scale)
    vectors = of(rows_bd)
    covariance_dd = vectors.covariance()
    assert covariance_dd is not None
    np.testing.assert_allclose(vectors.mean(), units_bd.mean(0), rtol=0, atol=2e-7)
    np.testing.assert_allclose(covariance_dd, np.cov(units_bd.T, bias=True), rtol=0, atol=2e-7)
    assert vectors.variance() == pytest.approx(units_bd.var(0).sum(), abs=1e-6)


def test_one_outlier_weighs_as_one_row() -> None:
    """A vector of 1e30 among a thousand moves the mean direction by a thousandth at most."""
    rows_bd = np.random.default_rng(3).normal(size=(1000, 16))
    spoiled_bd = rows_bd.copy()
    spoiled_bd[5] = 1e30
    difference_d = of(rows_bd).mean() - of(spoiled_bd).mean()
    assert 0 < np.linalg.norm(difference_d) <= 2 / 1000


def test_a_small_spread_far_from_zero_keeps_its_variance() -> None:
    """Vectors that differ by a ten-thousandth have their variance to 2 %."""
    rows_bd = 1000 + 0.1 * np.random.default_rng(4).normal(size=(4000, 64))
    variance = directions(rows_bd).var(0).sum()
    assert of(rows_bd).variance() == pytest.approx(variance, rel=0.02)


def test_zero_vectors_are_counted() -> None:
    """Zero vectors, minus zeros among them, have no direction and a count of their own."""
    vectors = of(np.array([[0.0, -0.0], [0.0, 3.0]]))
    assert vectors.scalars()["zeros"] == 1
    np.testing.assert_array_equal(vectors.mean(), [0.0, 0.5])


def test_covariance_ends_at_its_width() -> None:
    """Wider vectors have neither covariance nor Fréchet distance, but all else."""
    rows_bd = np.random.default_rng(5).normal(size=(50, COVARIANCE_WIDTH + 1))
    vectors = of(rows_bd)
    assert "covariance" not in vectors.parts()
    assert frechet(vectors, vectors) is None
    assert vectors.summary()["dimensions"] is None
    assert mmd(vectors, vectors) == 0


def test_limbs_carry() -> None:
    """Two limbs hold what the sums of products come to after many merges."""
    vectors = of(np.full((3, 2), -1.0) * [[1.0, -1.0]])
    for _ in range(38):
        other = Vectors.restore("a type", vectors.scalars(), vectors.parts())
        vectors.merge(other)
    covariance_dd = vectors.covariance()
    assert covariance_dd is not None
    assert vectors.n == 3 * 2**38
    np.testing.assert_allclose(covariance_dd, np.zeros((2, 2)), atol=1e-6)
    assert vectors._products is not None
    assert vectors._products.total()[0, 1] == pytest.approx(-vectors.n * 2**39, rel=1e-5)
    assert vectors.variance() == 0


def test_limbs_carry_before_they_overflow() -> None:
    """More blocks than one int64 holds the products of are summed exactly."""
    products = module._Products(1)
    for _ in range(9000):
        products.add(np.full((1024, 1), float(module.UNIT)))
    assert products.trace() == 9000 * 1024 * module.UNIT**2


def test_too_many_rows_are_refused() -> None:
    """Nothing is added beyond the rows that the sums hold without overflow."""
    vectors = of(np.ones((2, 1)))
    while vectors.n * 2 <= MAX_ROWS:
        vectors.merge(Vectors.restore("a type", vectors.scalars(), vectors.parts()))
    before = content(vectors)
    with pytest.raises(ValueError, match="at most 4398046511104 vectors"):
        vectors.merge(of(np.ones((1, 1))))
    assert content(vectors) == before


@pytest.mark.parametrize("width", [0, -1, MAX_WIDTH + 1])
def test_widths_are_bounded(width: int) -> None:
    """Vectors without elements, or with more than the exact sums allow, are refused."""
    with pytest.raises(ValueError, match="from 1 to 65536"):
        Vectors("a type", width)


def test_the_widest_vectors_stay_exact() -> None:
    """At the largest width, worst-case rows give the same sums row by row."""
    chance = np.random.default_rng(6)
    rows_bd = chance.choice([-1.0, 1.0], (5, MAX_WIDTH))
    rows_bd[0] = module._signs(MAX_WIDTH)
    rows_bd[1] = 2 - 2**-17
    assert_lawful(rows_bd, [2], 1)


def test_other_widths_do_not_merge() -> None:
    """Vectors of two widths are never summed."""
    with pytest.raises(ValueError, match="3 elements among those of 2"):
        Vectors("a type", 2).merge(Vectors("a type", 3))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 40), st.integers(1, 140), st.integers(0, 2**32 - 1))
def test_restored_is_the_original(rows: int, width: int, seed: int) -> None:
    """Restored vectors have the same content, and go on alike."""
    rows_bd = np.random.default_rng(seed).normal(size=(rows, width))
    vectors = of(rows_bd)
    scalars = json.loads(json.dumps(vectors.scalars()))
    restored = Vectors.restore("a type", scalars, vectors.parts())
    assert content(restored) == content(vectors)
    restored.update(rows_bd)
    vectors.update(rows_bd)
    assert content(restored) == content(vectors)
    assert restored.summary() == vectors.summary()


def test_covariance_may_be_missing() -> None:
    """Without the extra part the rest comes back, and merging goes on without it."""
    vectors = of(np.random.default_rng(7).normal(size=(20, 3)))
    parts = {name: part for name, part in vectors.parts().items() if name not in Vectors.extra}
    restored = Vectors.restore("a type", vectors.scalars(), parts)
    assert restored.covariance() is None
    vectors.merge(restored)
    assert vectors.n == 40
    assert set(vectors.parts()) == set(parts)


def with_first(count: int) -> Callable[[Part], Part]:
    """Returns a change that replaces the first sum of a part."""
    return lambda part: replace(part, count_r=np.r_[np.int64(count), part.count_r[1:]])


def shorter(part: Part) -> Part:
    """Returns a part without its last row."""
    shift_r = None if part.shift_r is None else part.shift_r[:-1]
    return replace(part, key_r=part.key_r[:-1], count_r=part.count_r[:-1], shift_r=shift_r)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("sums", with_first(2**40), "sums has a sum that is too large"),
        ("sums", with_first(16 * 2**20), "larger than their squares"),
        ("sums", shorter, "sums does not have 3 sums"),
        ("squares", with_first(-(2**62)), "too large"),
        ("squares", with_first(12345), "do not add up"),
        ("features", with_first(-(2**63)), "features has a sum"),
        ("features", shorter, "features does not have"),
        ("covariance", with_first(-1), "covariance has a sum"),
        ("covariance", with_first(2**32), "covariance has a sum"),
        ("covariance", with_first(7), "do not add up"),
        ("covariance", shorter, "shifts"),
        ("covariance", lambda part: replace(part, shift_r=None), "shifts"),
        ("covariance", lambda part: replace(part, key_r=part.key_r[::-1]), "in order"),
        ("covariance", lambda part: replace(part, count_r=part.count_r[:-2]), "in order"),
        ("covariance", lambda part: replace(part, count_r=part.count_r + 2**50), "too large"),
        ("other", lambda part: part, "no 'other'"),
    ],
)
def test_damaged_parts_are_refused(name: str, change: Any, reason: str) -> None:
    """Sums that no vectors have are an error."""
    vectors = of(np.random.default_rng(8).normal(size=(16, 3)))
    parts = vectors.parts()
    damaged = {**parts, name: change(parts.get(name, parts["sums"]))}
    with pytest.raises(ValueError, match=reason):
        Vectors.restore("a type", vectors.scalars(), damaged)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": -1}, "n is -1"),
        ({"n": 2.0}, "n is 2.0"),
        ({"n": True}, "n is True"),
        ({"n": MAX_ROWS + 1}, "n is"),
        ({"n": 3}, "too large|squares"),
        ({"zeros": 17}, "zeros is 17"),
        ({"width": 4}, "sums does not have 4"),
        ({"width": 0}, "from 1 to"),
        ({"width": None}, "width is None"),
        ({"seed": 6}, "other frequencies"),
        ({"scales": [1]}, "other frequencies"),
        ({"more": 1}, "no 'more'"),
    ],
)
def test_damaged_scalars_are_refused(change: dict[str, Any], reason: str) -> None:
    """Scalars that do not fit the sums are an error."""
    vectors = of(np.random.default_rng(8).normal(size=(16, 3)))
    with pytest.raises(ValueError, match=reason):
        Vectors.restore("a type", vectors.scalars() | change, vectors.parts())


def kernel(first_bd: Rows, second_bd: Rows, scale: int) -> Rows:
    """Returns the mean of cosines over the frequencies of one scale, in floats."""
    columns = slice(module.SCALES.index(scale) * module.PAIRS, None)
    frequencies_df = module._frequencies(first_bd.shape[1])[:, columns][:, : module.PAIRS]
    turns = [rows_bd @ frequencies_df * (2 * np.pi / 4096) for rows_bd in (first_bd, second_bd)]
    cosines: Rows = np.cos(turns[0][:, None] - turns[1][None]).mean(axis=2)
    return cosines


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1), (2.0, 2), (5.0, 4)])
def test_mmd_is_that_of_its_kernel(offset: float, scale: int) -> None:
    """MMD from sums equals the unbiased mean over all pairs of rows, at the scale that suits."""
    chance = np.random.default_rng(9)
    x_bd, y_bd = (chance.normal(size=(rows, 30)) + offset for rows in (70, 90))
    y_bd = y_bd * ([1.5] * 3 + [1] * 27)
    x_units_bd, y_units_bd = directions(x_bd), directions(y_bd)
    within = [
        (kernel(each, each, scale).sum() - len(each)) / (len(each) * (len(each) - 1))
        for each in (x_units_bd, y_units_bd)
    ]
    expected = sum(within) - 2 * kernel(x_units_bd, y_units_bd, scale).mean()
    assert mmd2(of(x_bd), of(y_bd)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scale", module.SCALES)
def test_the_kernel_is_close_to_a_gaussian(scale: int) -> None:
    """The mean of cosines falls with the distance as a normal density does."""
    origin_bd = np.zeros((1, 16))
    toward_bd = directions(np.random.default_rng(10).normal(size=(200, 16)))
    for distance in (0.3 / scale, 1 / scale, 2 / scale):
        near = kernel(origin_bd, distance * toward_bd, scale).mean()
        assert near == pytest.approx(np.exp(-((scale * distance) ** 2) / 2), abs=0.04)


def test_frechet_is_that_of_the_moments() -> None:
    """The Fréchet distance agrees with its definition, computed by scipy's matrix root."""
    from scipy.linalg import sqrtm

    chance = np.random.default_rng(11)
    x_bd = chance.normal(size=(500, 6))
    y_bd = chance.normal(size=(400, 6)) @ chance.normal(size=(6, 6)) + 1
    x, y = directions(x_bd), directions(y_bd)
    roots = sqrtm(np.cov(x.T, bias=True) @ np.cov(y.T, bias=True)).real
    traces = x.var(0).sum() + y.var(0).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * np.trace(roots)
    assert frechet(of(x_bd), of(y_bd)) == pytest.approx(expected, abs=1e-5)


SAMPLES: dict[str, Callable[[Generator, int], Rows]] = {
    "isotropic": lambda chance, n: chance.normal(size=(n, 32)),
    "low rank": lambda chance, n: chance.normal(size=(n, 2)) @ np.eye(2, 64),
    "Cauchy": lambda chance, n: chance.standard_cauchy(size=(n, 16)),
    "narrow": lambda chance, n: chance.normal(size=(n, 32)) + 20,
    "two points": lambda chance, n: np.eye(2)[(chance.random(n) < 0.3).astype(int)],
    "a rare point": lambda chance, n: np.eye(2)[(chance.random(n) < 0.01).astype(int)],
    "one sign": lambda chance, n: chance.normal(size=(n, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 2000)])
def test_noise_stays_below_the_floor(name: str, n: int, m: int) -> None:
    """Of 100 pairs of identical samples at most 5 exceed the floor of alpha .05, none of .001."""
    effects = []
    for seed in range(100):
        chance = np.random.default_rng([seed, n, m])
        x, y = of(SAMPLES[name](chance, n)), of(SAMPLES[name](chance, m))
        effects.append((mmd(x, y), mmd_floor(x, y, 0.05), mmd_floor(x, y, 0.001), mmd2(x, y)))
    effect, usual, strict, squared = np.array(effects, float).T
    assert np.count_nonzero(effect > usual) <= 5
    assert not np.any(effect > strict)
    assert abs(squared.mean()) <= 4 * squared.std() / 10 + 1e-9


def collapsed(chance: Generator, rows_bd: Rows) -> Rows:
    """Returns rows close to five of them."""
    return rows_bd[chance.integers(0, 5, len(rows_bd))] + 0.3 * rows_bd


def mixed(chance: Generator, rows_bd: Rows) -> Rows:
    """Returns rows of which a fifth is one vector."""
    return np.where(chance.random((len(rows_bd), 1)) < 0.2, np.eye(1, rows_bd.shape[1]), rows_bd)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (lambda chance, rows_bd: rows_bd + 0.1, 0.06, 0.12),
        (lambda chance, rows_bd: rows_bd + 0.25, 0.15, 0.3),
        (lambda chance, rows_bd: rows_bd + 0.5, 0.3, 0.5),
        (collapsed, 0.3, 0.6),
        (mixed, 0.17, 0.23),
        (lambda chance, rows_bd: -rows_bd + 3 * rows_bd.std(), 0.8, 2.0),
    ],
)
@pytest.mark.parametrize("width", [32, 768])
def test_shifts_are_seen(width: int, change: Any, low: float, high: float) -> None:
    """At 4,000 rows each shift has an effect of its size, and those from .15 pass the floor."""
    chance = np.random.default_rng(12)
    x = of(chance.normal(size=(4000, width)))
    y = of(change(chance, chance.normal(size=(4000, width))))
    effect, floor = mmd(x, y), mmd_floor(x, y, 1e-5)
    assert effect is not None
    assert floor is not None
    assert low < effect < high
    assert effect > floor or effect < 0.15


def test_the_mean_shift_is_in_sigma() -> None:
    """A shift of a quarter sigma in all elements is one of about .25, and none is near 0."""
    chance = np.random.default_rng(13)
    x_bd, y_bd = chance.normal(size=(2, 5000, 64))
    assert mean_shift(of(x_bd), of(y_bd + 0.25)) == pytest.approx(0.245, abs=0.01)
    assert mean_shift(of(x_bd), of(y_bd)) == pytest.approx(0, abs=0.02)


def test_length_is_not_direction() -> None:
    """Rows times a power of two have bitwise the same sums: lengths are the norms' matter."""
    rows_bd = np.random.default_rng(14).normal(size=(50, 8))
    assert content(of(rows_bd)) == content(of(rows_bd * 2**40))


def test_few_vectors_have_no_distance() -> None:
    """Below two vectors on a side distances are None, and empty summaries have no moments."""
    one, two, none = of(np.ones((1, 2))), of(np.eye(2)), Vectors("a type", 2)
    for pair in ((one, two), (two, one), (none, two)):
        assert (mmd2(*pair), mmd(*pair), mmd_floor(*pair, 0.01), mean_shift(*pair)) == (None,) * 4
    assert frechet(none, two) is None
    assert none.summary()["spread"] is None


def test_constants_have_no_distance() -> None:
    """One and the same vector on both sides has effect and floor 0 and no mean shift."""
    same = of(np.ones((9, 4)))
    assert (mmd(same, same), mmd_floor(same, same, 0.001)) == (0, 0)
    assert mean_shift(same, same) is None
    assert same.summary() == {
        "width": 4,
        "n": 9,
        "zeros": 0,
        "concentration": pytest.approx(1),
        "spread": 0,
        "dimensions": 0,
    }
