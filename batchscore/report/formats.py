"""How the page puts figures, names and verdicts: short, safe to embed, and in plain words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from batchscore.messages.wording import count, one_line
from batchscore.report.labels import MOST_DIGITS

NAME_SHOWN = 80
_TITLE_SHOWN = 240
_INTEGER_DIGITS = 15  # integers beyond it are no longer exact in a browser
# What could end the element that holds the JSON, or a line of a script.
_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


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


def embedded_json(value: Any) -> str:
    """Returns JSON that may stand in a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


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

MEASURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "psi": ("PSI", "population stability index over ten bins, or over categories"),
        "ks": ("KS", "largest difference of the two cumulative shares, with certified bounds"),
        "w1": (
            "Wasserstein-1 / sigma",
            "mean distance moved, tails clipped, over the reference's sigma",
        ),
        "w1_unclipped": ("Wasserstein-1 / sigma, unclipped", "the same with the tails"),
        "w1_iqr": ("Wasserstein-1 / IQR", "the same over the reference's interquartile range"),
        "tail": ("tail share", "share outside the reference's 0.5 % and 99.5 % edges"),
        "null_rate": ("null rate", "share of rows without a value, NaN among them"),
        "unseen": ("unseen share", "share of rows whose value the reference has not"),
        "category": ("one category", "largest change of one value's share"),
        "mmd": ("MMD", "distance of the two clouds of vectors, by random features"),
        "mean_shift": ("mean shift", "distance of the two mean vectors over the spread"),
        "frechet": ("Fréchet", "distance of the two normal distributions with these moments"),
        "js": ("Jensen-Shannon", "distance, base 2"),
        "hellinger": ("Hellinger", "distance of the two distributions"),
        "total_variation": ("total variation", "half the sum of all differences of shares"),
        "l_infinity": ("L∞", "largest difference of one share"),
        "chi2": ("χ²", "two-sample statistic, without Yates"),
        "cramers_v": ("Cramér's V", "χ² as an effect from 0 to 1"),
    }
)
"""How the page calls each measure, and what it is; others bear their own name."""
