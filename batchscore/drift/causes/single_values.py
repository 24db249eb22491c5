"""Causes that put one number in the place of others: a sentinel, a default, a limit, zero for null.

Suffixes: `_b` buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from batchscore.drift.causes.cause import LikelyCause, alike, moved, share_words
from batchscore.drift.causes.samples import Floats, NumberSample

SENTINELS = frozenset(
    {-1.0, 9.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0, -9.0, -99.0, -999.0, -9999.0, -99999.0}
)
_SPIKE, _TIMES_AROUND = 0.05, 5
_LOOKED_AT = 5  # of the values whose share grew most
_STUCK, _STUCK_BEFORE = 0.9, 0.5
_SOME_STUCK = 0.2
_GONE = 0.1  # of its share now, that a new value may have had before
_STEPS = tuple(10.0**power for power in range(6, -7, -1))
_ROUNDED, _NOT_ROUNDED = 0.995, 0.5
_FAR = 0.01  # of a step, from which on no number is a multiple of it
_CERTAIN, _LIKELY = 1.0, 0.9

Show = Callable[[float], str]


def single_values(before: NumberSample, now: NumberSample, show: Show) -> Iterator[LikelyCause]:
    """Yields the causes that lie in one value that became frequent, and nulls that became it.

    Args:
        before: The reference.
        now: The current numbers.
        show: Puts a number for people.
    """
    for value, was, is_ in _risers(before, now):
        yield from _riser(before, now, value, was, is_, show)
    yield from _became_null(before, now, show)


def rounding(
    before: NumberSample, now: NumberSample, show: Show, precision: float
) -> Iterator[LikelyCause]:
    """Yields the step to which the current numbers are rounded, where the reference's are not.

    Args:
        before: The reference.
        now: The current numbers.
        show: Puts a number for people.
        precision: By how much of itself a number of the type may be off.
    """
    if not before.n or not now.n:
        return
    for step in _STEPS:
        if _on_steps(now, step, precision) >= _ROUNDED:
            if _on_steps(before, step, precision) < _NOT_ROUNDED:
                yield LikelyCause(f"rounded to {show(step)}", _CERTAIN)
            return


def _risers(before: NumberSample, now: NumberSample) -> Iterator[tuple[float, float, float]]:
    """Yields values whose share of the rows grew by more than chance: value, before, now."""
    now_b = now.counts_b / max(1, now.rows)
    before_b = before.shares_near(now.values_b, now.widths_b)
    # A bucket of several values is one that became frequent only if those next to it did not.
    alone_b = now.exact_b | ((now_b >= _SPIKE) & (now_b > _TIMES_AROUND * _around(now_b)))
    for b in np.argsort(before_b - now_b, kind="stable")[:_LOOKED_AT].tolist():
        was, is_ = float(before_b[b]), float(now_b[b])
        if alone_b[b] and is_ > was and moved(was, before.rows, is_, now.rows):
            yield float(now.values_b[b]), was, is_


def _around(share_b: Floats) -> Floats:
    """Returns the larger of the shares next to each bucket."""
    padded = np.r_[0.0, share_b, 0.0]
    around_b: Floats = np.maximum(padded[:-2], padded[2:])
    return around_b


def _riser(
    before: NumberSample, now: NumberSample, value: float, was: float, is_: float, show: Show
) -> Iterator[LikelyCause]:
    name, of_numbers = show(value), is_ * now.rows / max(1, now.n)
    missing, missing_now = before.missing / max(1, before.rows), now.missing / now.rows
    fewer_nulls = moved(missing, before.rows, missing_now, now.rows) and missing_now < missing
    inside = before.n and before.values_b[0] <= value <= before.values_b[-1]
    new = was <= _GONE * is_
    if fewer_nulls and alike(missing - missing_now, is_ - was):
        yield LikelyCause(f"nulls became {name}", _CERTAIN)
    elif of_numbers >= _STUCK and was < _STUCK_BEFORE:
        yield LikelyCause(f"stuck at {name}", _CERTAIN)
    elif before.n and _is_limit(before, now, value, is_):
        yield LikelyCause(f"cut off at {name} (a limit?)", _CERTAIN)
    elif new and (not inside or value in SENTINELS):
        yield LikelyCause(f"a sentinel: {name} in {share_words(is_)} of the rows?", _LIKELY)
    elif is_ - was >= _SOME_STUCK:
        yield LikelyCause(
            f"{name} in {share_words(is_)} of the rows (stuck, or a default?)", _LIKELY
        )


def _is_limit(before: NumberSample, now: NumberSample, value: float, is_: float) -> bool:
    """Returns whether a value at an end stands for all that lay beyond it."""
    if value == now.values_b[-1]:
        beyond = before.counts_b[before.values_b >= value].sum()
    elif value == now.values_b[0]:
        beyond = before.counts_b[before.values_b <= value].sum()
    else:
        return False
    return alike(float(beyond) / before.rows, is_) and value not in (
        before.values_b[0],
        before.values_b[-1],
    )


def _became_null(before: NumberSample, now: NumberSample, show: Show) -> Iterator[LikelyCause]:
    missing, missing_now = (side.missing / max(1, side.rows) for side in (before, now))
    if not moved(missing, before.rows, missing_now, now.rows) or missing_now < missing:
        return
    most_b = np.argsort(-before.counts_b * before.exact_b, kind="stable")[:_LOOKED_AT]
    for value in before.values_b[most_b].tolist():
        was, is_ = before.share_of(value), now.share_of(value)
        fell = moved(was, before.rows, is_, now.rows) and is_ <= _GONE * was
        if fell and alike(was - is_, missing_now - missing):
            yield LikelyCause(f"{show(value)} became null", _CERTAIN)


def _on_steps(sample: NumberSample, step: float, precision: float) -> float:
    """Returns the share of numbers that are multiples of a step, as far as their type can tell."""
    multiples_b = sample.values_b / step
    off_b = np.abs(multiples_b - np.rint(multiples_b))
    near_b = off_b <= np.minimum(4 * precision * np.abs(multiples_b), _FAR)
    return float(sample.counts_b[near_b & sample.exact_b].sum()) / sample.n
