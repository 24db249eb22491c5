"""How many rows a network best sees at once on a device: found by a short search, remembered."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchscore.errors import DeviceError

# A doubling that brings less is not worth its memory.
GAIN = 1.05
_FILE_BYTES = 1 << 20
_KEPT = 256


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
    """Returns the rows that were found best before, or None; a file that is damaged holds none."""
    rows = _read().get(key)
    return rows if rows is not None and rows <= most else None


def remember_rows(key: str, rows: int) -> None:
    """Remembers the best rows of a call for later runs; where that cannot be, it is left out."""
    known = {name: value for name, value in _read().items() if name != key}
    kept = dict([*known.items(), (key, rows)][-_KEPT:])
    path = cache_file()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_file(path, json.dumps(kept, indent=1))


def _replace_file(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise


def cache_file() -> Path:
    """Returns where sizes are remembered: in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "batchscore" / "micro_batch.json"


def _read() -> dict[str, int]:
    path = cache_file()
    try:
        # What is no file, as a pipe, might keep its reader waiting for ever.
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            found = json.loads(file.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: rows for key, rows in found.items() if type(rows) is int and rows > 0}
