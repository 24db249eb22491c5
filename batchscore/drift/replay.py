"""Nights judged again: on which of them thresholds alarm, and which alarm as seldom as wanted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from batchscore.drift.findings import TableDrift, Thresholds
from batchscore.drift.measures.all_measures import MEASURES

Key = tuple[str, str]
"""A column and a measure, which a job's thresholds are for."""
Fails = Mapping[Key, float | None]
"""The effect from which on each fails; None: never."""

_ABOVE = 1.02  # of the largest effect that must not fail any more


@dataclass(frozen=True)
class Night:
    """What one night's profile showed that was more than noise.

    Args:
        name: Names it for people, such as its date.
        effects: The largest effect by column and measure, of those that noise cannot explain.
        broken: Why it fails whatever the thresholds are, such as a column that is gone.
    """

    name: str
    effects: Mapping[Key, float]
    broken: str = ""


@dataclass(frozen=True)
class Tuned:
    """Thresholds that alarm on few enough of the nights.

    Args:
        fails: The effects from which on measures fail now, where they differ from before; None:
            never.
        kept: Names of the nights that still alarm.
        silent: Names of those that do not any more.
    """

    fails: Fails
    kept: tuple[str, ...]
    silent: tuple[str, ...]


def effects_of(found: Iterable[TableDrift]) -> dict[Key, float]:
    """Returns the largest effect by column and measure that noise cannot explain.

    Only measures that are judged, of columns that are.
    """
    effects: dict[Key, float] = {}
    for aspect in (a for each in found for a in each.aspects if a.judged):
        for measure in aspect.measures:
            effect = measure.value if measure.low is None else measure.low
            if measure.outcome == "shown" or effect is None or not measure.beyond_noise:
                continue
            key = (aspect.column, measure.name)
            effects[key] = max(effect, effects.get(key, 0.0))
    return effects


def thresholds_of(found: Iterable[TableDrift]) -> dict[Key, Thresholds]:
    """Returns the thresholds by column and measure that comparisons were judged by."""
    return {
        (aspect.column, measure.name): Thresholds(measure.warn, measure.fail)
        for each in found
        for aspect in each.aspects
        if aspect.judged
        for measure in aspect.measures
        if measure.outcome != "shown"
    }


def alarms(night: Night, fails: Fails) -> list[tuple[Key, float]]:
    """Returns what fails on a night, with the effect over its threshold, the worst first."""
    found = []
    for key, effect in night.effects.items():
        fail = fails.get(key)
        if fail is not None and effect >= fail:
            found.append((key, effect / fail))
    return sorted(found, key=lambda each: (-each[1], each[0]))


def failing(nights: Iterable[Night], fails: Fails) -> list[Night]:
    """Returns the nights that alarm, in their order."""
    return [night for night in nights if night.broken or alarms(night, fails)]


def tune(nights: Sequence[Night], fails: Fails, most: int) -> Tuned:
    """Returns thresholds by which at most so many nights alarm, those that drifted most.

    Thresholds are only raised: to just above the largest effect of the nights that shall be silent.
    A night that fails whatever the thresholds are counts, and cannot be made silent.

    Args:
        nights: What each night showed.
        fails: The effects from which on measures fail today.
        most: How many nights may alarm.
    """
    bad = failing(nights, fails)
    worst = sorted(bad, key=lambda night: -_severity(night, fails))
    kept = {night.name for night in worst[: max(0, most)]}
    silent = [night for night in bad if night.name not in kept and not night.broken]
    raised = _raised(silent, [night for night in bad if night.name in kept], fails)
    left = failing(nights, {**fails, **raised})
    names = {night.name for night in left}
    gone = tuple(night.name for night in bad if night.name not in names)
    return Tuned(raised, tuple(night.name for night in left), gone)


def _severity(night: Night, fails: Fails) -> float:
    if night.broken:
        return math.inf
    return alarms(night, fails)[0][1]


def _raised(
    silent: Sequence[Night], kept: Sequence[Night], fails: Fails
) -> dict[Key, float | None]:
    largest: dict[Key, float] = {}
    for night in silent:
        for key, _ in alarms(night, fails):
            largest[key] = max(night.effects[key], largest.get(key, 0.0))
    return {
        key: _threshold(key, effect, [night.effects.get(key, 0.0) for night in kept])
        for key, effect in sorted(largest.items())
    }


def _threshold(key: Key, effect: float, others: Collection[float]) -> float | None:
    """Returns a short number above an effect, and not above those of nights that shall alarm."""
    above = [other for other in others if other > effect]
    ceiling = min([*above, MEASURES[key[1]].most])
    for digits in (2, 3, 4):
        rounded = _rounded_up(effect * _ABOVE, digits)
        if effect < rounded <= ceiling:
            return rounded
    if not above:
        return None
    middle = effect + (min(above) - effect) / 2
    return middle if middle > effect else min(above)


def _rounded_up(value: float, digits: int) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / step) * step:.{digits}g}")
