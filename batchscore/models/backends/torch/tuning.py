"""How many rows a network best sees at once on a device: found by a short search, remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchscore.errors import DeviceError
from batchscore.models.backends.remembered import recall, remember

# A doubling that brings less is not worth its memory.
GAIN = 1.05
FILE = "micro_batch.json"


@dataclass(frozen=True)
class Speed:
    """What calls of one size came to: rows a second, and the most memory in use, in bytes."""

    rows_per_second: float
    peak_bytes: int


Measure = Callable[[int], Speed | None]


def search_rows(first: int, most: int, measure: Measure, limit_bytes: int) -> int:
    """Returns the rows of a call: doubled while that gains more than 5 %, or halved until they fit.

    Args:
        first: The number that is tried first.
        most: The largest number.
        measure: Tries calls of so many rows; None where memory runs out.
        limit_bytes: The most bytes of memory in use.

    Raises:
        DeviceError: Not even calls of one row stay within the limit.
    """
    rows = min(first, most)
    while (best := _fitting(rows, measure, limit_bytes)) is None:
        if rows == 1:
            raise DeviceError(
                f"one row alone needs more than {limit_bytes / 2**30:.1f} GiB of the device's "
                "memory, half of what is free; use a smaller model, a device with more memory, "
                "or runtime.device cpu; or set runtime.micro_batch: 1 to try anyway"
            )
        rows, most = rows // 2, rows - 1
    while 2 * rows <= most:
        speed = _fitting(2 * rows, measure, limit_bytes)
        if speed is None or speed.rows_per_second < GAIN * best.rows_per_second:
            break
        rows, best = 2 * rows, speed
    return rows


def _fitting(rows: int, measure: Measure, limit_bytes: int) -> Speed | None:
    speed = measure(rows)
    return speed if speed is not None and speed.peak_bytes <= limit_bytes else None


def remembered_rows(key: str, most: int) -> int | None:
    """Returns the rows that were found best before, or None."""
    rows = recall(FILE, key)
    return rows if type(rows) is int and 0 < rows <= most else None


def remember_rows(key: str, rows: int) -> None:
    """Remembers the best rows of a call for later runs."""
    remember(FILE, key, rows)
