"""What nights differ by among themselves, which a night has to exceed to alarm.

Rows of one night are seldom independent: customers come with many rows each, a sensor drifts within
the day, a campaign moves a day's mean. Then the tests against noise, which take rows to be
independent, see more than there is. Each night is compared with the one before it, so that slow
drift over all nights, and one night that is unlike the others, count for little.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

from batchscore.drift.compare import compare_profiles
from batchscore.drift.findings import Measure, Rules, TableDrift
from batchscore.drift.measures.all_measures import MEASURES
from batchscore.drift.table import TableProfile

Key = tuple[str, str, str]
"""A column, an aspect of it, and a measure."""

LOOKED_AT = 28
"""Nights that are looked back on."""
LEAST = 8
"""Nights below which nothing is known of what they differ by."""
_COLUMNS = 100  # up to which all nights are looked at
_QUANTILE, _TIMES = 0.9, 2.0
_ALARMS = ("warn", "fail")


def alarming(drift: TableDrift) -> frozenset[Key]:
    """Returns what warns or fails, of the columns that are judged."""
    return frozenset(
        (aspect.column, aspect.aspect, measure.name)
        for aspect in drift.aspects
        if aspect.judged
        for measure in aspect.measures
        if measure.outcome in _ALARMS
    )


def between_nights(
    nights: Sequence[TableProfile], keys: Collection[Key], in_reference: float
) -> dict[Key, float]:
    """Returns by how much nights differ among themselves, as far as there are nights enough.

    That is `_TIMES` the quantile `_QUANTILE` of the effects between each night and the one before;
    of a measure that grows with a distance's square, `_TIMES` squared. Where nights differ by a
    normal variable it is more than three of its deviations. From a reference of many nights a night
    differs less than from another night.

    Args:
        nights: Their profiles, the oldest first.
        keys: What to look at.
        in_reference: How many nights the reference is made of, by its rows; one at least.
    """
    if len(nights) < LEAST:
        return {}
    rules = Rules(columns=frozenset(column for column, *_ in keys))
    nights = nights[-_nights_for(len(rules.columns or ())) :]
    effects: dict[Key, list[float]] = {key: [] for key in keys}
    for before, now in pairwise(_only(night, rules.columns or ()) for night in nights):
        found = compare_profiles(before, now, rules, with_causes=False)
        for aspect in found.aspects:
            for measure in aspect.measures:
                key = (aspect.column, aspect.aspect, measure.name)
                effect = _effect(measure)
                if key in effects and effect is not None:
                    effects[key].append(effect)
    known = {key: each for key, each in effects.items() if len(each) >= LEAST - 1}
    times = _TIMES * math.sqrt((1 + 1 / max(1.0, in_reference)) / 2)
    return {key: _quantile(each) * times ** MEASURES[key[2]].power for key, each in known.items()}


def _nights_for(columns: int) -> int:
    """Returns how many nights to look at, fewer where many columns alarm: a pair takes time."""
    return max(LEAST, min(LOOKED_AT, LOOKED_AT * _COLUMNS // max(1, columns)))


def _only(night: TableProfile, columns: Collection[str]) -> TableProfile:
    return TableProfile({name: night.columns[name] for name in columns if name in night.columns})


def _effect(measure: Measure) -> float | None:
    return measure.value if measure.low is None else measure.low


def _quantile(effects: Sequence[float]) -> float:
    return sorted(effects)[math.ceil(_QUANTILE * len(effects)) - 1]
