"""The measures of two samples of vectors.

Suffixes: `_d` elements of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.centers import centers, frechet, mean_shift
from batchscore.drift.elements import Elements, elements
from batchscore.drift.findings import Shares, Thresholds
from batchscore.drift.measures.declaration import Difference, Kind, MeasureSpec
from batchscore.drift.measures.shares import compare_shares, percent
from batchscore.drift.vectors import NARROW, Vectors, mmd, mmd_floor

_LEAST = 0.02  # effects of elements that are smaller are not tested


@dataclass(frozen=True)
class VectorSides:
    """Two samples of vectors of one width."""

    reference: Vectors
    current: Vectors
    kind: ClassVar[Kind] = "vectors"

    @property
    def too_few(self) -> bool:
        """Whether a side has fewer than two vectors."""
        return min(self.reference.n, self.current.n) < 2

    @cached_property
    def elements(self) -> Elements | None:
        """The moments of each element; None where there are none, or each is judged as numbers."""
        if self.reference.width <= NARROW:
            return None
        return elements(self.reference, self.current)


def _mmd(sides: VectorSides) -> Iterator[Difference]:
    floor = partial(_mmd_floor, sides.reference, sides.current)
    yield Difference(mmd(sides.reference, sides.current), floor)


def _mmd_floor(reference: Vectors, current: Vectors, alpha: float) -> float:
    floor = mmd_floor(reference, current, alpha)
    return math.inf if floor is None else floor


def _center(sides: VectorSides) -> Iterator[Difference]:
    found = centers(sides.reference, sides.current)
    if found is not None:
        yield Difference(found.distance(), found.floor)


def _element_mean(sides: VectorSides) -> Iterator[Difference]:
    moments = sides.elements
    if moments is None:
        return
    shift_d = np.abs(moments.shifts())
    for element in _largest(shift_d):
        mean, now = float(moments.mean_d[element]), float(moments.now_d[element])
        yield Difference(
            float(shift_d[element]),
            partial(moments.shift_floor, element),
            detail=f"element {element}: mean {mean:.3g} → {now:.3g}",
            shares=Shares(mean, now, f"element {element}"),
        )


def _element_spread(sides: VectorSides) -> Iterator[Difference]:
    moments = sides.elements
    if moments is None:
        return
    spread_d = moments.spreads()
    sigma_d, now_d = np.sqrt(moments.variance_d), np.sqrt(moments.variance_now_d)
    for element in _largest(spread_d):
        sigma, now = float(sigma_d[element]), float(now_d[element])
        yield Difference(
            float(spread_d[element]),
            partial(moments.spread_floor, element),
            chance=moments.spread_chance(element),
            detail=f"element {element}: sigma {sigma:.3g} → {now:.3g}",
            shares=Shares(sigma, now, f"element {element}"),
        )


def _largest(effect_d: NDArray[np.float64]) -> list[int]:
    """Returns the elements by effect, the largest first, without those that hardly changed."""
    order_d = np.argsort(-effect_d, kind="stable")
    kept_d = effect_d[order_d] >= _LEAST
    kept_d[0] = True
    found: list[int] = order_d[kept_d].tolist()
    return found


def _zero_vectors(sides: VectorSides) -> Iterator[Difference]:
    before, now = sides.reference, sides.current
    yield compare_shares(before.zeros, before.n, now.zeros, now.n)


def _moved(shares: Shares, title: str) -> str:
    return f"the mean of {shares.value} is {shares.now:.3g}, was {shares.before:.3g} in {title}"


def _widened(shares: Shares, title: str) -> str:
    if not shares.now:
        return f"{shares.value} has the same number in all vectors, and had not in {title}"
    return f"sigma of {shares.value} is {shares.now:.3g}, was {shares.before:.3g} in {title}"


def _vanished(shares: Shares, title: str) -> str:
    is_, was = percent(shares.now), percent(shares.before)
    return f"{is_} of the vectors are zero, {was} were in {title}"


MEASURES = (
    MeasureSpec(
        name="mmd",
        kinds=("vectors",),
        find=_mmd,
        label="MMD",
        meaning="distance of the two clouds of vectors, by random features",
        tested=True,
        defaults=Thresholds(0.1, 0.2),
        decides=True,
        words="MMD",
        samples="directions of vectors: distance of mean features, in their standard deviations",
        noise="Bernstein's inequality for vectors",
    ),
    MeasureSpec(
        name="center",
        kinds=("vectors",),
        find=_center,
        label="center",
        meaning="distance of the two mean vectors, in deviations along one axis",
        tested=True,
        defaults=Thresholds(0.15, 0.5),
        decides=True,
        words="distance of the means",
        samples="directions of vectors up to 512 wide: distance of the two means, in standard "
        "deviations of one of the axes that would share the variance evenly",
        noise="Laurent and Massart's bound for sums of χ², with the variances along all axes",
    ),
    MeasureSpec(
        name="element_mean",
        kinds=("vectors",),
        find=_element_mean,
        label="element mean",
        meaning="largest shift of one element's mean, in its deviations",
        tested=True,
        defaults=Thresholds(0.1, 0.25),
        most=2,
        words="a shift of",
        changed=_moved,
        samples="directions of vectors from 17 to 512 wide: the largest shift of an element's "
        "mean, in its standard deviations in both together",
        noise="Bernstein's inequality at alpha' / elements",
    ),
    MeasureSpec(
        name="element_spread",
        kinds=("vectors",),
        find=_element_spread,
        label="element spread",
        meaning="by which share one element's deviation is smaller on one side",
        tested=True,
        defaults=Thresholds(0.25, 0.5),
        most=1,
        words="a difference of",
        changed=_widened,
        samples="directions of vectors from 17 to 512 wide: 1 less the smaller over the larger "
        "standard deviation of an element, the largest of all; 1 for an element that died",
        noise="2 exp(−deviance / 2) of the mean squares, as if they were shares, at alpha' / "
        "elements",
    ),
    MeasureSpec(
        name="zero_vectors",
        kinds=("vectors",),
        find=_zero_vectors,
        label="zero vectors",
        meaning="difference of the shares of vectors that are zero",
        tested=True,
        defaults=Thresholds(0.01, 0.05),
        most=1,
        words="a difference of",
        changed=_vanished,
        samples="share of vectors that are zero, difference",
        noise="Fisher's exact test",
    ),
    MeasureSpec(
        name="mean_shift",
        kinds=("vectors",),
        find=lambda sides: [Difference(mean_shift(sides.reference, sides.current))],
        label="mean shift",
        meaning="distance of the two mean vectors over the spread",
        samples="vectors: distance of the two means over the spread",
    ),
    MeasureSpec(
        name="frechet",
        kinds=("vectors",),
        find=lambda sides: [Difference(frechet(sides.reference, sides.current))],
        label="Fréchet",
        meaning="distance of the two normal distributions with these moments",
        samples="vectors: distance of the two normal distributions with these moments",
    ),
)
