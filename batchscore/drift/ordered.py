"""Compare two samples of numbers by their order and their distance, from histograms.

Suffixes: `_b` buckets that both samples share, `_s` buckets of one sample, `_o` octaves, `_k` bins,
`_e` their ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchscore.drift.divergences import require_both
from batchscore.drift.fisher import fisher_p
from batchscore.drift.ordering import OCTAVES, Keys, KeySpace, run_starts

if TYPE_CHECKING:
    from batchscore.drift.histogram import Buckets
    from batchscore.drift.numbers import Numbers

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

DECILES = 10
HEAVY = 20  # a value with one of so many of the reference's values has a bin of its own
TAIL = 200  # one value in so many lies outside either edge of the reference
FINE = 0.02  # standard deviations; what moves by less, within a bucket, is a fifth of W1's warning


@dataclass(frozen=True)
class Aligned:
    """Two samples of numbers counted in the same buckets, in ascending order.

    Args:
        lows_b: Smallest value that a bucket may hold, within the range of both samples; large
            integers are rounded, so that neighbours may look equal.
        highs_b: Largest value that a bucket may hold, likewise.
        p_b: The reference's count.
        q_b: The current count; one of both is above 0.
        places_b: The middle of a bucket, less a constant for integers, which keeps differences of
            large ones precise.
        widths_b: Largest less smallest value of a bucket; 0 only where they are the same.
    """

    lows_b: Floats
    highs_b: Floats
    p_b: Counts
    q_b: Counts
    places_b: Floats
    widths_b: Floats

    @property
    def exact(self) -> bool:
        """Whether each bucket holds one value only, so that every statistic is exact."""
        return not self.widths_b.any()

    @classmethod
    def of_values(cls, values_b: Floats, p_b: Counts, q_b: Counts) -> Aligned:
        """Returns the samples that have each of the ascending `values_b` so many times."""
        return cls(values_b, values_b, p_b, q_b, values_b, np.zeros(values_b.size))


@dataclass(frozen=True)
class Wasserstein:
    """The Wasserstein-1 distance of two samples, as multiples of the reference's spread.

    A figure is None where the spread is 0 or infinite, or the distance is infinite.

    Args:
        clipped_over_sigma: Both samples clipped to the edges of `clipped_places`, over the
            clipped reference's population standard deviation.
        j_over_sigma: The integral of sqrt(F (1 - F)) of both clipped samples pooled, over the
            same; noise moves the distance by about this / sqrt(n).
        over_sigma: Unclipped, over the reference's population standard deviation.
        over_iqr: Unclipped, over the reference's interquartile range.
    """

    clipped_over_sigma: float | None
    j_over_sigma: float | None
    over_sigma: float | None
    over_iqr: float | None


def align_numbers(reference: Numbers, current: Numbers) -> Aligned:
    """Returns both samples in buckets of the coarser resolution of each octave.

    Infinite values are a bucket at either end, and so are, together with them, those out of a
    probability's range. Raises ValueError where the keys of the two cannot be compared.
    """
    space = reference.histogram.space
    if space.name != current.histogram.space.name:
        raise ValueError(
            f"{reference.type} has {space.name} keys and {current.type} has "
            f"{current.histogram.space.name} keys; cast one to the other's type to compare them"
        )
    both = reference.histogram.buckets(), current.histogram.buckets()
    edges_b, p_b, q_b, shifts_b = _common(space, *both)
    ranges = [side.histogram.key_range for side in (reference, current)]
    keys = [key for range_ in ranges if range_ is not None for key in range_]
    below = [side.neg_inf + side.below for side in (reference, current)]
    above = [side.pos_inf + side.above for side in (reference, current)]
    aligned = _placed(space, edges_b, shifts_b, keys, p_b, q_b)
    return _with_end(_with_end(aligned, -math.inf, below), math.inf, above)


def decile_bins(aligned: Aligned) -> tuple[Counts, Counts]:
    """Returns counts of both sides in k <= 19 bins that the reference's deciles cut.

    ValueError where the reference is empty; see `decile_starts`.
    """
    starts_k = decile_starts(aligned)
    return np.add.reduceat(aligned.p_b, starts_k), np.add.reduceat(aligned.q_b, starts_k)


def decile_starts(aligned: Aligned) -> NDArray[np.intp]:
    """Returns the first bucket of each of k <= 19 bins that the reference's deciles cut.

    A cut is the right end of the bucket that holds the reference's rank ceil(i n / 10), and also
    its left end where the bucket holds n / 20 or more: else, where a frequent value begins at a
    decile, it would depend on chance whether it shares a bin with all below it. Values of a bin
    are above one cut and up to the next; end bins are open. ValueError where the reference is
    empty.
    """
    n = _require_reference(aligned)
    ranks = [-(-decile * n // DECILES) for decile in range(1, DECILES)]
    found_e = np.searchsorted(aligned.p_b.cumsum(), ranks)
    heavy_e = aligned.p_b[found_e] >= -(-n // HEAVY)
    cuts = np.unique(np.r_[0, found_e + 1, found_e[heavy_e]])
    return cuts[cuts < aligned.p_b.size]


def coarse_buckets(aligned: Aligned) -> NDArray[np.bool_]:
    """Returns which buckets (b,) are wider than `FINE`, in the reference's standard deviations.

    The deviation is that of the values clipped to the tail edges, or of all if those are one value.
    Without any, every bucket of several values is coarse. ValueError where the reference is empty.
    """
    counts_b = np.where(np.isfinite(aligned.places_b), aligned.p_b, 0)
    if not aligned.exact and counts_b.any():
        with np.errstate(over="ignore", invalid="ignore"):
            for places_b in (clipped_places(aligned), aligned.places_b):
                exponent = _exponent(aligned, places_b)
                sigma = _sigma(np.ldexp(places_b, -exponent), counts_b)
                if 0 < sigma < math.inf:
                    return np.asarray(np.ldexp(aligned.widths_b, -exponent) > FINE * sigma)
    return np.asarray(aligned.widths_b > 0)


def ks(aligned: Aligned, coarse_b: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Returns bounds that hold the Kolmogorov-Smirnov statistic of the samples themselves.

    The lower is what the buckets' ends show; the upper is how far the distributions may part
    within a bucket that both share. They are equal where no such bucket has several values.
    Raises ValueError where a side is empty.

    Args:
        aligned: The samples.
        coarse_b: The buckets whose width counts; by default each. With those of `coarse_buckets`
            the upper bound holds if values may move within the other buckets.
    """
    n, m = require_both(aligned.p_b, aligned.q_b)
    reference_b, current_b = aligned.p_b.cumsum() / n, aligned.q_b.cumsum() / m
    widest = np.abs(reference_b - current_b).argmax()
    p, q = int(aligned.p_b[: widest + 1].sum()), int(aligned.q_b[: widest + 1].sum())
    low = abs(p * m - q * n) / (n * m)  # rounded once, so that thresholds are met exactly
    wide_b = aligned.widths_b > 0 if coarse_b is None else coarse_b
    return low, max(low, float(partings(aligned)[wide_b].max(initial=0.0)))


