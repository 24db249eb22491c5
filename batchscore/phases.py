"""The phases of a command, which add up to all of its time, and the steps of its start-up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

from batchscore.system.usage import used_by_me

START_UP, PLANNING, LOADING = "start_up", "planning", "loading"
SCORING, PUBLISHING = "scoring", "publishing"

PHASES = {
    START_UP: "starting the process, and importing Arrow, Beam and the framework",
    PLANNING: "reading the job file, listing the input, and comparing it with what is published",
    LOADING: "loading the model and the functions, trying a sample, and starting the workers",
    SCORING: "from the first unit's first row to the last unit's end",
    PUBLISHING: "merging, checks and publishing",
}
"""What each phase is for, in their order."""
_BEFORE = (START_UP, PLANNING, LOADING)

PROCESS, IMPORTS, BEAM, FRAMEWORK = "process", "imports", "beam", "framework"
JOB, INPUT, PUBLISHED = "job", "input", "published"
MODEL, SAMPLE, PIPELINE = "model", "sample", "pipeline"


class StartStep(NamedTuple):
    """A part of a phase before scoring: which phase, and what it is for."""

    phase: str
    meaning: str


STEPS = {
    PROCESS: StartStep(START_UP, "starting Python, until the command line is read"),
    IMPORTS: StartStep(START_UP, "importing batchscore and Arrow"),
    BEAM: StartStep(START_UP, "importing Beam, and validating Beam options"),
    FRAMEWORK: StartStep(START_UP, "importing the model's framework, or waiting for its process"),
    JOB: StartStep(PLANNING, "reading the job file"),
    INPUT: StartStep(PLANNING, "listing the input, and reading footers and the model folder"),
    PUBLISHED: StartStep(PLANNING, "taking the slice, and comparing with what is published"),
    MODEL: StartStep(LOADING, "loading the model and the functions"),
    SAMPLE: StartStep(LOADING, "showing on a sample that a score depends on its row alone"),
    PIPELINE: StartStep(LOADING, "building the pipeline and starting workers, up to the first row"),
}
"""The steps before scoring, in the order in which most of them come."""


class Stopwatch:
    """Measures how long a command is in each of its steps; each moment belongs to one step.

    A phase after loading is a step of its own.

    Args:
        started: When the command started, in Unix seconds; now by default.

    Attributes:
        cpu_before: CPU seconds that the process had used when the command started.
    """

    def __init__(self, started: float | None = None) -> None:
        self.started = time.time() if started is None else started
        # A command that has its process for itself counts all of it.
        self.cpu_before = used_by_me().cpu_s if started is None else 0.0
        self._spent: dict[str, float] = {}
        self._step, self._since = PROCESS, self.started

    def started_at(self) -> str:
        """Returns when the command started, in UTC, as manifests have it."""
        moment = datetime.fromtimestamp(self.started, timezone.utc)
        return moment.isoformat(timespec="milliseconds")

    def enter(self, step: str) -> None:
        """Ends the step before, and starts another."""
        now = time.time()
        # A clock that is set back takes no time away.
        self._spent[self._step] = self._spent.get(self._step, 0.0) + max(0.0, now - self._since)
        self._step, self._since = step, now

    @contextmanager
    def during(self, step: str) -> Iterator[None]:
        """Counts what is done inside for another step."""
        before = self._step
        self.enter(step)
        try:
            yield
        finally:
            self.enter(before)

    def steps(self) -> dict[str, float]:
        """Returns the seconds of each step until now."""
        self.enter(self._step)
        return {step: self._spent.get(step, 0.0) for step in (*STEPS, SCORING, PUBLISHING)}

    def spent(self) -> dict[str, float]:
        """Returns the seconds of each phase until now."""
        return by_phase(self.steps())


def by_phase(steps: Mapping[str, float]) -> dict[str, float]:
    """Returns the seconds of each phase; plans of earlier versions have phases and no steps."""
    found = dict.fromkeys(PHASES, 0.0)
    for name, seconds in steps.items():
        phase = STEPS[name].phase if name in STEPS else name
        if phase in found:
            found[phase] += seconds
    return found


def times(started: str, ended: datetime | None = None) -> dict[str, Any]:
    """Returns when a command started and ended, and its seconds, as manifests have them.

    Args:
        started: The start in UTC, as `Stopwatch.started_at` returns it.
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


def start_up_steps(steps: Mapping[str, float], phases: Mapping[str, float]) -> dict[str, float]:
    """Returns the steps before scoring in whole milliseconds, which add up to their phases.

    Args:
        steps: What a stopwatch measured; without any there are none to return.
        phases: As `rounded` returns them. What they have in addition to the steps is the
            pipeline's, or, where it is only rounded off, the first step's of its phase.
    """
    found: dict[str, float] = {}
    for phase in _BEFORE if any(step in STEPS for step in steps) else ():
        mine = [step for step in STEPS if STEPS[step].phase == phase]
        spent = _within({step: steps.get(step, 0.0) for step in mine}, phases[phase])
        floors = {step: math.floor(each * 1000) / 1000 for step, each in spent.items()}
        rest = mine[-1] if phase == LOADING else mine[0]
        others = sum(each for step, each in floors.items() if step != rest)
        found |= {**floors, rest: max(0.0, round(phases[phase] - others, 3))}
    return found
