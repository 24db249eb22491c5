"""The cause of a column's change, found in what the two profiles keep of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np

from batchscore.drift.categories import Categories
from batchscore.drift.causes.cause import LikelyCause, best
from batchscore.drift.causes.conversions import conversions, shifts
from batchscore.drift.causes.of_texts import names_of, of_categories, values_of
from batchscore.drift.causes.samples import NumberSample, sample_of
from batchscore.drift.causes.single_values import rounding, single_values
from batchscore.drift.clock import best_turn, hour_counts, hour_units
from batchscore.drift.column import ColumnProfile
from batchscore.drift.numbers import Numbers, is_time, shown_number

_UNIT = re.compile(r"\[(day|s|ms|us|ns)")
_SECONDS = {"day": 86_400.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DOUBLE = 2.0**-52
_PRECISIONS = {"float": 2.0**-23, "halffloat": 2.0**-10}
_TEXT = ("string", "large_string", "string_view")
_AS_NUMBERS = 0.99


def find_cause(before: ColumnProfile, now: ColumnProfile) -> LikelyCause | None:
    """Returns what may lie behind a column's change; None where nothing explains enough of it.

    Args:
        before: The column in the reference.
        now: The column in the current data.
    """
    first, second = before.aspects.get("value"), now.aspects.get("value")
    if isinstance(first, Numbers) and isinstance(second, Numbers):
        if before.kind != now.kind:
            return None
        # Conversions of the largest numbers are infinite, and explain nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            return best(_of_numbers(before, now, first, second))
    if isinstance(first, Categories) and isinstance(second, Categories):
        named = names_of(first, second)
        values = values_of(first, before.count, named), values_of(second, now.count, named)
        return best([*_as_text(before, now), *of_categories(*values)])
    return best(_of_types(before, now))


def _of_numbers(
    before: ColumnProfile, now: ColumnProfile, first: Numbers, second: Numbers
) -> Iterator[LikelyCause]:
    sides = sample_of(first, before.count, before.nulls), sample_of(second, now.count, now.nulls)
    show = partial(shown_number, now.type)
    yield from single_values(*sides, show)
    if is_time(now.type):
        yield from _shifted(*sides, now.type)
    else:
        yield from rounding(*sides, show, _PRECISIONS.get(now.type, _DOUBLE))
        yield from conversions(*sides)


def _shifted(before: NumberSample, now: NumberSample, type_: str) -> Iterator[LikelyCause]:
    """Yields by how many hours times are shifted; of timestamps, which move on, by time of day."""
    hour = hour_units(type_)
    if hour is None:
        yield from shifts(before, now, _seconds(type_))
        return
    counts = [
        hour_counts(
            side.values_b - side.widths_b / 2,
            side.values_b + side.widths_b / 2,
            side.counts_b,
            hour,
        )
        for side in (before, now)
    ]
    if counts[0] is not None and counts[1] is not None:
        turn, explained = best_turn(counts[0], counts[1])
        if turn:
            yield LikelyCause(f"shifted by {turn:+d} h (time zone?)", explained)


def _seconds(type_: str) -> float:
    """Returns how many seconds the unit of a type of times is."""
    unit = _UNIT.search(type_)
    return _SECONDS[unit[1] if unit else "day" if type_.startswith("date32") else "ms"]


def _as_text(before: ColumnProfile, now: ColumnProfile) -> Iterator[LikelyCause]:
    if before.type == "bool" and now.type in _TEXT:
        yield LikelyCause("a boolean as text", rank=-1)


def _of_types(before: ColumnProfile, now: ColumnProfile) -> Iterator[LikelyCause]:
    """Yields what became of a column whose type is another one."""
    first, second = before.aspects.get("value"), now.aspects.get("value")
    if isinstance(first, Numbers) and isinstance(second, Categories):
        if _number_share(second) >= _AS_NUMBERS:
            yield LikelyCause("numbers as text")
    elif isinstance(first, Categories) and isinstance(second, Numbers):
        if before.type == "bool" and _is_flag(sample_of(second, now.count, now.nulls)):
            yield LikelyCause("a boolean as a number")
        elif _number_share(first) >= _AS_NUMBERS:
            yield LikelyCause("texts as numbers")


def _is_flag(sample: NumberSample) -> bool:
    return sample.n > 0 and {*sample.values_b.tolist()} <= {0.0, 1.0}


def _number_share(categories: Categories) -> float:
    """Returns the share of values, of those that are known by name, that are numbers."""
    shares = values_of(categories, categories.n, names_of(categories)).shares
    known = sum(shares.values())
    return sum(s for name, s in shares.items() if _is_number(name)) / known if known else 0.0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
