"""Test by Fisher's exact test whether two shares differ by more than noise, at any size.

Suffixes: `_t` terms of a sum.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TIE = 1e-7  # tables whose probabilities differ by less, relatively, are as likely
_TERMS = 2048  # terms of a tail that are summed at a time
_NEGLIGIBLE = 1e-17  # relative to the sum
_LOST = 1e-22  # relative to the sum: all terms of a step together are below its last bit
_SMALL = 30  # below, the factorial itself is at least as precise as its series


def deviance(a: float, n: int, share: float, m: int) -> float:
    """Returns the deviance of the shares a / n and `share` of m from one common share."""
    # Written out, since a floor takes forty of them.
    pooled, hits = (a + share * m) / (n + m), a / n
    without, missed, left = 1 - pooled, 1 - hits, 1 - share
    terms = (
        n * hits * math.log(hits / pooled) if hits > 0 and pooled > 0 else 0.0,
        n * missed * math.log(missed / without) if missed > 0 and without > 0 else 0.0,
        m * share * math.log(share / pooled) if share > 0 and pooled > 0 else 0.0,
        m * left * math.log(left / without) if left > 0 and without > 0 else 0.0,
    )
    return 2 * sum(terms)


def fisher_p(a: int, n: int, b: int, m: int) -> float:
    """Returns the two-sided p-value for the shares a of n and b of m.

    Sums the probabilities of all tables with the same margins that are no likelier than this one.
    The table's own probability comes from its deviance, where factorials would cancel, and the
    others' from it by their ratios: 10 digits up to n, m = 1e9, in milliseconds. A side without
    values gives 1. Raises ValueError where a share is not within 0 to 1.
    """
    if not 0 <= a <= n or not 0 <= b <= m:
        raise ValueError(f"{a} of {n} and {b} of {m} are not shares; a count is between 0 and all")
    table = _Margins(a + b, n, n + m)
    if a > table.mode:
        a, table = b, table.mirrored()
    if table.log_probability(a) >= table.log_probability(table.mode) - _TIE:
        return 1.0
    far = table.as_unlikely(a)
    other = table.mirrored().lower_tail(table.hits - far) if far <= table.most else 0.0
    return min(1.0, table.lower_tail(a) + other)


@dataclass(frozen=True)
class _Margins:
    """Tables of `draws` values out of `total`, of which `hits` count: hypergeometric."""

    hits: int
    draws: int
    total: int

    @property
    def least(self) -> int:
        return max(0, self.hits + self.draws - self.total)

    @property
    def most(self) -> int:
        return min(self.hits, self.draws)

    @property
    def mode(self) -> int:
        return (self.hits + 1) * (self.draws + 1) // (self.total + 2)

    def mirrored(self) -> _Margins:
        """Returns the same tables, counted by the hits among the values not drawn."""
        return _Margins(self.hits, self.total - self.draws, self.total)

    def as_unlikely(self, x: int) -> int:
        """Returns the least count above the mode that is no likelier than x, or `most` + 1."""
        limit = self.log_probability(x) + _TIE

        def unlikely(count: int) -> bool:
            return self.log_probability(count) <= limit

        # About as far above the mode as x lies below.
        low, step = self.mode, self.mode - x
        while low + step <= self.most and not unlikely(low + step):
            low, step = low + step, 2 * step
        counts = range(low + 1, min(low + step, self.most + 1))
        return counts.start + bisect_left(counts, True, key=unlikely)

    def log_probability(self, x: int) -> float:
        """Returns the log of the chance of x hits among the draws."""
        # ln y! = y ln y - y + _rest(y): the first two terms of all nine factorials come to the
        # deviance of the four cells from their expectations, all by the same excess.
        missed, left = self.total - self.hits, self.total - self.draws
        cells = (x, self.hits - x, self.draws - x, missed - self.draws + x)
        margins = (self.hits, missed, self.draws, left)
        products = (
            self.hits * self.draws,
            self.hits * left,
            missed * self.draws,
            missed * left,
        )
        excess = x * self.total - self.hits * self.draws
        deviance = math.fsum(
            cell * math.log1p(sign * excess / product)
            for cell, product, sign in zip(cells, products, (1, -1, -1, 1), strict=True)
            if cell
        )
        rests = [*map(_rest, margins), -_rest(self.total), *(-_rest(cell) for cell in cells)]
        return math.fsum([*rests, -deviance])

    def lower_tail(self, x: int) -> float:
        """Returns the chance of at most x hits, for x below the mode."""
        chance, total, term = math.exp(self.log_probability(x)), 1.0, 1.0
        while x > self.least and term > total * _NEGLIGIBLE:
            steps_t = np.arange(x, max(self.least, x - _TERMS), -1, dtype=np.float64)
            terms_t = term * np.cumprod(self._ratios(steps_t))
            total += math.fsum(terms_t[terms_t > total * _LOST].tolist())
            term = float(terms_t[-1])
            x -= steps_t.size
        return chance * total

    def _ratios(self, counts_t: Floats) -> Floats:
        """Returns the chance of one hit less over that of `counts_t`."""
        missed_t = self.total - self.hits - self.draws + counts_t
        return counts_t * missed_t / ((self.hits - counts_t + 1) * (self.draws - counts_t + 1))


def _rest(y: int) -> float:
    """Returns ln y! - y ln y + y."""
    if y < _SMALL:
        return math.lgamma(y + 1) - (y * math.log(y) if y else 0.0) + y
    series = (1 / 12 - (1 / 360 - 1 / (1260 * y * y)) / (y * y)) / y
    return math.log(2 * math.pi * y) / 2 + series
