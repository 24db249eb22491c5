"""Values that are far more frequent than those around them, as defaults and imputed means are.

Suffixes: `_b` buckets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.divergences import shares
from batchscore.drift.ordered import Aligned

Floats = NDArray[np.float64]

LEAST = 0.05  # of the values on either side
TIMES = 5  # as frequent as the buckets next to it


def spikes(aligned: Aligned, coarse_b: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the buckets of frequent values of either side.

    Such a bucket is not coarse, has `LEAST` of a side's values, and more than `TIMES` as many of
    them as each bucket next to it. ValueError where a side is empty.
    """
    may_b = ~coarse_b & np.isfinite(aligned.places_b)
    found_b = np.zeros(may_b.size, np.bool_)
    for share_b in shares(aligned.p_b, aligned.q_b):
        found_b |= (share_b >= LEAST) & (share_b > TIMES * _around(share_b))
    return np.flatnonzero(found_b & may_b)


def _around(share_b: Floats) -> Floats:
    """Returns the larger of the shares next to each bucket."""
    padded = np.r_[0.0, share_b, 0.0]
    around_b: Floats = np.maximum(padded[:-2], padded[2:])
    return around_b
