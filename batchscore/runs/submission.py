"""What a lease says of a run that an engine works on without its launcher."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from batchscore.storage.typed import Moment

JobState = Literal["alive", "ended", "gone", "unknown"]
"""What an engine says of a job: it waits or works, it has ended, or the engine knows no such job.

`unknown` if the engine cannot be asked, or does not answer.
"""

_LOOPBACK = re.compile(r"(https?://)?(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/.*)?", re.DOTALL)
_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?[^/?#]*@")


SUBMITTED = "submitted"
"""How the command ends that left a run."""


@dataclass(frozen=True)
class Submission:
    """How to find the job of a run at its engine, from any machine.

    Args:
        engine: The value of `runtime.engine`.
        job: The engine's own id of the job; empty until the engine has it.
        name: What the engine calls the job; it has no other run's name.
        address: Where the engine can be asked, without credentials; empty if that is not known.
        deadline: Until when the run may wait for its first worker, ISO 8601 in UTC; None once a
            worker has renewed the lease.
        detached: Whether the launcher left, so that nobody needs to watch.
    """

    engine: str
    job: str = ""
    name: str = ""
    address: str = ""
    deadline: Moment | None = None
    detached: bool = False

    def patience(self, renewed: str) -> float:
        """Returns the seconds from a moment until the deadline; 0 without one."""
        if self.deadline is None:
            return 0.0
        end, start = map(datetime.fromisoformat, (self.deadline, renewed))
        return (end - start).total_seconds()

    def from_elsewhere(self) -> Submission:
        """Returns what another machine than the launcher's knows: its loopback is not the same."""
        return replace(self, address="") if _LOOPBACK.fullmatch(self.address) else self

    def __str__(self) -> str:
        """Names the job, as messages do."""
        return f"engine {self.engine}, job {self.job or self.name or 'unknown'}"


Ask = Callable[[Submission], JobState]
"""Asks the engine of a job."""


def without_secrets(address: str) -> str:
    """Returns an engine's address without user, query and fragment, none of which may be stored."""
    plain = _USER.sub(lambda match: match[1] or "", address)
    return re.split(r"[?#]", plain, maxsplit=1)[0].rstrip("/")
