"""How many threads a network's tiles are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

WORTH_S = 0.0005


@dataclass
class Pace:
    """What tiles took so far.

    Between a network's operations threads take turns with the interpreter: several of them put
    quick tiles through no faster than one, and make the profile and the writer wait.

    Args:
        worth_s: Seconds that a tile must take for each thread that is used; 0: all are used.
        least_s: Seconds of the quickest tile that was timed.
        others_s: Seconds of threads other than the caller's, since they were last taken.
    """

    worth_s: float = 0.0
    least_s: float = math.inf
    others_s: float = 0.0

    def threads(self, tile_s: float, most: int) -> int:
        """Returns how many of `most` threads to use after a tile that took so many seconds."""
        self.least_s = min(self.least_s, tile_s)
        if self.worth_s:
            most = int(min(most, self.least_s / self.worth_s))
        return max(1, most)

    def take_others_s(self) -> float:
        """Returns the seconds of other threads, and sets their count to zero."""
        others_s, self.others_s = self.others_s, 0.0
        return others_s
