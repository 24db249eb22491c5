"""The difference of two shares, and Fisher's exact test of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from batchscore.drift.findings import Shares
from batchscore.drift.fisher import deviance, fisher_p
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.measures.noise import chi2_floor

_HALVINGS = 40


def compare_shares(a: int, n: int, b: int, m: int) -> Difference:
    """Returns the difference of the shares a of n and b of m, judged by Fisher's exact test."""
    return Difference(
        abs(b / m - a / n),
        shares_floor(a, n, b, m),
        chance=fisher_p(a, n, b, m),
        detail=f"{percent(a / n)} → {percent(b / m)}",
        shares=Shares(a / n, b / m),
    )


def shares_floor(a: int, n: int, b: int, m: int) -> Callable[[float], float]:
    """Returns how far, about, b / m must be from a / n to be more than noise in Fisher's test.

    The direction is that of b / m. If no share there is far enough, it is the other one. The
    deviance is compared with chi-square. One count of the smaller side is added, since counts are
    discrete. This is within a few counts of the test itself, which would need a search.
    """

    def floor(alpha: float) -> float:
        limit = chi2_floor(alpha, 1)
        for end in (1.0, 0.0) if b * n >= a * m else (0.0, 1.0):
            if deviance(a, n, end, m) >= limit:
                return abs(_share_beyond(a, n, m, end, limit) - a / n) + 1 / min(n, m)
        return math.inf

    return floor


def _share_beyond(a: int, n: int, m: int, end: float, limit: float) -> float:
    """Returns the share nearest a / n, in the direction of `end`, whose deviance is `limit`."""
    within, beyond = a / n, end
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        if deviance(a, n, middle, m) >= limit:
            beyond = middle
        else:
            within = middle
    return beyond


def percent(share: float) -> str:
    """Returns a share for people."""
    return f"{100 * share:.3g} %"
