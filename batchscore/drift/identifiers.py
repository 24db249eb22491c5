"""Columns of which nearly every row has its own value: their values tell nothing about drift.

Suffixes: `_b` buckets, `_f` folds, `_v` values.
"""

from __future__ import annotations

import numpy as np

from batchscore.drift.accumulator import Accumulator
from batchscore.drift.categories import Categories
from batchscore.drift.numbers import Numbers, is_time
from batchscore.drift.ordering import SIGNED, UNSIGNED

_LEAST = 100  # rows; of fewer, values of a few hundred may all differ
_DEVIATIONS = 8.0  # of the rows of a fold, that chance does not reach
_REPEATS = 0.05  # at most so many more rows than values
_NOTE = "an identifier: values are not compared, since nearly every row has its own"


def identifier_note(before: Accumulator | None, now: Accumulator | None) -> str:
    """Returns that the values of both sides are identifiers, else nothing."""
    return _NOTE if all(map(_is_identifier, (before, now))) else ""


def _is_identifier(values: Accumulator | None) -> bool:
    if values is None or values.n < _LEAST:
        return False
    if isinstance(values, Categories):
        _, counts_v, _ = values.sample()
        few = int(counts_v.sum()) <= (1 + _REPEATS) * counts_v.size
        return few and not (values.folded and _has_heavy_fold(values))
    return isinstance(values, Numbers) and _is_row_number(values)


def _has_heavy_fold(values: Categories) -> bool:
    """Returns whether a fold has far more rows than others, as with one frequent value in it."""
    folds_f = values.folds()
    usual = values.n / folds_f.size
    return bool(folds_f.max() > usual + _DEVIATIONS * np.sqrt(usual) + 1)


def _is_row_number(values: Numbers) -> bool:
    """Returns whether integers are about those from the smallest to the largest, each once.

    No bucket then has more values than there are integers in it. Integers with gaps, of which the
    histogram does not tell whether they repeat, are compared.
    """
    histogram = values.histogram
    if values.space not in (SIGNED, UNSIGNED) or is_time(values.type) or not histogram.key_range:
        return False
    low, high = histogram.key_range
    if high - low >= (1 + _REPEATS) * histogram.n:
        return False
    buckets = histogram.buckets()
    firsts_b, lasts_b = (
        np.clip(keys_b, np.uint64(low), np.uint64(high))
        for keys_b in (buckets.first_keys_b, buckets.last_keys_b)
    )
    most_b = (lasts_b - firsts_b).astype(np.float64) + 1
    return bool((buckets.counts_b <= most_b).all())
