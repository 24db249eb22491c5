"""The table of all measures. A new measure is declared in one of the modules listed here."""

from __future__ import annotations

import math
from dataclasses import replace

from batchscore.drift.measures import (
    binned,
    of_categories,
    of_hours,
    of_nulls,
    of_numbers,
    of_ranges,
    of_spikes,
    of_vectors,
)
from batchscore.drift.measures.declaration import Difference, MeasureSpec, Sides

# The order is that of results and of the report.
MEASURES: dict[str, MeasureSpec] = {
    each.name: each
    for each in (
        *binned.MEASURES,
        *of_numbers.MEASURES,
        *of_ranges.MEASURES,
        *of_spikes.MEASURES,
        *of_hours.MEASURES,
        *of_categories.MEASURES,
        *of_vectors.MEASURES,
        *of_nulls.MEASURES,
    )
}


def differences(sides: Sides) -> tuple[Difference, ...]:
    """Returns what the measures find between two sides, in the order of the table.

    If a side has too few values, the measures that decide return a difference without a value.
    """
    fitting = [each for each in MEASURES.values() if sides.kind in each.kinds]
    if sides.too_few:
        deciding = [each for each in fitting if each.decides] or fitting
        return tuple(Difference(None, lambda alpha: math.inf, name=s.name) for s in deciding)
    return tuple(replace(found, name=each.name) for each in fitting for found in each.find(sides))


def decides(name: str) -> bool:
    """Returns whether a measure sees the whole distribution."""
    return name in MEASURES and MEASURES[name].decides
