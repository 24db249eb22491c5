"""Vectors element by element: what changed in one of many, and how far the center moved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy import optimize

from batchscore.drift.centers import Centers, centers
from batchscore.drift.compare import compare_profiles
from batchscore.drift.elements import Elements, elements
from batchscore.drift.findings import Rules, TableDrift
from batchscore.drift.sentences import sentences
from batchscore.drift.table import TableProfile
from batchscore.drift.vectors import Vectors
from tests.drift.test_aspects import aspect, compared, measure

Rows = NDArray[Any]
WIDTH, ROWS = 64, 4000


def column(values_bd: Rows) -> pa.Array:
    """Return rows as Arrow's vectors of floats."""
    flat = pa.array(np.ascontiguousarray(values_bd, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values_bd.shape[1])


def normal(seed: int, rows: int = ROWS, width: int = WIDTH) -> Rows:
    """Return rows of independent normal numbers."""
    return np.random.default_rng(seed).normal(size=(rows, width))


def found(before: Rows, now: Rows) -> TableDrift:
    """Return how two columns of vectors differ."""
    return compared(column(before), column(now))


def said(before: Rows, now: Rows) -> str:
    """Return the sentence about the directions of two columns of vectors."""
    sides = TableProfile.empty(), TableProfile.empty()
    for side, values_bd in zip(sides, (before, now), strict=True):
        side.update(pa.record_batch([column(values_bd)], names=["x"]))
    return sentences(compare_profiles(*sides, Rules()), *sides, "run r1")["x", "vector"]


def accumulated(values_bd: Rows) -> Vectors:
    """Return the sums of vectors."""
    vectors = Vectors("a type", values_bd.shape[1])
    vectors.update(values_bd)
    return vectors


def directions(values_bd: Rows) -> Rows:
    """Return rows of length 1."""
    return np.asarray(values_bd / np.linalg.norm(values_bd, axis=1, keepdims=True))


def test_moments_of_elements_are_numpys() -> None:
    """Means, variances, shifts and spreads are those of the rows' directions."""
    before, now = normal(1, 300, 20) + 1, normal(2, 500, 20) * np.linspace(0.5, 2, 20)
    moments = elements(accumulated(before), accumulated(now))
    assert moments is not None
    first, second = directions(before), directions(now)
    gap_d = second.mean(0) - first.mean(0)
    both_d = np.sqrt((first.var(0) + second.var(0)) / 2 + gap_d**2 / 4)
    np.testing.assert_allclose(moments.shifts(), gap_d / both_d, atol=1e-4)
    smaller_d = np.minimum(first.std(0), second.std(0))
    larger_d = np.maximum(first.std(0), second.std(0))
    np.testing.assert_allclose(moments.spreads(), 1 - smaller_d / larger_d, atol=1e-4)


def test_an_element_without_a_spread_has_none_exactly() -> None:
    """A constant element has the variance 0 and not what rounding leaves."""
    values_bd = np.tile([0.6, 0.8, 0.0], (1000, 1))
    variances = accumulated(values_bd).variances()
    assert variances is not None
    assert variances.tolist() == [0, 0, 0]


def test_the_center_is_numpys() -> None:
    """Its distance is that of the mean directions, less the bias, per deviation of an axis."""
    before, now = normal(1, 300, 20) + 0.5, normal(2, 500, 20)
    measured = centers(accumulated(before), accumulated(now))
    assert measured is not None
    first, second = directions(before), directions(now)
    covariances = [np.cov(each.T, bias=True) for each in (first, second)]
    bias = np.trace(covariances[0]) / 299 + np.trace(covariances[1]) / 499
    both_dd = (covariances[0] + covariances[1]) / 2
    unit = np.sqrt((both_dd**2).sum() / np.trace(both_dd))
    squared = ((first.mean(0) - second.mean(0)) ** 2).sum() - bias
    assert measured.distance() == pytest.approx(np.sqrt(squared) / unit, rel=1e-3)


@pytest.mark.parametrize("axes", [1, 3, 40])
def test_noise_of_the_center_stays_below_its_floor(axes: int) -> None:
    """Of 20,000 simulated squared distances at most the level is beyond, however axes differ."""
    variances_d = np.geomspace(1, 0.01, axes) / 100
    covariance_dd = np.diag(variances_d)
    center = Centers(10**6, 10**6, np.zeros(axes), covariance_dd, covariance_dd)
    chance = np.random.default_rng(1)
    gaps = chance.normal(size=(20_000, axes)) * np.sqrt(2e-6 * variances_d)
    distances = np.sqrt(np.maximum(0, (gaps**2).sum(1) - center.bias)) / center.unit
    for alpha in (0.05, 0.01):
        assert np.mean(distances > center.floor(alpha)) <= alpha
    assert np.mean(distances > center.floor(0.5)) > 0


@pytest.mark.parametrize("values", ["rare", "two", "uniform"])
def test_noise_of_an_element_stays_below_its_floors(values: str) -> None:
    """Means and spreads of bounded numbers of any kind seldom pass what noise may do."""
    draws = {
        "rare": lambda chance, n: (chance.random(n) < 0.01).astype(float),
        "two": lambda chance, n: chance.choice([-1.0, 1.0], n),
        "uniform": lambda chance, n: chance.uniform(-1, 1, n),
    }
    chance = np.random.default_rng(3)
    beyond = np.zeros(2)
    for _ in range(500):
        x, y = draws[values](chance, 300), draws[values](chance, 900)
        each = Elements(300, 900, *(np.array([f]) for f in (x.mean(), y.mean(), x.var(), y.var())))
        beyond += abs(each.shifts()[0]) > each.shift_floor(0, 0.05), each.spread_chance(0) <= 0.05
    assert (beyond <= 25).all()


def spread_of_one(variance_now: float) -> Elements:
    """Return the moments of one element, of variance 0.01 before."""
    moments = [np.array([each]) for each in (0.0, 0.0, 0.01, variance_now)]
    return Elements(5000, 4000, *moments)


def test_the_floor_of_a_spread_is_where_its_chance_is_the_level() -> None:
    """SciPy finds the same deviation by solving for the chance."""
    alpha = 1e-4

    def excess(by: float) -> float:
        return math.log(spread_of_one(0.01 * (1 - by) ** 2).spread_chance(0) / alpha)

    expected = optimize.brentq(excess, 0.01, 0.99)
    assert spread_of_one(0.008).spread_floor(0, alpha) == pytest.approx(expected)


def test_the_same_law_is_ok() -> None:
    """Two samples of one distribution do not alarm in any measure."""
    assert found(normal(1), normal(2)).verdict == "ok"


def test_a_dead_element_is_found_and_named() -> None:
    """One of 64 that has become 0 fails, though its mean was 0 all along."""
    now = normal(2)
    now[:, 5] = 0
    drift = found(normal(1), now)
    assert measure(drift, "element_spread", "vector").outcome == "fail"
    assert measure(drift, "mmd", "vector").outcome == "ok"
    text = said(normal(1), now)
    assert "element 5 has the same number in all vectors, and had not in run r1; " in text


def test_a_tenth_of_a_sigma_in_all_elements_is_found() -> None:
    """The center sees what MMD does not yet."""
    drift = found(normal(1), normal(2) + 0.1)
    assert measure(drift, "center", "vector").outcome == "fail"
    assert measure(drift, "center", "vector").value == pytest.approx(0.1 * math.sqrt(64), rel=0.1)
    assert measure(drift, "mmd", "vector").outcome == "ok"


def test_a_shift_of_one_element_is_named() -> None:
    """One element whose mean moved by half a sigma fails, and the sentence says which."""
    now = normal(2)
    now[:, 7] += 0.5
    assert measure(found(normal(1), now), "element_mean", "vector").outcome == "fail"
    assert "the mean of element 7 is 0.06" in said(normal(1), now)


def test_a_class_that_is_twice_as_frequent_is_found() -> None:
    """Ten clusters of a tenth each; one of them has doubled."""
    centers_kd = np.random.default_rng(9).normal(size=(10, WIDTH)) * 0.7

    def images(seed: int, shares: Rows) -> Rows:
        classes = np.random.default_rng(seed).choice(10, ROWS, p=shares / shares.sum())
        return np.asarray(centers_kd[classes] + normal(seed))

    even, twice = np.ones(10), np.r_[np.ones(9), 2]
    assert found(images(1, even), images(2, even)).verdict == "ok"
    drift = found(images(1, even), images(2, twice))
    assert (drift.verdict, measure(drift, "center", "vector").outcome) == ("warn", "warn")


def test_zero_vectors_are_named() -> None:
    """Their share is compared by Fisher's test, and said."""
    now = normal(2)
    now[:100] = 0
    zeros = measure(found(normal(1), now), "zero_vectors", "vector")
    assert (zeros.outcome, zeros.value) == ("warn", 0.025)
    assert "2.5 % of the vectors are zero, 0 % were in run r1" in said(normal(1), now)


@pytest.mark.parametrize(("width", "judged"), [(16, False), (17, True), (513, False)])
def test_elements_are_judged_where_sums_are_kept_and_nothing_else_does(
    width: int, judged: bool
) -> None:
    """Narrow vectors have an aspect for each element; of wide ones no variances are kept."""
    drift = found(normal(1, 100, width), normal(2, 100, width))
    names = {each.name for each in aspect(drift, "vector").measures}
    assert ({"element_mean", "element_spread"} <= names) == judged
    assert ("center" in names) == (width <= 512)
