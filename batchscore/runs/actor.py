"""Who runs or decides something, as histories name them."""

from __future__ import annotations

import getpass
import os
import platform


def actor() -> str:
    """Returns `user@host` of this process."""
    return f"{user()}@{platform.node()}"


def user() -> str:
    """Returns who this process belongs to."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())
