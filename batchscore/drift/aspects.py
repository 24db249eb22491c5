"""Two aspects of a column are compared by their kind, where they can be.

Suffixes: `_b` buckets, `_k` runs of buckets that begin alike.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from batchscore.drift.accumulator import Accumulator
from batchscore.drift.categorical import align_categories
from batchscore.drift.categories import FOLDS, LABELS, Categories
from batchscore.drift.clock import hour_units
from batchscore.drift.column import ColumnProfile
from batchscore.drift.measures.all_measures import MEASURES, differences
from batchscore.drift.measures.declaration import Difference
from batchscore.drift.measures.of_categories import CategorySides
from batchscore.drift.measures.of_numbers import NumberSides
from batchscore.drift.measures.of_vectors import VectorSides
from batchscore.drift.numbers import Numbers, is_time, shown_number
from batchscore.drift.ordered import Aligned, align_numbers
from batchscore.drift.ordering import run_starts
from batchscore.drift.rates import NumberNames, as_categories, is_rate
from batchscore.drift.vectors import Vectors
from batchscore.messages.wording import one_line

_PRECISIONS: dict[str, type[np.floating[Any]]] = {
    "halffloat": np.float16,
    "float": np.float32,
    "double": np.float64,
}
_WIDTH = 100
_FEW, _TIMES_EACH = 100, 10  # distinct values, each of which is there so often on average
_NO_VALUES = "null"  # the type of a column that holds nothing else


def compare_aspects(before: Accumulator, now: Accumulator) -> tuple[tuple[Difference, ...], str]:
    """Returns the comparisons of two aspects that are not `unlike`, and a note where one is due."""
    if not before.n and not now.n:
        return (), "neither side has values"
    if isinstance(before, Numbers) and isinstance(now, Numbers):
        return _numbers(before, now)
    if isinstance(before, Categories) and isinstance(now, Categories):
        return _categories(before, now), ""
    if isinstance(before, Vectors) and isinstance(now, Vectors):
        return differences(VectorSides(before, now)), ""
    raise TypeError(f"{before.kind} and {now.kind} cannot be compared")


def unlike(before: ColumnProfile, now: ColumnProfile) -> str:
    """Returns why a column's two sides cannot be compared, and the remedy; else nothing."""
    differing = _differing(before, now)
    if before.kind == now.kind and _unit(before) == _unit(now) and not differing:
        return ""
    was, is_ = _shown(before.type), _shown(now.type)
    if was != is_:
        return (
            f"was {was}, is {is_}: not comparable; cast it to {was}, or take a reference of {is_}"
        )
    if before.kind != now.kind:
        differing = f"was profiled as {before.kind}, is profiled as {now.kind}"
    return f"{differing}: not comparable; profile both the same way"


def lacks_values(before: ColumnProfile, now: ColumnProfile) -> bool:
    """Tells whether a side is of the type null, so that there is only its null rate to compare."""
    return _NO_VALUES in (before.type, now.type)


def unseen_note(column: ColumnProfile) -> str:
    """Returns that nothing is known of what a column holds, as of structs; else nothing."""
    unseen = column.kind == "other" and column.type != _NO_VALUES
    if unseen or (column.kind == "list" and "items" not in column.aspects):
        return "values are not looked at"
    return ""


def has_few_values(before: ColumnProfile, now: ColumnProfile) -> bool:
    """Returns whether a column's values are few enough that their lengths tell nothing more."""
    sides = [each.aspects.get("value") for each in (before, now)]
    return all(isinstance(each, Categories) and _is_few(each) for each in sides)


def type_note(before: str, now: str) -> str:
    """Returns what to know of two types that differ but can be compared; else nothing."""
    return "" if before == now else f"the type was {_shown(before)} and is {_shown(now)}"


def _numbers(before: Numbers, now: Numbers) -> tuple[tuple[Difference, ...], str]:
    aligned = align_numbers(before, now)
    if before.type == now.type or not {before.type, now.type} <= _PRECISIONS.keys():
        return _of_numbers(aligned, now.type), ""
    coarser = min(before.type, now.type, key=lambda name: np.dtype(_PRECISIONS[name]).itemsize)
    note = f"compared as {coarser}, so nothing is exact"
    return _of_numbers(_rounded(aligned, _PRECISIONS[coarser]), coarser), note


