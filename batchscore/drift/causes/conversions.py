"""Causes that convert numbers: another unit, Fahrenheit, a flipped sign, a shift by hours.

Suffixes: `_q` levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from batchscore.drift.causes.cause import LikelyCause, share_words
from batchscore.drift.causes.samples import Change, Floats, Map, NumberSample

# By how much a number grows where its unit gets smaller, and what that may be.
FACTORS = (
    (1000.0, "another unit?"),
    (100.0, "a percentage, or another unit?"),
    (10.0, "another unit?"),
    (60.0, "seconds, minutes or hours?"),
    (3600.0, "seconds or hours?"),
    (24.0, "hours or days?"),
    (86400.0, "seconds or days?"),
    (7.0, "days or weeks?"),
    (12.0, "months or years?"),
    (1e6, "another unit?"),
    (1e9, "another unit?"),
    (1024.0, "another unit?"),
    (1024.0**2, "another unit?"),
    (1.609344, "miles or kilometres?"),
    (2.54, "inches or centimetres?"),
    (2.2046226, "kilograms or pounds?"),
    (3.28084, "metres or feet?"),
    (3.6, "m/s or km/h?"),
    (3.785412, "gallons or litres?"),
    (4.184, "calories or joules?"),
    (28.349523, "ounces or grams?"),
)
_WHOLE = 0.97  # of the numbers, from which on a conversion is said of all
_PART = 0.01
_PART_FACTOR = 7.0  # smaller conversions of a part of the numbers look like any other change
_CERTAIN = 0.9  # explained by a part, or by a factor or shift that is no unit's
_LEAST_FACTOR = 1.1
_BETTER = 0.1
_GENERAL, _PARTIAL = 20, 10
_HOUR = 3600.0
_STEP, _MOST_HOURS, _SLACK = 1800.0, 14, 600.0  # seconds


def conversions(before: NumberSample, now: NumberSample) -> Iterator[LikelyCause]:
    """Yields the conversions that explain how numbers changed."""
    change = Change(before, now)
    if not change.is_beyond_noise:
        return
    found = [*_units(change)]
    yield from found
    if not any(each.explained >= _CERTAIN for each in found):
        yield from _general(change)


def shifts(before: NumberSample, now: NumberSample, unit: float) -> Iterator[LikelyCause]:
    """Yields a shift of times by hours, as another time zone makes it.

    Args:
        before: The reference.
        now: The current times.
        unit: How many seconds a time's unit is.
    """
    change = Change(before, now)
    if not change.is_beyond_noise:
        return
    moved = float(np.median(now.levels - before.levels)) * unit
    by = round(moved / _STEP) * _STEP
    if not by or abs(by) > _MOST_HOURS * _HOUR or abs(moved - by) > _SLACK:
        return
    share, _ = change.explained(before.mapped(lambda values_b: values_b + by / unit))
    yield LikelyCause(f"shifted by {by / _HOUR:+g} h (time zone?)", share)


def _units(change: Change) -> Iterator[LikelyCause]:
    for rank, (words, convert, partly) in enumerate(_conversions()):
        share, part = change.explained(change.before.mapped(convert))
        if part >= _WHOLE:
            yield LikelyCause(words, share, rank)
        elif partly and part >= _PART and share >= _CERTAIN:
            yield LikelyCause(
                f"{words} in {share_words(part)} of the values", share, rank + _PARTIAL
            )


def _conversions() -> Iterator[tuple[str, Map, bool]]:
    """Yields the words of each conversion, what it does, and whether a part may be converted."""
    for factor, guess in FACTORS:
        partly = factor >= _PART_FACTOR
        yield f"about × {_plain(factor)} ({guess})", partial(_times, factor), partly
        yield f"about ÷ {_plain(factor)} ({guess})", partial(_times, 1 / factor), partly
    yield "the sign is flipped", partial(_times, -1.0), True
    yield "Celsius became Fahrenheit", lambda x: 1.8 * x + 32, True
    yield "Fahrenheit became Celsius", lambda x: (x - 32) / 1.8, True
    yield "Celsius became kelvin", lambda x: x + 273.15, True
    yield "kelvin became Celsius", lambda x: x - 273.15, True


def _times(factor: float, values_b: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return values_b * factor


def _general(change: Change) -> Iterator[LikelyCause]:
    """Yields a factor or a shift of all numbers that is no unit's."""
    before = change.before
    before_q, now_q = before.levels, change.now.levels
    shift = float(np.median(now_q - before_q))
    shifted, _ = change.explained(before.mapped(lambda values_b: values_b + shift))
    factor = _factor(before_q, now_q)
    scaled = change.explained(before.mapped(partial(_times, factor)))[0] if factor else 0.0
    if factor and scaled >= max(_CERTAIN, shifted + _BETTER):
        yield LikelyCause(f"all values about × {factor:.3g}", scaled, _GENERAL)
    elif shifted >= max(_CERTAIN, scaled + _BETTER):
        how = "higher" if shift > 0 else "lower"
        yield LikelyCause(f"all values about {abs(shift):.3g} {how}", shifted, _GENERAL)


def _factor(before_q: Floats, now_q: Floats) -> float:
    """Returns by how much the values are multiplied; 0 where that is little or means nothing."""
    known_q = (np.abs(before_q) > np.median(np.abs(before_q)) / 10) & (before_q != 0)
    if not known_q.any():
        return 0.0
    factor = float(np.median(now_q[known_q] / before_q[known_q]))
    small = factor <= 0 or 1 / _LEAST_FACTOR < factor < _LEAST_FACTOR
    return 0.0 if small or not np.isfinite(factor) else factor


def _plain(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 or factor.is_integer() else f"{factor:.4g}"
