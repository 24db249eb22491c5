"""Labels of values: as short as they may be, and different wherever the values are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from unicodedata import east_asian_width

import numpy as np

from batchscore.messages.addresses import redacted_text

T = TypeVar("T")

DIGITS = 5
MOST_DIGITS = 17  # tell any two floats apart
_POSITIONAL = (1e-3, 1e15)
_DECIMALS = 2
_NAMES = 400
_SECOND = 10**9
_DAY = 86_400 * _SECOND
_SPACE = "␣"
_CONTROLS, _DELETE, _PICTURES = 0x20, 0x7F, 0x2400
_HEADS = (0.5, 0.25, 0.75, 0.0, 1.0)  # how much of a label's room its beginning gets


def number_labels(
    values: Sequence[float], least: int = DIGITS, most: int = MOST_DIGITS
) -> list[str]:
    """Returns a label of each finite number: integers in full, floats with digits enough.

    Digits are significant ones, the same number for all: the fewest from `least` that tell
    different values apart, `most` where none does.
    """
    return _apart(values, lambda value, digits: _number(value, digits), range(least, most + 1))


def moment_labels(nanoseconds: Sequence[int]) -> list[str]:
    """Returns a label of each moment since 1970: a date, or a time as fine as tells them apart."""
    if all(moment % _DAY == 0 for moment in nanoseconds):
        return [str(np.datetime64(moment // _DAY, "D")) for moment in nanoseconds]
    return _apart(nanoseconds, _moment, (0, 3, 6, 9))


def value_labels(values: Mapping[int, str]) -> list[str]:
    """Returns a label on one line of each value of a category; a hash tells equal ones apart.

    Args:
        values: The known beginning of each value, by its hash.
    """
    lines = {key: visible(value, _NAMES) for key, value in values.items()}
    times = Counter(lines.values())
    return [
        line if times[line] == 1 else f"{line} #{key % 2**64:016x}" for key, line in lines.items()
    ]


def visible(text: str, width: int) -> str:
    """Returns a value on one line in which nothing is hidden: `(empty)`, `a␣`, `␀`, `␉`.

    Spaces at either end and in a row, and control characters, have the signs that Unicode has for
    them; other characters that do not print are U+ and their number.
    """
    if not text:
        return "(empty)"
    safe = redacted_text(text)
    inner = safe.strip(" ")
    start = len(safe) - len(safe.lstrip(" ")) if inner else len(safe)
    end = len(safe) - len(safe.rstrip(" ")) if inner else 0
    middle = re.sub("  +", lambda spaces: _SPACE * len(spaces[0]), inner)
    line = _SPACE * start + "".join(map(_sign, middle)) + _SPACE * end
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _sign(character: str) -> str:
    code = ord(character)
    if code < _CONTROLS:
        return chr(_PICTURES + code)
    if code == _DELETE:
        return "␡"
    return character if character.isprintable() else f"U+{code:04X}"


def shortened(labels: Sequence[str], width: int) -> list[str]:
    """Returns labels with the middle left out where they are wider, different where they were.

    Where no way to cut them keeps them apart, they are numbered.
    """
    cuts = ([_cut(label, width, head) for label in labels] for head in _HEADS)
    distinct = len(set(labels))
    for cut in cuts:
        if len(set(cut)) == distinct:
            return cut
    places = {label: place for place, label in enumerate(dict.fromkeys(labels), 1)}
    return [f"{places[each]}: {_cut(each, width - 4, _HEADS[0])}" for each in labels]


def _apart(
    values: Sequence[T], label: Callable[[T, int], str], finenesses: Sequence[int]
) -> list[str]:
    distinct = len(set(values))
    labels: list[str] = []
    for fineness in finenesses:
        labels = [label(value, fineness) for value in values]
        if len(set(labels)) == distinct:
            break
    return labels


def _number(value: float, digits: int) -> str:
    low, high = _POSITIONAL
    if isinstance(value, int) or (value.is_integer() and abs(value) < high):
        return f"{int(value):,}"
    if low <= abs(value) < high:
        whole = math.floor(math.log10(abs(value))) + 1
        return f"{value:,.{max(digits - whole, _DECIMALS)}f}".rstrip("0").rstrip(".")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def _moment(nanoseconds: int, decimals: int) -> str:
    seconds, rest = divmod(nanoseconds, _SECOND)
    text = str(np.datetime64(seconds, "s")).replace("T", " ")
    return f"{text}.{rest:09d}"[: len(text) + 1 + decimals] if decimals else text


def _cut(label: str, width: int, head: float) -> str:
    # Signs of double width would else take twice the room.
    if any(east_asian_width(sign) in "WF" for sign in label):
        width //= 2
    if len(label) <= width:
        return label
    first = round((width - 1) * head)
    return f"{label[:first]}…{label[len(label) - (width - 1 - first) :]}"
