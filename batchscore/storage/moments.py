"""Moments by the clock of a store: when a file was written, and when an answer was given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

# By what names filesystems tell when a file was written.
_WRITTEN = ("mtime", "LastModified", "updated", "last_modified")


def moment(info: Mapping[str, Any]) -> float | None:
    """Returns when a file was written, in Unix seconds; None if what was listed does not tell."""
    found = next((info[name] for name in _WRITTEN if info.get(name) is not None), None)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None


def dated(headers: Mapping[str, str]) -> float | None:
    """Returns when an answer was given, in Unix seconds; None if its headers do not tell.

    Args:
        headers: Of HTTP, whose names are compared without regard to case.
    """
    found = next((text for name, text in headers.items() if name.lower() == "date"), "")
    try:
        return parsedate_to_datetime(found).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
