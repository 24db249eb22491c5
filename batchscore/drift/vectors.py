"""The accumulator of vectors: directions in exact integer sums, and distances between two.

Suffixes: `_b` rows, `_d` elements of a vector, `_c` elements once folded, `_f` features, `_f2`
their two parts, `_a` angles, `_t` pairs of elements, `_r` rows of a stored part; `_bd`, `_bc`,
`_bf`, `_cf` and `_dd` are matrices of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.accumulator import Part

MAX_WIDTH = 2**16
MAX_ROWS = 2**42
COVARIANCE_WIDTH = 512
NARROW = 16  # vectors up to this width are also profiled element by element, each as numbers
UNIT = 2**20  # represents 1 in the integers: directions, cosines and sines

SEED = 5
SCALES = (1, 2, 4, 8, 16)  # radians a unit of direction, the standard deviation of frequencies
PAIRS = 48  # cosines and sines of each scale

Floats = NDArray[np.float64]
Sums = NDArray[np.int64]

_FEATURES = len(SCALES) * PAIRS
_ELEMENT_BITS = 18  # 2**16 squares of such integers sum to at most 2**52
_FOLD = 128  # columns that frequencies are drawn for
_ANGLES = 4096
_ANGLE_SHIFT = 20
_BLOCK = 2**18  # elements taken at a time: the temporaries stay in cache
_BLOCK_ROWS = 1024
_LIMB = 32
_SPREAD_SEEN = 0.22  # 1 - exp(-1/4): where the kernel still tells near from far
_PARTS = {"sums", "squares", "features", "covariance"}
_KERNEL: Mapping[str, Any] = {"seed": SEED, "scales": list(SCALES), "pairs": PAIRS}


class Vectors:
    """Takes finite vectors of one width; what is kept is about their directions x / |x|.

    Directions need no scale, so that none depends on the data, and no outlier weighs more than
    another row; lengths are the matter of the norms, an aspect of their own. Each row becomes
    integers by itself, in operations that IEEE 754 rounds alike everywhere: elements over the
    power of two above the largest, rounded to 2**-18; then over their norm, rounded to 2**-20, so
    to whole u with |u| close to `UNIT`. All sums are of integers below 2**53 within a block and
    below 2**63 beyond, up to `MAX_ROWS` rows, so exact in any order.

    Kept are n, the zero vectors, sums of u and of |u|**2, up to `COVARIANCE_WIDTH` columns the
    sums of products, and for MMD the sums of cosines and sines of w.u for fixed frequencies w of
    each of `SCALES`. Wider vectors are folded to 128 columns with random signs before that.
    """

    kind: ClassVar[str] = "vectors"
    extra: ClassVar[frozenset[str]] = frozenset({"covariance"})

    def __init__(self, type_: str, width: int) -> None:
        """Starts without any vector; ValueError where `width` is not from 1 to `MAX_WIDTH`."""
        if not 1 <= width <= MAX_WIDTH:
            raise ValueError(f"vectors of {width} elements; from 1 to {MAX_WIDTH} are profiled")
        self.type = type_
        self.width = width
        self.zeros = 0
        self._n = 0
        self._sums_d: Sums = np.zeros(width, np.int64)
        self._excess = 0
        self._features_f2: Sums = np.zeros((_FEATURES, 2), np.int64)
        self._products = _Products(width) if width <= COVARIANCE_WIDTH else None

    @property
    def n(self) -> int:
        """How many vectors were taken, zero vectors among them."""
        return self._n

    def update(self, values_bd: NDArray[Any]) -> None:
        """Takes vectors, (b, d) of a float dtype and all finite."""
        self._count(len(values_bd))
        rows = max(1, min(_BLOCK_ROWS, _BLOCK // self.width))
        for start in range(0, len(values_bd), rows):
            self._take(_units(values_bd[start : start + rows]))

    def merge(self, other: Vectors) -> None:
        """Adds what `other`, of the same width, has taken.

        The covariance is lost where the other was restored without.
        """
        if other.width != self.width:
            raise ValueError(f"vectors of {other.width} elements among those of {self.width}")
        self._count(other.n)
        self.zeros += other.zeros
        self._excess += other._excess
        self._sums_d = self._sums_d + other._sums_d
        self._features_f2 = self._features_f2 + other._features_f2
        if self._products is None or other._products is None:
            self._products = None
        else:
            self._products.merge(other._products)

    def scalars(self) -> dict[str, Any]:
        """Returns width, n, the zero vectors, and what the frequencies are drawn from."""
        return {"width": self.width, "n": self.n, "zeros": self.zeros, **_KERNEL}

    def parts(self) -> dict[str, Part]:
        """Returns the sums in `UNIT`, by index.

        `sums`: of u. `squares`: of |u|**2 - UNIT**2 over vectors that are not zero, in UNIT**2.
        `features`: of cosine and sine in turn. `covariance`: of products, upper triangle by rows,
        in UNIT**2; sums of `count << shift`.
        """
        parts = {
            "sums": _part(self._sums_d),
            "squares": _part(np.array([self._excess], np.int64)),
            "features": _part(self._features_f2.ravel()),
        }
        if self._products is not None:
            parts["covariance"] = self._products.part()
        return parts

    @classmethod
    def restore(cls, type_: str, scalars: Mapping[str, Any], parts: Mapping[str, Part]) -> Vectors:
        """Reverses `scalars` and `parts`; ValueError where no vectors have such sums."""
        unknown = set(scalars) - {"width", "n", "zeros", *_KERNEL} or set(parts) - _PARTS
        if unknown:
            raise ValueError(f"vectors have no {min(unknown)!r}")
        vectors = cls(type_, _whole(scalars, "width", MAX_WIDTH))
        vectors._n = _whole(scalars, "n", MAX_ROWS)
        vectors.zeros = _whole(scalars, "zeros", vectors._n)
        if {key: scalars.get(key) for key in _KERNEL} != _KERNEL:
            raise ValueError("the features are of other frequencies")
        bound = vectors._n * (UNIT + 1)
        vectors._sums_d = _counts(parts, "sums", vectors.width, bound)
        vectors._excess = int(_counts(parts, "squares", 1, bound * 2**10)[0])
        features_f = _counts(parts, "features", 2 * _FEATURES, bound)
        vectors._features_f2 = features_f.reshape(_FEATURES, 2)
        if vectors._products is not None and vectors._n:
            part = parts.get("covariance")
            vectors._products = None
            if part is not None:
                vectors._products = _Products.restore(vectors.width, vectors._n, part)
        vectors._check()
        return vectors

    def summary(self) -> dict[str, Any]:
        """Returns counts, the length of the mean direction, and the spread around it.

        `concentration`: 1 where all directions are one, 0 where they cancel out. `spread`: root
        of the summed variances. `dimensions`: how many would share the variance evenly; None
        without covariance.
        """
        head = {"width": self.width, "n": self.n, "zeros": self.zeros}
        if not self.n:
            return head | dict.fromkeys(["concentration", "spread", "dimensions"])
        concentration = math.sqrt(square_sum(self.mean()))
        spread = math.sqrt(self.variance())
        return head | {
            "concentration": concentration,
            "spread": spread,
            "dimensions": self._dimensions(),
        }

    def mean(self) -> Floats:
        """Returns the mean direction, (d,); n must not be 0."""
        return self._sums_d / (self.n * UNIT)

    def variance(self) -> float:
        """Returns the population variance of directions, summed over elements; n not 0."""
        total = sum(each * each for each in self._sums_d.tolist())
        spread: int = self.n * self._squares() - total
        return spread / (self.n * UNIT) ** 2

    def variances(self) -> Floats | None:
        """Returns the population variance of each element (d,), None without covariance; n not 0.

        Rounded once from exact sums: an element that has one value has none.
        """
        if self._products is None:
            return None
        scale = (self.n * UNIT) ** 2
        sums_squares = zip(self._sums_d.tolist(), self._products.squares(), strict=True)
        exact = ((self.n * square - total * total) / scale for total, square in sums_squares)
        return np.array(list(exact))

    def covariance(self) -> Floats | None:
        """Returns the population covariance of directions, (d, d), None without; n not 0."""
        if self._products is None:
            return None
        mean_d = self.mean()
        return self._products.total() / (self.n * UNIT**2) - np.outer(mean_d, mean_d)

    def embedding(self) -> Floats:
        """Returns the mean feature vector of each scale, (s, f), of length 1 for one vector."""
        scaled = self._features_f2 / (self.n * UNIT * math.sqrt(PAIRS))
        return scaled.reshape(len(SCALES), 2 * PAIRS)

    def _count(self, rows: int) -> None:
        if self._n + rows > MAX_ROWS:
            raise ValueError(f"a profile holds at most {MAX_ROWS} vectors; merge fewer")
        self._n += rows

    def _take(self, units_bd: Floats) -> None:
        squares_b = np.einsum("bd,bd->b", units_bd, units_bd)
        zeros = len(units_bd) - int(np.count_nonzero(squares_b))
        self.zeros += zeros
        self._excess += int(squares_b.astype(np.int64).sum()) - (len(units_bd) - zeros) * UNIT**2
        self._sums_d += units_bd.sum(axis=0).astype(np.int64)
        self._features_f2 += _features(units_bd)
        if self._products is not None:
            self._products.add(units_bd)

    def _squares(self) -> int:
        return (self.n - self.zeros) * UNIT**2 + self._excess

    def _dimensions(self) -> float | None:
        covariance_dd = self.covariance()
        if covariance_dd is None:
            return None
        squares = square_sum(covariance_dd)
        return float(np.trace(covariance_dd)) ** 2 / squares if squares else 0.0

    def _check(self) -> None:
        if self._squares() < 0 or (self.n and self.variance() < 0):
            raise ValueError("the sums are larger than their squares allow")
        if self._products is not None and self._products.trace() != self._squares():
            raise ValueError("covariance and squares do not add up")


class _Products:
    """Sums of the products of integer vectors, (d, d), in two limbs: high << 32, and low."""

    def __init__(self, width: int) -> None:
        self._low_dd: Sums = np.zeros((width, width), np.int64)
        self._high_dd: Sums = np.zeros((width, width), np.int64)
        self._rows = 0

    def add(self, units_bd: Floats) -> None:
        # At most 1,024 rows of products up to (UNIT + 1)**2: below 2**51.
        self._low_dd += (units_bd.T @ units_bd).astype(np.int64)
        self._rows += len(units_bd)
        if self._rows >= 2**21:
            self._carry()

    def merge(self, other: _Products) -> None:
        self._carry()
        self._low_dd = self._low_dd + other._low_dd
        self._high_dd = self._high_dd + other._high_dd
        self._carry()

    def total(self) -> Floats:
        self._carry()
        return np.ldexp(self._high_dd.astype(np.float64), _LIMB) + self._low_dd

    def trace(self) -> int:
        return sum(self.squares())

    def squares(self) -> list[int]:
        """Returns the sum of squares of each element."""
        self._carry()
        high_d, low_d = (each.diagonal().tolist() for each in (self._high_dd, self._low_dd))
        return [(high << _LIMB) + low for high, low in zip(high_d, low_d, strict=True)]

    def part(self) -> Part:
        self._carry()
        upper = np.triu_indices(len(self._low_dd))
        keys_t = np.arange(upper[0].size, dtype=np.uint64)
        return Part(
            np.r_[keys_t, keys_t],
            np.r_[self._low_dd[upper], self._high_dd[upper]],
            np.repeat(np.array([0, _LIMB], np.uint8), keys_t.size),
        )

    @classmethod
    def restore(cls, width: int, rows: int, part: Part) -> _Products:
        products, expected = cls(width), cls(width).part()
        if not np.array_equal(_shifts(part), _shifts(expected)):
            raise ValueError("covariance has other shifts")
        if not np.array_equal(part.key_r, expected.key_r) or part.count_r.size != part.key_r.size:
            raise ValueError("covariance lacks a low and a high sum for each pair in order")
        low_t, high_t = np.split(part.count_r, 2)
        bound = (rows * (UNIT + 1) ** 2 >> _LIMB) + 1
        if low_t.min() < 0 or low_t.max() >> _LIMB or high_t.min() < -bound or high_t.max() > bound:
            raise ValueError("covariance has a sum that is too large for the vectors")
        upper = np.triu_indices(width)
        for matrix_dd, sums_t in ((products._low_dd, low_t), (products._high_dd, high_t)):
            matrix_dd[upper] = sums_t
            matrix_dd.T[upper] = sums_t
        return products

    def _carry(self) -> None:
        self._high_dd += self._low_dd >> _LIMB
        self._low_dd &= 2**_LIMB - 1
        self._rows = 0


def mmd2(reference: Vectors, current: Vectors) -> float | None:
    """Returns the unbiased squared MMD of directions, None where either has fewer than 2 vectors.

    The kernel is a mean of cosines close to exp(-(scale |u - v|)**2 / 2), of the scale that suits
    both together: the coarsest at which 1 - k(u, v) of random pairs is .22 or more on average.
    """
    if min(reference.n, current.n) < 2:
        return None
    return _Means.of(reference, current).mmd2()


def mmd(reference: Vectors, current: Vectors) -> float | None:
    """Returns the effect: root of `mmd2` over the spread of features in both, halves alike.

    About |mean - mean| / root of the summed variances for small shifts, p where a share p of the
    rows comes to lie apart from all others, and at most 2. None with fewer than 2 vectors.
    """
    if min(reference.n, current.n) < 2:
        return None
    means = _Means.of(reference, current)
    return means.effect(means.mmd2())


def mmd_floor(reference: Vectors, current: Vectors, alpha: float) -> float | None:
    """Returns the `mmd` that noise alone exceeds with a chance of at most `alpha`.

    Pinelis' form of Bernstein's inequality for sums of bounded vectors, which holds at any n, m
    and for any distribution, with the variance of the features as measured in both together. 0
    where all vectors are one and the same, None where either side has fewer than 2.
    """
    if min(reference.n, current.n) < 2:
        return None
    means = _Means.of(reference, current)
    n, m = means.n, means.m
    level = math.log(2 / alpha)
    bounded = level * 2 / (3 * min(n, m))
    variance = means.pooled_spread() * (1 / n + 1 / m)
    farthest = bounded + math.sqrt(bounded**2 + 2 * level * variance)
    return means.effect(farthest**2 - means.bias())


class _Means:
    """Mean features of two sides at the scale that suits both together."""

    def __init__(self, x_f: Floats, y_f: Floats, n: int, m: int) -> None:
        self.x_f, self.y_f, self.n, self.m = x_f, y_f, n, m

    @classmethod
    def of(cls, reference: Vectors, current: Vectors) -> _Means:
        """Chooses the coarsest scale that sees a spread in both together, else the finest."""
        both = [
            cls(x_f, y_f, reference.n, current.n)
            for x_f, y_f in zip(reference.embedding(), current.embedding(), strict=True)
        ]
        return next((means for means in both if means.spread() >= _SPREAD_SEEN), both[-1])

    def spread(self) -> float:
        """Returns the variance of features where both sides have the same weight."""
        return max(0.0, 1 - square_sum((self.x_f + self.y_f) / 2))

    def pooled_spread(self) -> float:
        """Returns the variance of features where all rows have the same weight, unbiased."""
        total = self.n + self.m
        mean_f = (self.n * self.x_f + self.m * self.y_f) / total
        return max(0.0, 1 - square_sum(mean_f)) * total / (total - 1)

    def bias(self) -> float:
        """Returns what noise adds to the squared distance of the means on average."""
        x, y = 1 - square_sum(self.x_f), 1 - square_sum(self.y_f)
        return x / (self.n - 1) + y / (self.m - 1)

    def mmd2(self) -> float:
        """Returns the squared distance of the means without its bias."""
        return square_sum(self.x_f - self.y_f) - self.bias()

    def effect(self, squared: float) -> float:
        """Returns the root of a squared distance over the spread, 0 without any spread."""
        spread = self.spread()
        return math.sqrt(max(0.0, squared) / spread) if spread else 0.0


def _units(values_bd: NDArray[Any]) -> Floats:
    """Returns the directions in `UNIT`, whole numbers; zeros for zero vectors.

    Vectors whose largest element is below 2**-1000 have fewer bits.
    """
    largest_b = np.maximum(values_bd.max(axis=1), -values_bd.min(axis=1)).astype(np.float64)
    exponents_b = np.maximum(np.frexp(largest_b)[1], -1000)
    # Powers of two, so that the product is exact, or below half and rounded to 0.
    factors_b = np.ldexp(1.0, _ELEMENT_BITS - exponents_b)
    units_bd: Floats = values_bd * factors_b[:, None]
    np.rint(units_bd, out=units_bd)
    norms_b = np.sqrt(np.einsum("bd,bd->b", units_bd, units_bd))
    units_bd *= (UNIT / np.maximum(norms_b, 1))[:, None]
    return np.rint(units_bd, out=units_bd)


def _features(units_bd: Floats) -> Sums:
    """Returns sums over rows of cosines and sines, (f, 2) in `UNIT`."""
    folded_bc = _folded(units_bd)
    # Below 2**16 * 2**29: the largest frequency times the sum of at most 2**16 elements.
    turns_bf = folded_bc @ _frequencies(folded_bc.shape[1])
    angles_bf = (turns_bf.astype(np.int64) >> _ANGLE_SHIFT) & (_ANGLES - 1)
    sums_f: NDArray[np.complex128] = _circle().take(angles_bf).sum(axis=0)
    return sums_f.view(np.float64).reshape(_FEATURES, 2).astype(np.int64)


def _folded(units_bd: Floats) -> Floats:
    """Returns at most `_FOLD` columns, (b, c): each the sum of some elements with fixed signs."""
    rows, width = units_bd.shape
    if width <= _FOLD:
        return units_bd
    layers = -(-width // _FOLD)
    signed_bd = np.zeros((rows, layers * _FOLD))
    np.multiply(units_bd, _signs(width), out=signed_bd[:, :width])
    folded_bc: Floats = signed_bd.reshape(rows, layers, _FOLD).sum(axis=1)
    return folded_bc


@cache
def _frequencies(columns: int) -> Floats:
    """Returns whole frequencies, (c, f), in 2 pi / 4096 radians a unit: 652 times the scale.

    Sums of four uniform numbers, close to normal ones and the same on every machine.
    """
    raw = np.random.PCG64(SEED).random_raw(_FOLD * _FEATURES)
    lanes_cf = raw.view(np.uint16).reshape(_FOLD, _FEATURES, 4).astype(np.int64).sum(axis=2)
    scales_f = np.repeat(np.array(SCALES), PAIRS)
    frequencies_cf: Floats = ((lanes_cf - 2 * 0xFFFF) * scales_f // 58).astype(np.float64)
    return frequencies_cf[:columns]


@cache
def _signs(width: int) -> Floats:
    """Returns +1 and -1 at random, (d,)."""
    bits_d = np.random.PCG64(SEED + 1).random_raw(width) & np.uint64(1)
    return 1.0 - 2.0 * bits_d.astype(np.float64)


@cache
def _circle() -> NDArray[np.complex128]:
    """Returns cosines and sines of all angles in `UNIT`, whole numbers."""
    angles_a = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    circle_a: NDArray[np.complex128] = np.rint(UNIT * np.exp(1j * angles_a))
    return circle_a


def square_sum(values: Floats) -> float:
    """Returns the sum of squares, rounded once and so alike on every machine."""
    return math.fsum(np.square(values).ravel().tolist())


def _part(sums_r: Sums) -> Part:
    return Part(np.arange(sums_r.size, dtype=np.uint64), sums_r.copy())


def _shifts(part: Part) -> NDArray[np.uint8]:
    return np.empty(0, np.uint8) if part.shift_r is None else part.shift_r


def _counts(parts: Mapping[str, Part], name: str, size: int, bound: int) -> Sums:
    part = parts.get(name)
    if part is None or not np.array_equal(part.key_r, np.arange(size, dtype=np.uint64)):
        raise ValueError(f"{name} does not have {size} sums in order")
    sums_r = part.count_r
    if sums_r.size != size or sums_r.min() < -bound or sums_r.max() > bound:
        raise ValueError(f"{name} has a sum that is too large for the vectors")
    return sums_r.copy()


def _whole(scalars: Mapping[str, Any], name: str, most: int) -> int:
    value = scalars.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}, expected a whole number up to {most}")
    return value
