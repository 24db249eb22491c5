"""The measures of two samples of vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from batchscore.drift.findings import Thresholds
from batchscore.drift.measures.declaration import Difference, Kind, MeasureSpec
from batchscore.drift.vectors import Vectors, frechet, mean_shift, mmd, mmd_floor


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


def _mmd(sides: VectorSides) -> Iterator[Difference]:
    floor = partial(_mmd_floor, sides.reference, sides.current)
    yield Difference(mmd(sides.reference, sides.current), floor)


def _mmd_floor(reference: Vectors, current: Vectors, alpha: float) -> float:
    floor = mmd_floor(reference, current, alpha)
    return math.inf if floor is None else floor


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
