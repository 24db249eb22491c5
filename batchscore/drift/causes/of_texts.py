"""Causes of changes of texts and other values: letter case, a space, another name, a new value.

Suffixes: `_v` values.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from batchscore.drift.categories import LABELS, Categories
from batchscore.drift.causes.cause import LikelyCause, alike, best, moved, share_words
from batchscore.messages.wording import one_line

_GONE = 0.1  # of its share on the other side, that a value may still have
_PAIRS = 3  # examples, of renamed values
_STUCK, _STUCK_BEFORE = 0.98, 0.9
_NULL_NAMES = frozenset({"", "null", "none", "nan", "n/a", "na", "-", "?", "unknown", "\\n", "0"})
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "on"), "true"),
    **dict.fromkeys(("false", "f", "no", "n", "0", "off"), "false"),
}

Shares = Mapping[str, float]


@dataclass(frozen=True)
class Values:
    """The values of one side.

    Args:
        shares: The share among the values of each one that has a label on either side.
        whole: Whether each value has its count.
        n: How many values there are.
        rows: All rows, nulls among them.
    """

    shares: Shares
    whole: bool
    n: int
    rows: int

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return 1 - self.n / max(1, self.rows)


def values_of(categories: Categories, rows: int, named: Mapping[int, str]) -> Values:
    """Returns the values of a profile that are known by name.

    Args:
        categories: The profile.
        rows: All rows of the column.
        named: Names of values by their hash, of `names_of`.
    """
    n, counts = categories.n, _counts(categories)
    shares: dict[str, float] = {}
    for hash_, name in named.items():
        if hash_ in counts:
            shares[name] = shares.get(name, 0.0) + counts[hash_] / max(1, n)
    return Values(shares, not categories.folded, n, rows)


def names_of(*sides: Categories) -> dict[int, str]:
    """Returns the values that have a label on any side, by their hash."""
    return {
        hash_: label
        for side in sides
        for label, _, hash_ in side.top(LABELS)
        if side.label(hash_) is not None
    }


def _counts(categories: Categories) -> Mapping[int, int]:
    if categories.folded:
        return {hash_: count for _, count, hash_ in categories.top(LABELS)}
    hashes_v, counts_v = categories.counts()
    return dict(zip(hashes_v.tolist(), counts_v.tolist(), strict=True))


def of_categories(before: Values, now: Values) -> Iterator[LikelyCause]:
    """Yields the causes that explain how values changed, the plainest kinds with lower ranks."""
    yield from _nulls(before, now)
    if not before.n or not now.n:
        return
    yield from _stuck(before, now)
    found = best(_written_otherwise(before, now))
    if found is not None:
        yield found
    yield from _renamed(before, now)
    yield from _one_value(before, now)


def _distance(before: Shares, now: Shares) -> float:
    """Returns the total variation distance."""
    names = before.keys() | now.keys()
    return sum(abs(now.get(each, 0.0) - before.get(each, 0.0)) for each in names) / 2


def _explained(before: Values, now: Values, undone: Shares) -> float:
    """Returns how much of the distance is gone if the current shares are `undone`."""
    whole = _distance(before.shares, now.shares)
    left = _distance(before.shares, undone)
    # What chance parts two samples of one distribution by, on average, is no part of the change.
    scale = 2 / math.pi * (1 / before.n + 1 / now.n)
    chance = sum(math.sqrt(scale * share) for share in before.shares.values()) / 2
    return 1 - max(0.0, left - chance) / whole if whole else 0.0


def _written_otherwise(before: Values, now: Values) -> Iterator[LikelyCause]:
    new = [name for name in now.shares if name not in before.shares]
    for rank, (words, form) in enumerate(_FORMS):
        known: dict[str, str] = {}
        for name in sorted(before.shares, key=lambda each: before.shares[each]):
            known[form(name)] = name
        twins = {name: known[form(name)] for name in new if form(name) in known}
        if twins:
            share = _explained(before, now, _as_before(now.shares, twins))
            yield LikelyCause(f"{words}: {_examples(twins, now.shares)}", share, rank)


def _as_before(shares: Shares, twins: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, share in shares.items():
        old = twins.get(name, name)
        found[old] = found.get(old, 0.0) + share
    return found


def _renamed(before: Values, now: Values) -> Iterator[LikelyCause]:
    """Yields new names in the place of those that are gone, by their shares."""
    gone = _fallen(before, now)
    new = _fallen(now, before)
    twins: dict[str, str] = {}
    for name in sorted(new, key=lambda each: -now.shares[each]):
        able = [
            old
            for old in gone
            if old not in twins.values() and alike(before.shares[old], now.shares[name])
        ]
        if able:
            twins[name] = max(able, key=lambda old: _likeness(old, name, before, now))
    if twins:
        share = _explained(before, now, _as_before(now.shares, twins))
        yield LikelyCause(f"renamed: {_examples(twins, now.shares)}?", share, len(_FORMS))


def _likeness(old: str, new: str, before: Values, now: Values) -> tuple[float, float]:
    written = SequenceMatcher(None, old.casefold(), new.casefold()).ratio()
    return round(written, 1), -abs(before.shares[old] - now.shares[new])


def _fallen(side: Values, other: Values) -> list[str]:
    """Returns the values of a side that the other no longer has."""
    return [
        name
        for name, share in side.shares.items()
        if other.shares.get(name, 0.0) <= _GONE * share
        and moved(other.shares.get(name, 0.0), other.n, share, side.n)
    ]


def _one_value(before: Values, now: Values) -> Iterator[LikelyCause]:
    """Yields the new value, or the one that is gone, that makes the change."""
    for words, name in _new_and_gone(before, now):
        rest = {key: share for key, share in now.shares.items() if key != name}
        was = before.shares.get(name, 0.0)
        kept = (1 - was) / (sum(rest.values()) or 1.0)
        undone = {name: was, **{key: share * kept for key, share in rest.items()}}
        yield LikelyCause(words, _explained(before, now, undone), len(_FORMS) + 1)


def _new_and_gone(before: Values, now: Values) -> Iterator[tuple[str, str]]:
    if before.whole:
        for name in _fallen(now, before):
            if name not in before.shares:
                yield f"a new value: {_name(name)}", name
    if now.whole:
        for name in _fallen(before, now):
            if name not in now.shares:
                yield f"a value is gone: {_name(name)}", name


def _stuck(before: Values, now: Values) -> Iterator[LikelyCause]:
    name, share = max(now.shares.items(), key=lambda each: each[1], default=("", 0.0))
    if share >= _STUCK and before.shares.get(name, 0.0) < _STUCK_BEFORE and before.shares:
        yield LikelyCause(f"stuck at {_name(name)}: {share_words(share)} of the values", rank=-1)


def _nulls(before: Values, now: Values) -> Iterator[LikelyCause]:
    """Yields values that stand for nulls which the other side has."""
    if not moved(before.missing, before.rows, now.missing, now.rows):
        return
    fewer = now.missing < before.missing
    first, second = (before, now) if fewer else (now, before)
    for name, share in second.shares.items():
        of_rows = share * second.n / second.rows
        had = first.shares.get(name, 0.0) * first.n / first.rows
        if alike(of_rows - had, first.missing - second.missing) and had <= _GONE * of_rows:
            said = f"nulls became {_name(name)}" if fewer else f"{_name(name)} became null"
            yield LikelyCause(said, rank=-2 if name.casefold() in _NULL_NAMES else -1)


def _examples(twins: Mapping[str, str], shares: Shares) -> str:
    most = sorted(twins, key=lambda each: -shares[each])[:_PAIRS]
    said = ", ".join(f"{_name(new)} was {_name(twins[new])}" for new in most[:1])
    return said + (f" and {len(twins) - 1} more" if len(twins) > 1 else "")


def _name(text: str) -> str:
    return one_line(repr(text), 40)


def _boolean(text: str) -> str:
    return _BOOLEANS.get(text.strip().casefold(), text)


def _number(text: str) -> str:
    try:
        return f"{float(text.replace(',', '')):.12g}"
    except ValueError:
        return text


def _unaccented(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text)
    return "".join(each for each in parts if not unicodedata.combining(each))


def _plain(text: str) -> str:
    return "".join(each for each in _unaccented(text).casefold() if each.isalnum())


def _spaced(text: str) -> str:
    return " ".join(text.split())


# What two spellings of one value share, the plainest difference first.
_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("letter case", str.casefold),
    ("a space at the end", str.rstrip),
    ("a space at the start", str.lstrip),
    ("spaces", _spaced),
    ("letter case and spaces", lambda text: _spaced(text).casefold()),
    ("a boolean as another text", _boolean),
    ("a number written otherwise", _number),
    ("accents, or another encoding", _unaccented),
    ("quotes", lambda text: text.strip("'\"")),
    ("punctuation", _plain),
)
