"""User code as another process would have it: imported again, and with another seed of hashes."""

from __future__ import annotations

import datetime
import os
import pathlib
import sys

AFRESH = 8
"""The edition of functions that is as in another process."""
NETWORK_AFRESH = 9
"""That of a network's code; if it is built for real, its edition is the next."""

_SEEDED = (str, bytes, datetime.date, datetime.time, pathlib.PurePath)
_OTHER_SEED = 0x5BD1E995


class _Seeded:
    """Replaces a value whose hash has another seed in another process."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __hash__(self) -> int:
        return hash(self._value) ^ _OTHER_SEED


def other_hash(value: object) -> int:
    """Returns what `hash()` may return in another process.

    Python takes another seed for texts, bytes, dates, times and paths in each process, unless
    PYTHONHASHSEED sets one. Numbers have the same hash everywhere.
    """
    return hash(_other(value) if _is_random() else value)


def _other(value: object) -> object:
    if isinstance(value, tuple) and type(value).__hash__ is tuple.__hash__:
        return tuple(map(_other, value))
    if isinstance(value, frozenset):
        return frozenset(map(_other, value))
    return _Seeded(value) if isinstance(value, _SEEDED) else value


def _is_random() -> bool:
    """Tells whether each process has a seed of its own."""
    given = os.environ.get("PYTHONHASHSEED", "random") in ("", "random")
    return bool(sys.flags.hash_randomization) and given
