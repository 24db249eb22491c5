"""The measures of two accumulators of one kind, each with its test against noise.

s = 1/n + 1/m, where n and m count the values of reference and current.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batchscore.drift import divergences
from batchscore.drift.categorical import (
    AlignedCategories,
    CategoryChanges,
    category_changes,
    pool_rare,
    unseen,
)
from batchscore.drift.fisher import fisher_p
from batchscore.drift.ordered import (
    Aligned,
    clipped_places,
    decile_bins,
    ks,
    tail_counts,
    tail_p,
    wasserstein,
)
from batchscore.drift.vectors import Vectors, frechet, mean_shift, mmd, mmd_floor
from batchscore.drift.verdict import Difference

Counts = NDArray[np.int64]

_BITS = 8 * math.log(2)  # a squared Jensen-Shannon distance over s, times this, is a chi-square
_FREQUENT, _RISE = 0.01, 3  # a category with this share that has become so many times as frequent
_LARGEST, _LEAST = 10, 0.01  # so many changes of so much are tested beside the largest, and rises
_HALVINGS = 40


def compare_numbers(aligned: Aligned) -> tuple[Difference, ...]:
    """Returns the measures of two samples of numbers; without values, where a side is empty."""
    n, m = int(aligned.p_b.sum()), int(aligned.q_b.sum())
    if not n or not m:
        return _undecided("psi", "ks")
    ordered = (_ks(aligned, n, m), *_wasserstein(aligned, n, m), _tail(aligned, n, m))
    return (*_binned(*decile_bins(aligned)), *ordered)


def compare_nulls(missing: int, rows: int, missing_now: int, rows_now: int) -> Difference:
    """Returns the null rate's measure; without a value, where a side has no rows."""
    if not rows or not rows_now:
        return _undecided("null_rate")[0]
    return _compare_shares("null_rate", missing, rows, missing_now, rows_now)


def compare_categories(
    aligned: AlignedCategories, label: Callable[[int], str]
) -> tuple[Difference, ...]:
    """Returns the measures of two samples of categories; without values, where a side is empty.

    Args:
        aligned: the counts.
        label: names a cell of them for people.
    """
    if not aligned.p_c.any() or not aligned.q_c.any():
        return _undecided("psi")
    pooled = pool_rare(aligned.p_c, aligned.q_c)
    changes = _changes(category_changes(aligned), label)
    return (*_binned(*pooled), _unseen(aligned), *changes)


def compare_vectors(reference: Vectors, current: Vectors) -> tuple[Difference, ...]:
    """Returns the measures of two samples of vectors; without values, where a side has under 2."""
    if min(reference.n, current.n) < 2:
        return _undecided("mmd")
    return (
        Difference("mmd", mmd(reference, current), partial(_mmd_floor, reference, current)),
        Difference("mean_shift", mean_shift(reference, current)),
        Difference("frechet", frechet(reference, current)),
    )


def _mmd_floor(reference: Vectors, current: Vectors, alpha: float) -> float:
    floor = mmd_floor(reference, current, alpha)
    return math.inf if floor is None else floor


def _undecided(*names: str) -> tuple[Difference, ...]:
    return tuple(Difference(name, None, lambda alpha: math.inf) for name in names)


def _ks(aligned: Aligned, n: int, m: int) -> Difference:
    (low, high), s = ks(aligned), _s(n, m)
    return Difference(
        "ks",
        low,
        lambda alpha: math.sqrt(-math.log(alpha / 2) / 2 * s),
        low=low,
        high=high,
    )


def _wasserstein(aligned: Aligned, n: int, m: int) -> tuple[Difference, ...]:
    distance, s = wasserstein(aligned), _s(n, m)
    shown = (
        Difference("w1_unclipped", distance.over_sigma),
        Difference("w1_iqr", distance.over_iqr),
    )
    effect, spread = distance.clipped_over_sigma, distance.j_over_sigma
    if effect is None or spread is None:
        return (_no_distance(aligned), *shown)
    expected, scale = math.sqrt(2 / math.pi) * spread, _pooled_scale(aligned)

    def floor(alpha: float) -> float:
        return math.sqrt(s) * (expected + scale * math.sqrt(-2 * math.log(alpha)))

    return Difference("w1", effect, floor), *shown