def partings(aligned: Aligned) -> Floats:
    """Returns how far the two distributions may part within each bucket that both share, else 0."""
    n, m = require_both(aligned.p_b, aligned.q_b)
    reference_b, current_b = aligned.p_b.cumsum() / n, aligned.q_b.cumsum() / m
    earlier_reference_b = np.r_[0.0, reference_b[:-1]]
    earlier_current_b = np.r_[0.0, current_b[:-1]]
    parting_b = np.maximum(reference_b - earlier_current_b, current_b - earlier_reference_b)
    return np.where((aligned.p_b > 0) & (aligned.q_b > 0), parting_b, 0.0)


def tail_counts(aligned: Aligned) -> tuple[int, int]:
    """Returns how many reference and current values lie outside the reference's tail edges.

    The edges are the left end of the bucket with the reference's rank ceil(n / 200) from below
    and the right end of that with this rank from above. ValueError where the reference is empty.
    """
    _require_reference(aligned)
    first, last = _tail_buckets(aligned.p_b)
    outside = slice(0, first), slice(last + 1, None)
    p, q = (
        sum(int(side_b[part].sum()) for part in outside) for side_b in (aligned.p_b, aligned.q_b)
    )
    return p, q


def tail_p(aligned: Aligned) -> float:
    """Returns the p-value for the tail shares being the same; ValueError where a side is empty.

    Fisher's test with one reference value more than lies outside: the edges are values of the
    reference, and what lies beyond the i-th smallest is distributed as if i, not i - 1, did.
    """
    n, m = require_both(aligned.p_b, aligned.q_b)
    p, q = tail_counts(aligned)
    return fisher_p(min(p + 1, n), n, q, m)


