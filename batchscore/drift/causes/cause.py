"""A cause that may lie behind a change, and how much of the change it explains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LEAST = 0.8
"""The share of a change that a cause has to explain to be named."""
SIGMAS = 5.0
"""How many standard errors a share must move by before anything is said of it."""
LEAST_SHARE = 0.002
"""How much a share must move by."""
_CLOSE = 0.05


@dataclass(frozen=True)
class LikelyCause:
    """What may lie behind a change.

    Args:
        words: What it is, with a guess in parentheses.
        explained: The share of the change that is no longer there once the cause is taken away.
        rank: Which of causes that explain the same comes first; the smallest.
    """

    words: str
    explained: float = 1.0
    rank: int = 0


def best(causes: Iterable[LikelyCause]) -> LikelyCause | None:
    """Returns the cause that explains most; of those that explain about the same the plainest."""
    enough = [each for each in causes if each.explained >= LEAST]
    most = max((each.explained for each in enough), default=0.0)
    near = [each for each in enough if each.explained >= most - _CLOSE]
    return min(near, key=lambda each: (each.rank, -each.explained), default=None)


def moved(before: float, rows_before: int, now: float, rows_now: int) -> bool:
    """Returns whether a share moved by more than chance, and by enough to speak of.

    Args:
        before: The share in the reference.
        rows_before: Of so many rows.
        now: The share in the current data.
        rows_now: Of so many.
    """
    if not rows_before or not rows_now:
        return False
    pooled = (before * rows_before + now * rows_now) / (rows_before + rows_now)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows_before + 1 / rows_now))
    return abs(now - before) >= max(LEAST_SHARE, SIGMAS * error)


def alike(first: float, second: float) -> bool:
    """Returns whether two shares are about the same."""
    return abs(first - second) <= 0.2 * max(first, second)


def share_words(share: float) -> str:
    """Returns a share for people."""
    return f"{100 * share:.2g} %" if share < 0.995 else "all"
