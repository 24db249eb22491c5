"""User code as another process would have it: imported again, and with another seed of hashes."""

from __future__ import annotations

import datetime
import os
import sys

AFRESH = 8
"""The edition of functions that is as in another process."""
NETWORK_AFRESH = 9
"""That of a network's code; if it is built for real, its edition is the next."""

_SEEDED = (str, bytes, datetime.date, datetime.time)
_OTHER_SEED = 0x5BD1E995


def other_hash(value: object) -> int:
    """Returns what `hash()` may return in another process.

    Python takes another seed for texts, bytes, dates and times in each process, unless
    PYTHONHASHSEED sets one. Numbers have the same hash everywhere.
    """
    if isinstance(value, tuple):
        return hash(tuple(map(other_hash, value)))
    if isinstance(value, frozenset):
        return hash(frozenset(map(other_hash, value)))
    number = hash(value)
    return hash(number ^ _OTHER_SEED) if isinstance(value, _SEEDED) and _is_random() else number


def _is_random() -> bool:
    """Tells whether each process has a seed of its own."""
    given = os.environ.get("PYTHONHASHSEED", "random") in ("", "random")
    return bool(sys.flags.hash_randomization) and given