def _of_numbers(aligned: Aligned, type_: str) -> tuple[Difference, ...]:
    """Returns the comparisons of numbers; those of a rate are as if its values were texts."""
    names = NumberNames(partial(shown_number, type_))
    found = differences(NumberSides(aligned, names, hour_units(type_)))
    if is_time(type_) or not is_rate(aligned):
        return found
    judged = differences(CategorySides(*as_categories(aligned, names)))
    named = {each.name for each in judged}
    others = (each for each in found if each.name not in named)
    return (*judged, *(replace(each, aside=MEASURES[each.name].of_places) for each in others))


def _categories(before: Categories, now: Categories) -> tuple[Difference, ...]:
    aligned = align_categories(before, now)
    fold_names = {} if aligned.exact else _fold_names(before, now)

    def label(cell: int) -> str:
        if not aligned.exact:
            return fold_names.get(cell, f"values of fold {cell}")
        names = (side.label(cell) for side in (before, now))
        return next((one_line(repr(name)) for name in names if name is not None), f"{cell:016x}")

    return differences(CategorySides(aligned, label))


def _fold_names(before: Categories, now: Categories) -> dict[int, str]:
    """Returns what to call each fold that has a frequent value with a label on either side."""
    values = [
        (count / side.n, hash_ % FOLDS, label)
        for side in (before, now)
        for label, count, hash_ in side.top(LABELS)
        if side.label(hash_) is not None
    ]
    # The most frequent of a fold comes last, and stays.
    return {
        fold: f"{one_line(repr(label))} and others of its fold" for _, fold, label in sorted(values)
    }


def _rounded(aligned: Aligned, precision: type[np.floating[Any]]) -> Aligned:
    """Returns buckets of values rounded to a precision; those that become the same are one."""
    with np.errstate(over="ignore", invalid="ignore"):
        lows_b = aligned.lows_b.astype(precision).astype(np.float64)
        highs_b = aligned.highs_b.astype(precision).astype(np.float64)
        starts_k = run_starts(lows_b)
        lows_k, highs_k = lows_b[starts_k], highs_b[np.r_[starts_k[1:], lows_b.size] - 1]
        widths_k = np.where(highs_k > lows_k, highs_k - lows_k, 0.0)
    p_k, q_k = (np.add.reduceat(side_b, starts_k) for side_b in (aligned.p_b, aligned.q_b))
    return Aligned(lows_k, highs_k, p_k, q_k, lows_k + widths_k / 2, widths_k)


def _is_few(side: Categories) -> bool:
    if side.folded:
        return False
    distinct = side.counts()[0].size
    return distinct <= _FEW and distinct * _TIMES_EACH <= side.n


def _differing(before: ColumnProfile, now: ColumnProfile) -> str:
    """Returns the first aspect that only one side has, or that is of two kinds; else nothing."""
    for name in sorted(before.aspects.keys() | now.aspects.keys()):
        if name not in before.aspects:
            return f"has no aspect {name!r} in the reference"
        if name not in now.aspects:
            return f"has no aspect {name!r} in the current profile"
        if not _comparable(before.aspects[name], now.aspects[name]):
            return f"has an aspect {name!r} of two kinds"
    return ""


def _comparable(before: Accumulator, now: Accumulator) -> bool:
    if isinstance(before, Numbers) and isinstance(now, Numbers):
        return before.space is now.space
    if isinstance(before, Vectors) and isinstance(now, Vectors):
        return before.width == now.width
    return before.kind == now.kind


def _unit(column: ColumnProfile) -> str:
    """Returns what a time is counted in, whatever its zone; of other columns nothing."""
    return column.type.split(", tz=")[0].removesuffix("]") if column.kind == "time" else ""


def _shown(type_: str) -> str:
    return one_line(type_, _WIDTH)