def clipped_places(aligned: Aligned) -> Floats:
    """Returns the places (b,) of the buckets, clipped to the reference's tail edges.

    The edges are those of `tail_counts`, but of the reference's finite values, so that infinite
    ones become the nearest edge; all places are NaN where it has none. ValueError where it is
    empty.
    """
    _require_reference(aligned)
    finite_b = np.isfinite(aligned.places_b)
    if not aligned.p_b[finite_b].any():
        return np.full(finite_b.size, np.nan)
    first, last = _tail_buckets(np.where(finite_b, aligned.p_b, 0))
    low = aligned.places_b[first] - aligned.widths_b[first] / 2
    high = aligned.places_b[last] + aligned.widths_b[last] / 2
    return aligned.places_b.clip(low, high)


def wasserstein(aligned: Aligned) -> Wasserstein:
    """Returns the Wasserstein-1 distance; values lie in the middle of their bucket.

    Raises ValueError where a side is empty.
    """
    n, m = require_both(aligned.p_b, aligned.q_b)
    reference_b, current_b = aligned.p_b.cumsum() / n, aligned.q_b.cumsum() / m
    pooled_b = (aligned.p_b + aligned.q_b).cumsum() / (n + m)
    apart_b, spread_b = np.abs(reference_b - current_b), np.sqrt(pooled_b * (1 - pooled_b))
    with np.errstate(over="ignore", invalid="ignore"):
        clipped_b = _scaled(aligned, clipped_places(aligned))
        clipped_sigma = _sigma(clipped_b, aligned.p_b)
        places_b = _scaled(aligned, aligned.places_b)
        distance = _integral(places_b, apart_b)
        return Wasserstein(
            clipped_over_sigma=_over(_integral(clipped_b, apart_b), clipped_sigma),
            j_over_sigma=_over(_integral(clipped_b, spread_b), clipped_sigma),
            over_sigma=_over(distance, _sigma(places_b, aligned.p_b)),
            over_iqr=_over(distance, _quartile_range(places_b, aligned.p_b)),
        )


def _common(
    space: KeySpace, reference: Buckets, current: Buckets
) -> tuple[Keys, Counts, Counts, NDArray[np.uint8]]:
    """Returns left edges, both counts and shifts of the buckets that hold those of both."""
    shifts_o = np.zeros(OCTAVES, np.uint8)
    for side in (reference, current):
        octaves_b = space.octave(side.first_keys_b)
        shifts_o[octaves_b] = np.maximum(shifts_o[octaves_b], side.shifts_b)
    coarse = [_coarsened(space, side, shifts_o) for side in (reference, current)]
    edges_b = _distinct(np.concatenate(coarse))
    p_b, q_b = (
        _counted(edges_b, edges_s, side.counts_b)
        for edges_s, side in zip(coarse, (reference, current), strict=True)
    )
    return edges_b, p_b, q_b, shifts_o[space.octave(edges_b)]


def _distinct(edges_n: Keys) -> Keys:
    """Returns what `np.unique` does, which hashes first and takes several times as long."""
    edges_n = np.sort(edges_n)
    return edges_n[run_starts(edges_n)]


def _coarsened(space: KeySpace, side: Buckets, shifts_o: NDArray[np.uint8]) -> Keys:
    edges_s = side.first_keys_b
    shifts_s = shifts_o[space.octave(edges_s)]
    coarse_s: Keys = edges_s >> shifts_s << shifts_s
    return coarse_s


def _counted(edges_b: Keys, edges_s: Keys, counts_s: Counts) -> Counts:
    counts_b = np.zeros(edges_b.size, np.int64)
    np.add.at(counts_b, np.searchsorted(edges_b, edges_s), counts_s)
    return counts_b


