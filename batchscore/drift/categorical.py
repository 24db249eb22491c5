"""Compare two samples of categories: by value, or by fold and a sample of the values.

Suffixes: `_c` cells, which are values or folds; `_v` values by hash, `_u` those that the reference
has not, `_s` values of one sample, `_f` folds, `_k` cells once rare ones are pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.divergences import require_both, shares

if TYPE_CHECKING:
    from batchscore.drift.categories import Categories

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

EXACT = 4096  # distinct values up to which each has its count
RARE = 5  # expected count below which chi-square's distribution does not hold
_HEAVY = 3  # a fold with so many times the usual rows has one value with the others'

_HASHES = 2**64


@dataclass(frozen=True)
class AlignedCategories:
    """Two samples of categories, counted alike.

    A cell is a value where both sides have exact counts, else a fold: all values of one remainder
    of the hash. Folds miss only what moves between values of one fold.

    Args:
        cell_c: Hash of each cell's value, ascending, or the fold's number.
        p_c: The reference's count by cell; sums to all its values.
        q_c: The current count by cell.
        hash_v: The values of which either side has a count of their own, by ascending hash: all,
            or those of a common sample.
        p_v: The reference's count by value.
        q_v: The current count by value.
        sampled: Share of all hashes that the values are sampled from; 1 where they are all.
        exact: Whether cells are values.
    """

    cell_c: Hashes
    p_c: Counts
    q_c: Counts
    hash_v: Hashes
    p_v: Counts
    q_v: Counts
    sampled: float
    exact: bool


@dataclass(frozen=True)
class Unseen:
    """The current values that the reference has not, and how many that may well be.

    Args:
        share: `u`, the share of current rows whose value the reference has not.
        f1: Values that the reference has once; an estimate where values are sampled.
        f2: Values that it has twice, likewise.
        expected: f1 / n, the share to be expected without any change, by Good and Turing.
        variance: Variance of `share - expected`: u (1 - u) / m + (f1 + 2 f2 + 1) / n**2, and where
            values are sampled what the choice of the sample adds.
        of_sample: That part of the variance.
    """

    share: float
    f1: float
    f2: float
    expected: float
    variance: float
    of_sample: float


@dataclass(frozen=True)
class CategoryChanges:
    """Counts and shares of each cell; see `AlignedCategories`.

    Args:
        cell_c: Hash of the value, or number of the fold.
        p_c: The reference's count, of n.
        q_c: The current count, of m.
        p_share_c: The reference's share.
        q_share_c: The current share.
        n: The reference's rows.
        m: The current rows.
        folded: Whether cells are folds.
    """

    cell_c: Hashes
    p_c: Counts
    q_c: Counts
    p_share_c: Floats
    q_share_c: Floats
    n: int
    m: int
    folded: bool


def align_categories(reference: Categories, current: Categories) -> AlignedCategories:
    """Returns the counts of both by value where both are exact, else by fold and by sample."""
    (p_hash_s, p_count_s, p_limit), (q_hash_s, q_count_s, q_limit) = (
        side.sample() for side in (reference, current)
    )
    limit = min(p_limit, q_limit)
    hash_v = np.union1d(p_hash_s, q_hash_s)
    hash_v = hash_v[: _below(hash_v, limit)]
    p_v, q_v = _counted(hash_v, p_hash_s, p_count_s), _counted(hash_v, q_hash_s, q_count_s)
    if not reference.folded and not current.folded:
        return AlignedCategories(hash_v, p_v, q_v, hash_v, p_v, q_v, 1.0, True)
    p_f, q_f = reference.folds(), current.folds()
    folds_f = np.arange(p_f.size, dtype=np.uint64)
    return AlignedCategories(folds_f, p_f, q_f, hash_v, p_v, q_v, limit / _HASHES, False)


def pool_rare(p_c: Counts, q_c: Counts) -> tuple[Counts, Counts]:
    """Returns the counts with all rare cells in one, the last, on both sides.

    Raises ValueError where a side is empty; see `is_rare`.
    """
    rare_c = is_rare(p_c, q_c)
    if not rare_c.any():
        return p_c, q_c
    p_k, q_k = (np.r_[side_c[~rare_c], side_c[rare_c].sum()] for side_c in (p_c, q_c))
    return p_k, q_k


def is_rare(p_c: Counts, q_c: Counts) -> NDArray[np.bool_]:
    """Returns which cells have a pooled expected count, (p + q) min(n, m) / (n + m), below `RARE`.

    Raises ValueError where a side is empty.
    """
    n, m = require_both(p_c, q_c)
    rare_c: NDArray[np.bool_] = p_c + q_c < -(-RARE * (n + m) // min(n, m))
    return rare_c


def unseen(aligned: AlignedCategories) -> Unseen:
    """Returns the share of current rows with values that the reference has not.

    Where values are sampled, counts of the sample over the share of hashes sampled estimate those
    of all (Horvitz-Thompson). The choice of the sample then adds to the variance the sum of the
    sample's squared contributions to `share - expected`, times (1 - sampled) / sampled**2; a
    single frequent value outside the sample goes unseen here, and shows in its fold's change.
    Raises ValueError where a side is empty.
    """
    n, m = require_both(aligned.p_c, aligned.q_c)
    counts_u = aligned.q_v[aligned.p_v == 0]
    once, twice = (int(np.count_nonzero(aligned.p_v == times)) for times in (1, 2))
    sampled = aligned.sampled
    share = min(1.0, int(counts_u.sum()) / sampled / m)
    of_current = share * (1 - share) / m
    of_reference = (once + 2 * twice + 1) / sampled / n**2
    squares = math.fsum(((counts_u / m) ** 2).tolist()) + once / n**2
    of_sample = squares * (1 - sampled) / sampled**2
    f1, f2 = once / sampled, twice / sampled
    variance = of_current + of_reference + of_sample
    return Unseen(share, f1, f2, f1 / n, variance, of_sample)


def seen_share(aligned: AlignedCategories) -> float:
    """Returns which share of a change among values shows in their folds; 1 where cells are values.

    Where each value's share changes by a factor of its own, squared distances of folds are on
    average those of the values times this: the mean, over rows, of their value's share of its
    fold. A fold with far more rows than most has one frequent value; the sample tells of others.
    """
    if aligned.exact:
        return 1.0
    rows_f = aligned.p_c + aligned.q_c
    usual = float(np.median(rows_f))
    heavy_f = rows_f > _HEAVY * usual
    frequent = ((rows_f[heavy_f] - usual) ** 2 / rows_f[heavy_f]).sum()
    fold_v = (aligned.hash_v % np.uint64(rows_f.size)).astype(np.intp)
    light_v = ~heavy_f[fold_v]
    rows_v = (aligned.p_v + aligned.q_v)[light_v]
    of_fold = (rows_v**2 / rows_f[fold_v[light_v]]).sum() / max(1, int(rows_v.sum()))
    return float((frequent + of_fold * rows_f[~heavy_f].sum()) / rows_f.sum())


def distinct_values(aligned: AlignedCategories) -> int:
    """Returns how many values both sides have together, an estimate where they are sampled."""
    return round(aligned.hash_v.size / aligned.sampled)


def category_changes(aligned: AlignedCategories) -> CategoryChanges:
    """Returns each cell's counts and shares; ValueError where a side is empty.

    With folds, a value's change is its fold's, but for what the fold's other values change.
    """
    n, m = require_both(aligned.p_c, aligned.q_c)
    p_share_c, q_share_c = shares(aligned.p_c, aligned.q_c)
    return CategoryChanges(
        aligned.cell_c,
        aligned.p_c,
        aligned.q_c,
        p_share_c,
        q_share_c,
        n,
        m,
        folded=not aligned.exact,
    )


def _below(hash_v: Hashes, limit: int) -> int:
    return hash_v.size if limit >= _HASHES else int(np.searchsorted(hash_v, np.uint64(limit)))


def _counted(hash_v: Hashes, hash_s: Hashes, count_s: Counts) -> Counts:
    """Returns the counts of `hash_v`, 0 where `hash_s` lacks them; both ascend."""
    counts_v = np.zeros(hash_v.size, np.int64)
    _, found_v, found_s = np.intersect1d(hash_v, hash_s, assume_unique=True, return_indices=True)
    counts_v[found_v] = count_s[found_s]
    return counts_v