def _no_distance(aligned: Aligned) -> Difference:
    """Returns Wasserstein's distance without a value: undecided, unless there is one value only."""
    if aligned.exact and aligned.p_b.size == 1:
        return Difference("w1", None)
    undecided = _undecided("w1")[0]
    return replace(undecided, detail="the reference's clipped values have no spread")


def _pooled_scale(aligned: Aligned) -> float:
    """Returns the standard deviation of both clipped samples pooled over the reference's, if more.

    A small reference may by chance have a far smaller one than what it was drawn from, as where
    most values are 0 and the others few; noise goes by the latter.
    """
    places_b = clipped_places(aligned)
    with np.errstate(over="ignore", invalid="ignore"):
        units_b = (places_b - places_b[0]) / (places_b[-1] - places_b[0])
    variance = _variance(units_b, aligned.p_b)
    pooled = _variance(units_b, aligned.p_b + aligned.q_b)
    return math.sqrt(pooled / variance) if pooled > variance > 0 else 1.0


def _variance(units_b: NDArray[np.float64], counts_b: Counts) -> float:
    n = int(counts_b.sum())
    mean = math.fsum((units_b * counts_b).tolist()) / n
    return math.fsum(((units_b - mean) ** 2 * counts_b).tolist()) / n


def _tail(aligned: Aligned, n: int, m: int) -> Difference:
    outside, outside_now = tail_counts(aligned)
    floor = shares_floor(min(outside + 1, n), n, outside_now, m)
    return replace(
        _compare_shares("tail", outside, n, outside_now, m),
        # The edges are values of the reference itself, which leaves one value more outside.
        floor=lambda alpha: floor(alpha) + 1 / n,
        chance=tail_p(aligned),
    )


def _unseen(aligned: AlignedCategories) -> Difference:
    found, n = unseen(aligned), int(aligned.p_c.sum())

    def floor(alpha: float) -> float:
        # A normal distribution has no room for the one value of share x that n rows may miss with
        # a chance of exp(-n x); there are at most n of such x.
        missed = math.log(n / alpha) / (n * aligned.sampled)
        return _normal_floor(alpha) * math.sqrt(found.variance) + missed

    return Difference(
        "unseen",
        max(0.0, found.share - found.expected),
        floor,
        detail=f"{percent(found.share)}, {percent(found.expected)} expected",
    )


def _changes(changes: CategoryChanges, label: Callable[[int], str]) -> list[Difference]:
    """Returns the largest changes, the largest first, and categories that became frequent."""
    change_c = np.abs(changes.q_share_c - changes.p_share_c)
    risen_c = (changes.q_share_c >= _FREQUENT) & (changes.q_share_c >= _RISE * changes.p_share_c)
    largest_v = np.argsort(-change_c, kind="stable")
    tested_v = risen_c[largest_v]
    tested_v[:_LARGEST] |= change_c[largest_v[:_LARGEST]] >= _LEAST
    tested_v[0] = True
    return [
        _change(changes, cell, label(int(changes.cell_c[cell])), bool(risen_c[cell]))
        for cell in largest_v[tested_v].tolist()
    ]


def _change(changes: CategoryChanges, cell: int, name: str, risen: bool) -> Difference:
    p, q, cells = int(changes.p_c[cell]), int(changes.q_c[cell]), changes.cell_c.size
    shares = _compare_shares("category", p, changes.n, q, changes.m)
    assert shares.chance is not None
    return replace(
        shares,
        floor=lambda alpha: shares.floor(alpha / cells) if shares.floor else math.inf,
        chance=min(1.0, shares.chance * cells),
        detail=f"{name}: {shares.detail}" + (f", {_RISE} times as often" if risen else ""),
        warns=risen,
    )


