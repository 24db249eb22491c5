"""The distances of two accumulators, gathered from the modules that define them."""

from __future__ import annotations

from batchscore.drift.categorical import (
    AlignedCategories,
    CategoryChanges,
    Unseen,
    align_categories,
    category_changes,
    pool_rare,
    unseen,
)
from batchscore.drift.divergences import (
    chi2,
    cramers_v,
    hellinger,
    js_distance,
    l_infinity,
    psi,
    smoothed_js2,
    total_variation,
)
from batchscore.drift.fisher import fisher_p
from batchscore.drift.ordered import (
    Aligned,
    Wasserstein,
    align_numbers,
    decile_bins,
    ks,
    tail_counts,
    tail_p,
    wasserstein,
)

__all__ = [
    "Aligned",
    "AlignedCategories",
    "CategoryChanges",
    "Unseen",
    "Wasserstein",
    "align_categories",
    "align_numbers",
    "category_changes",
    "chi2",
    "cramers_v",
    "decile_bins",
    "fisher_p",
    "hellinger",
    "js_distance",
    "ks",
    "l_infinity",
    "pool_rare",
    "psi",
    "smoothed_js2",
    "tail_counts",
    "tail_p",
    "total_variation",
    "unseen",
    "wasserstein",
]
