"""The versions of Beam that batchscore's use of Beam's private parts is tested with."""

from __future__ import annotations

from batchscore.errors import InvalidError
from batchscore.system.packages import version

TESTED = "2.77"
"""The minor version; its patches change no part that is used."""


def require_tested_beam() -> None:
    """Refuses a version of Beam that was not tested, before any part of it is imported.

    Raises:
        InvalidError: Another version is installed.
    """
    found = version("apache-beam")
    if found.split(".")[:2] != TESTED.split("."):
        raise InvalidError(
            f"apache-beam {found} is installed: batchscore uses parts of Beam that change between "
            f"versions, and is tested with {TESTED}; install 'apache-beam=={TESTED}.*', or a "
            f"batchscore that is tested with {found}"
        )
