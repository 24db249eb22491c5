"""How the allocators of this process, and of those started later, keep freed memory."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_ARENAS = 4
_M_ARENA_MAX = -8  # in glibc's malloc.h


def share_arenas() -> None:
    """Has threads share four of glibc's arenas, here and in processes that are started from now on.

    It would make eight a core. Each keeps what its threads gave back, and fresh memory costs the
    others time. A `MALLOC_ARENA_MAX` of the user's is kept; without glibc nothing changes.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    os.environ["MALLOC_ARENA_MAX"] = str(_ARENAS)
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def keep_memory_of_arrow() -> None:
    """Has Arrow keep what it frees, here if it is not loaded yet, and in processes started later.

    Its allocator, mimalloc, would give pages back after ten milliseconds, and take them again,
    cleared, for the next block. A `MIMALLOC_PURGE_DELAY` of the user's is kept.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