def _placed(
    space: KeySpace,
    edges_b: Keys,
    shifts_b: NDArray[np.uint8],
    keys: list[int],
    p_b: Counts,
    q_b: Counts,
) -> Aligned:
    """Returns buckets with their values; `keys` hold the smallest and the largest of both sides."""
    ends = np.array([min(keys, default=0), max(keys, default=0)], np.uint64)
    masks_b = (np.uint64(1) << shifts_b.astype(np.uint64)) - np.uint64(1)
    firsts_b, lasts_b = edges_b.clip(*ends), (edges_b | masks_b).clip(*ends)
    lows_b, highs_b = (space.decode(keys_b).astype(np.float64) for keys_b in (firsts_b, lasts_b))
    if space.dtype.kind == "f":
        widths_b, offsets_b = highs_b - lows_b, lows_b
    else:
        widths_b, offsets_b = (lasts_b - firsts_b) * 1.0, (firsts_b - ends[0]) * 1.0
    return Aligned(lows_b, highs_b, p_b, q_b, offsets_b + widths_b / 2, widths_b)


def _with_end(aligned: Aligned, value: float, counts: list[int]) -> Aligned:
    """Returns `aligned` with a further bucket of an infinite value, where it was counted."""
    if not any(counts):
        return aligned

    def joined(rows_b: NDArray[Any], end: float) -> NDArray[Any]:
        return np.insert(rows_b, 0 if value < 0 else rows_b.size, end)

    return Aligned(
        joined(aligned.lows_b, value),
        joined(aligned.highs_b, value),
        joined(aligned.p_b, counts[0]),
        joined(aligned.q_b, counts[1]),
        joined(aligned.places_b, value),
        joined(aligned.widths_b, 0),
    )


def _require_reference(aligned: Aligned) -> int:
    n = int(aligned.p_b.sum())
    if not n:
        raise ValueError("the reference has no values; quantiles need at least one")
    return n


def _tail_buckets(counts_b: Counts) -> tuple[int, int]:
    n = int(counts_b.sum())
    rank = -(-n // TAIL)
    first, last = np.searchsorted(counts_b.cumsum(), [rank, n + 1 - rank]).tolist()
    return first, last


def _scaled(aligned: Aligned, places_b: Floats) -> Floats:
    """Returns places scaled by the power of two that brings the reference's below 1."""
    # Exact, and it keeps squares and differences of the largest and smallest floats in range.
    scaled_b: Floats = np.ldexp(places_b, -_exponent(aligned, places_b))
    return scaled_b


def _exponent(aligned: Aligned, places_b: Floats) -> int:
    of_reference_b = np.abs(places_b[(aligned.p_b > 0) & np.isfinite(places_b)])
    return int(np.frexp(of_reference_b.max(initial=0.0))[1])


def _integral(places_b: Floats, heights_b: Floats) -> float:
    """Returns the area under `heights_b`, each from its place to the next."""
    areas_b = heights_b[:-1] * np.diff(places_b)
    return math.fsum(areas_b[heights_b[:-1] > 0].tolist())


def _sigma(places_b: Floats, counts_b: Counts) -> float:
    places_b, counts_b = places_b[counts_b > 0], counts_b[counts_b > 0]
    if not np.isfinite(places_b).all():
        return math.inf
    n = int(counts_b.sum())
    from_first_b = places_b - places_b[0]
    from_mean_b = from_first_b - math.fsum((from_first_b * counts_b).tolist()) / n
    return math.sqrt(math.fsum((from_mean_b**2 * counts_b).tolist()) / n)


def _quartile_range(places_b: Floats, counts_b: Counts) -> float:
    n = int(counts_b.sum())
    found = np.searchsorted(counts_b.cumsum(), [-(-n // 4), -(-3 * n // 4)])
    low, high = places_b[found].tolist()
    return float(high - low) if math.isfinite(low) and math.isfinite(high) else math.inf


def _over(distance: float, spread: float) -> float | None:
    if not 0 < spread < math.inf or not math.isfinite(distance):
        return None
    ratio = distance / spread
    return ratio if math.isfinite(ratio) else None
