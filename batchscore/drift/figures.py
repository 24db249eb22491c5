"""The figure of a column's numbers that shows best how they changed, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from batchscore.messages.wording import one_line

Summary = Mapping[str, Any]

# How much each counts: a shift of the mean by the reference's sigma counts 1.
_PLACES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"mean": ("mean", 1.0), "p50": ("median", 0.9), "min": ("min", 0.1), "max": ("max", 0.1)}
)
# The ends are those of single values, far out where tails are long: they are shown only where
# nothing else moved as far as this.
_MOST_OF_ENDS = MappingProxyType({"min": 0.05, "max": 0.05})
_OUTSIDE = (("are infinite", ("pos_inf", "neg_inf")), ("are not from 0 to 1", ("below", "above")))
_SHARE = 0.05  # this much more infinite values count as much as a sigma
_FROM_NOTHING = 5.0  # a spread where there was none, or none where there was one
_DIGITS = range(3, 18)
_EXACT = 2**53  # a mean of larger integers is rounded, their median is not


def figure(now: Summary, before: Summary, title: str) -> str:
    """Returns the figure that changed most, as it is and as it was; empty where none did.

    Args:
        now: Statistics of numbers, as `Numbers.summary` returns them, and how many they are, `n`.
        before: Figures of the reference.
        title: Names the reference.
    """
    found = [
        *(_place(key, now, before, title) for key in _PLACES),
        _sigma(now, before, title),
        *(_share(words, keys, now, before, title) for words, keys in _OUTSIDE),
    ]
    return max(found, key=lambda each: each[0])[1]


def _place(key: str, now: Summary, before: Summary, title: str) -> tuple[float, str]:
    is_, was = now.get(key), before.get(key)
    if is_ is None or was is None or is_ == was:
        return 0.0, ""
    name, factor = _PLACES[key]
    text = "{} {}, was {} in {}".format(name, *_pair(is_, was), title)
    if isinstance(is_, str) or isinstance(was, str):  # of times, whose sigma is none
        return math.inf, text
    scale = before.get("sigma") or now.get("sigma") or 1.0
    exact = 1.0 if max(abs(is_), abs(was)) < _EXACT or isinstance(is_, int) else 0.5
    return min(exact * factor * abs(is_ - was) / scale, _MOST_OF_ENDS.get(key, math.inf)), text


def _sigma(now: Summary, before: Summary, title: str) -> tuple[float, str]:
    is_, was = now.get("sigma"), before.get("sigma")
    if is_ is None or was is None or is_ == was:
        return 0.0, ""
    weight = abs(math.log(is_ / was)) if 0 < is_ / (was or math.inf) < math.inf else _FROM_NOTHING
    return weight, "sigma {}, was {} in {}".format(*_pair(is_, was), title)


def _share(
    words: str, keys: tuple[str, ...], now: Summary, before: Summary, title: str
) -> tuple[float, str]:
    is_, was = (
        sum(side.get(key, 0) for key in keys) / max(1, side.get("n", 0)) for side in (now, before)
    )
    text = f"{100 * is_:.3g} % of the values {words}, {100 * was:.3g} % were in {title}"
    return abs(is_ - was) / _SHARE, text if is_ != was else ""


def _pair(is_: Any, was: Any) -> tuple[str, str]:
    """Returns two values as texts with as many digits as their difference takes."""
    if not (isinstance(is_, float) or isinstance(was, float)):
        return _plain(is_), _plain(was)
    gap = float(is_) - float(was)
    for digits in _DIGITS:
        rounded = float(f"{is_:.{digits}g}") - float(f"{was:.{digits}g}")
        if abs(rounded - gap) <= abs(gap) / 10:
            break
    return _number(is_, digits), _number(was, digits)


def _plain(value: Any) -> str:
    return one_line(value, 32) if isinstance(value, str) else f"{value:,}"


def _number(value: float, digits: int) -> str:
    """Returns a number without an exponent where people write none."""
    whole = len(f"{abs(value):.0f}") if abs(value) < 1e15 else 0
    return f"{value:,.{max(digits, whole)}g}"
