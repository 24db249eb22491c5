"""Versions of installed packages, without parsing their descriptions."""

from __future__ import annotations

import re
from importlib.metadata import distribution

_VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)


def version(name: str) -> str:
    """Returns the version of an installed package.

    `importlib.metadata` parses the whole description as an email, five times as slowly; a run
    asks twenty times.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    found = distribution(name)
    head, _, _ = (found.read_text("METADATA") or "").partition("\n\n")
    line = _VERSION.search(head)
    return line[1] if line else found.version
