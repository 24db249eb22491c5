"""Waiting for what another thread or process does, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.02


def wait_until(condition: Callable[[], T], seconds: float = 90.0) -> T:
    """Returns what a condition gives once that is true; fails if it takes so many seconds.

    The deadline is for what hangs: it is far beyond what a busy machine needs.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s"
        time.sleep(_LOOK_SECONDS)
    return found
