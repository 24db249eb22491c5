"""Whether a run's model and code are known to work: what tells their error from that of rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Trial:
    """Passed once a row was scored; until then rows that all fail may be the model or the code."""

    passed: bool


_TRIALS: dict[str, Trial] = {}


def trial_of(run: str | None, passed: bool) -> Trial:
    """Returns the trial that all stages and units of a run share within this process.

    Args:
        run: Name of the run; None for a rehearsal, which shares its trial with nobody.
        passed: Whether rows of the run were scored before it started.
    """
    trial = Trial(passed)
    return trial if run is None else _TRIALS.setdefault(run, trial)
