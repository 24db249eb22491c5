"""How the page puts figures, names and verdicts: short, safe to embed, and in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batchscore.drift.measures.all_measures import MEASURES
from batchscore.messages.wording import count, one_line
from batchscore.report.labels import MOST_DIGITS

if TYPE_CHECKING:
    from markupsafe import Markup

NAME_SHOWN = 80
_TITLE_SHOWN = 240
_INTEGER_DIGITS = 15  # integers beyond it are no longer exact in a browser


def figure(value: Any, digits: int = 4) -> str:
    """Returns a figure of a profile or a measure; `none` where there is none."""
    if value is None:
        return "none"
    if isinstance(value, bool | str):
        return one_line(value)
    if isinstance(value, int) or (value == round(value, 0) and abs(value) < 1e6):
        return count(value)
    return f"{value:.{digits}g}"


def rounded(value: Any, digits: int = 8) -> Any:
    """Returns a value for JSON with so many significant digits; None where it is no number."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, int) and abs(value) < 10**_INTEGER_DIGITS:
        return value
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 10**_INTEGER_DIGITS else short


def rounded_apart(values: Sequence[Any], least: int) -> list[Any]:
    """Returns rounded values with the fewest digits from `least` that tell them apart."""
    distinct = len(set(values))
    short: list[Any] = []
    for digits in range(least, MOST_DIGITS + 1):
        short = [rounded(value, digits) for value in values]
        if len(set(short)) == distinct:
            break
    return short


def percent(share: float | None) -> str:
    """Returns a share with three significant digits; `none` where there is none."""
    if share is None:
        return "none"
    if share == 0:
        return "0 %"
    return "< 0.01 %" if share < 0.0001 else f"{float(f'{share * 100:.3g}'):,g} %"


def seconds(value: float) -> str:
    """Returns seconds with two decimals below ten, or milliseconds below a tenth."""
    if value < 0.0995:
        return f"{value * 1000:.{0 if value >= 0.00995 or not value else 1}f} ms"
    return f"{value:.2f} s" if value < 9.95 else f"{value:,.0f} s"


def size(number: float) -> str:
    """Returns bytes in megabytes, or kilobytes below one."""
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.1f} kB"


def moment(text: str) -> str:
    """Returns an ISO 8601 time down to the second, as people write it."""
    return text[:19].replace("T", " ")


def shown_name(name: str) -> str:
    """Returns a column's name on one line, cut where it is long; an empty one is said."""
    return one_line(name, NAME_SHOWN) or "(empty name)"


def long_name(name: str) -> str:
    """Returns more of a name that `shown_name` cuts; empty where it does not."""
    more = one_line(name, _TITLE_SHOWN)
    return more if more != one_line(name, NAME_SHOWN) else ""


VERDICT_SIGNS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "fail": ("✕", "fail"),
        "warn": ("▲", "warn"),
        "insufficient_data": ("?", "too few rows"),
        "insufficient_resolution": ("≈", "too coarse"),
        "ok": ("✓", "ok"),
        "none": ("·", "not judged"),
    }
)
"""Sign and words of each verdict, the worst first; `none` where nothing was compared."""


def explained(text: str) -> Markup:
    """Returns a sentence as HTML in which each measure that it names says what it is."""
    from markupsafe import Markup, escape

    meanings = {s.words: s.meaning for s in MEASURES.values() if s.words[:1].isupper()}

    def term(found: re.Match[str]) -> str:
        return f'<abbr title="{escape(meanings[found[0]])}">{escape(found[0])}</abbr>'

    terms = "|".join(map(re.escape, meanings))
    return Markup(re.sub(rf"\b(?:{terms})\b", term, str(escape(text))))


def measure_words() -> dict[str, tuple[str, str]]:
    """Returns what the page calls each measure, and what it is, by the measure's name."""
    return {name: (spec.label, spec.meaning) for name, spec in MEASURES.items()}
