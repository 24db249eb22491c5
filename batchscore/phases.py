"""The phases of a command, which add up to all of its time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

START_UP, PLANNING, LOADING = "start_up", "planning", "loading"
SCORING, PUBLISHING = "scoring", "publishing"

PHASES = {
    START_UP: "starting the process, and importing Arrow, Beam and torch",
    PLANNING: "reading the job file, listing the input, and comparing it with what is published",
    LOADING: "loading the model and the functions, trying a sample, and starting the workers",
    SCORING: "from the first unit's first row to the last unit's end",
    PUBLISHING: "merging, checks and publishing",
}
"""What each phase is for, in their order."""
_BEFORE = (START_UP, PLANNING, LOADING)


class Stopwatch:
    """Measures how long a command is in each of its phases; each moment belongs to one phase.

    Args:
        started: When the command started, in Unix seconds; now by default.
    """

    def __init__(self, started: float | None = None) -> None:
        self.started = time.time() if started is None else started
        self._spent: dict[str, float] = {}
        self._phase, self._since = START_UP, self.started

    def started_at(self) -> str:
        """Returns when the command started, in UTC, as manifests have it."""
        moment = datetime.fromtimestamp(self.started, timezone.utc)
        return moment.isoformat(timespec="milliseconds")

    def enter(self, phase: str) -> None:
        """Ends the phase before, and starts another."""
        now = time.time()
        # A clock that is set back takes no time away.
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + max(0.0, now - self._since)
        self._phase, self._since = phase, now

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts what is done inside for another phase."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def spent(self) -> dict[str, float]:
        """Returns the seconds of each phase until now."""
        self.enter(self._phase)
        return {phase: self._spent.get(phase, 0.0) for phase in PHASES}


def times(started: str, ended: datetime | None = None) -> dict[str, Any]:
    """Returns when a command started and ended, and its seconds, as manifests have them.

    Args:
        started: In UTC, as `Stopwatch.started_at` returns it.
        ended: Now by default.
    """
    ended = ended or datetime.now(timezone.utc)
    seconds = (ended - datetime.fromisoformat(started)).total_seconds()
    return {
        "started": started,
        "finished": ended.isoformat(timespec="milliseconds"),
        # A clock may have been set back.
        "seconds": max(0.0, round(seconds, 3)),
    }


class Units(NamedTuple):
    """When a run's units were scored, in seconds since its start."""

    began: float
    ended: float


def label(phase: str) -> str:
    """Returns a phase as people read it: `start-up`."""
    return phase.replace("_", "-")


def split(seconds: float, spent: Mapping[str, float], units: Units | None) -> dict[str, float]:
    """Returns the phases of a run, which add up to all of its seconds.

    Args:
        seconds: All of the run's time.
        spent: By phase, until its workers were started.
        units: When its units were scored; None if the run ended before that was known.
    """
    before = _within({phase: spent.get(phase, 0.0) for phase in _BEFORE}, seconds)
    # A sum of floats may pass the whole by its last bit.
    known = min(sum(before.values()), seconds)
    # Clocks of several machines may disagree.
    began = known if units is None else min(max(units.began, known), seconds)
    ended = seconds if units is None else min(max(units.ended, began), seconds)
    before[LOADING] += began - known
    return {**before, SCORING: ended - began, PUBLISHING: seconds - ended}


def _within(phases: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Returns phases that together are no longer than the whole, if a clock was set back."""
    found: dict[str, float] = {}
    for phase, spent in phases.items():
        found[phase] = min(spent, max(0.0, seconds - sum(found.values())))
    return found


def rounded(phases: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Returns phases in whole milliseconds; publishing is what the others leave of the seconds."""
    others = _within({each: phases.get(each, 0.0) for each in (*_BEFORE, SCORING)}, seconds)
    found = {phase: math.floor(spent * 1000) / 1000 for phase, spent in others.items()}
    return {**found, PUBLISHING: max(0.0, round(seconds - sum(found.values()), 3))}