def _binned(p_k: Counts, q_k: Counts) -> tuple[Difference, ...]:
    """Returns the measures of two samples in bins: PSI, and what takes part only where asked for.

    Their test is one: the Jensen-Shannon distance of the smoothed shares that PSI is made of,
    whose square over s is about a chi-square. PSI itself has too heavy a tail for that, and so
    have the unsmoothed distances, the Hellinger distance most, where many bins have few counts.
    """
    js2, bins = divergences.smoothed_js2(p_k, q_k)
    s, freedom = _s(int(p_k.sum()), int(q_k.sum())), max(1, bins - 1)
    chance = _chi2_chance(_BITS * js2 / s, freedom)
    statistic, _, p_value = divergences.chi2(p_k, q_k)

    def floor(factor: float, power: float, alpha: float) -> float:
        return float((_chi2_floor(alpha, freedom) * s / factor) ** power)

    return (
        Difference("psi", divergences.psi(p_k, q_k), partial(floor, 1, 1), chance),
        Difference("js", divergences.js_distance(p_k, q_k), partial(floor, _BITS, 0.5), chance),
        Difference("hellinger", divergences.hellinger(p_k, q_k), partial(floor, 8, 0.5), chance),
        Difference("total_variation", divergences.total_variation(p_k, q_k)),
        Difference("l_infinity", divergences.l_infinity(p_k, q_k)),
        Difference("chi2", statistic, detail=f"{bins} bins, p {p_value:.3g}"),
        Difference("cramers_v", divergences.cramers_v(p_k, q_k)),
    )


def _compare_shares(name: str, a: int, n: int, b: int, m: int) -> Difference:
    """Returns the difference of the shares a of n and b of m, judged by Fisher's exact test."""
    return Difference(
        name,
        abs(b / m - a / n),
        shares_floor(a, n, b, m),
        chance=fisher_p(a, n, b, m),
        detail=f"{percent(a / n)} → {percent(b / m)}",
    )


def shares_floor(a: int, n: int, b: int, m: int) -> Callable[[float], float]:
    """Returns about how far b / m has to be off a / n before Fisher's test takes it for more.

    In the direction that it is off, else, where no share would be far enough, in the other. The
    deviance is held against chi-square, and a count of the smaller side is added for what is
    discrete: within a few counts of the test itself, which would have to be searched.
    """

    def floor(alpha: float) -> float:
        limit = _chi2_floor(alpha, 1)
        for end in (1.0, 0.0) if b * n >= a * m else (0.0, 1.0):
            if _deviance(a, n, end, m) >= limit:
                return abs(_share_beyond(a, n, m, end, limit) - a / n) + 1 / min(n, m)
        return math.inf

    return floor


def _share_beyond(a: int, n: int, m: int, end: float, limit: float) -> float:
    """Returns the share nearest a / n, in the direction of `end`, whose deviance is `limit`."""
    within, beyond = a / n, end
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        if _deviance(a, n, middle, m) >= limit:
            beyond = middle
        else:
            within = middle
    return beyond


def _deviance(a: int, n: int, share: float, m: int) -> float:
    """Returns the deviance of the shares a / n and `share` of m from one common share."""
    pooled = (a + share * m) / (n + m)
    cells = [
        (size, p, q)
        for size, hits in ((n, a / n), (m, share))
        for p, q in ((hits, pooled), (1 - hits, 1 - pooled))
    ]
    return 2 * sum(size * p * math.log(p / q) for size, p, q in cells if p > 0 and q > 0)


def percent(share: float) -> str:
    """Returns a share for people."""
    return f"{100 * share:.3g} %"


def _s(n: int, m: int) -> float:
    return 1 / n + 1 / m


def _normal_floor(alpha: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(alpha))


def _chi2_chance(statistic: float, freedom: int) -> float:
    # Imported late: the command line has to start without SciPy.
    from scipy.special import chdtrc

    return float(chdtrc(freedom, statistic))


def _chi2_floor(alpha: float, freedom: int) -> float:
    from scipy.special import chdtri

    return float(chdtri(freedom, alpha))
