"""Versions of installed packages, without parsing their descriptions."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

_OTHER_NAMES = {"xgboost": ("xgboost-cpu",)}
"""Packages that bring the same module."""
_VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)


def version(name: str) -> str:
    """Returns the version of an installed package, under whatever name it is installed.

    `importlib.metadata` parses the whole description as an email, five times as slowly; a run
    asks twenty times.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    found = _found(name)
    head, _, _ = (found.read_text("METADATA") or "").partition("\n\n")
    line = _VERSION.search(head)
    return line[1] if line else found.version


def _found(name: str) -> Distribution:
    for other in _OTHER_NAMES.get(name, ()):
        try:
            return distribution(other)
        except PackageNotFoundError:
            continue
    return distribution(name)
