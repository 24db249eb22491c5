"""Loads a plan's model and functions, as `run` and `check` do before anything is scored."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from batchscore.phases import LOADING, START_UP, Stopwatch
from batchscore.plan import Plan
from batchscore.processes import uncollected
from batchscore.units.unit import Unit


def prepared(plan: Plan, units: Sequence[Unit], clock: Stopwatch) -> Plan:
    """Returns the plan with its device resolved, once all that scoring imports is imported.

    Args:
        plan: What a run would do.
        units: What is to be scored.
        clock: Counts the imports as start-up, and the rest as loading.

    Raises:
        InvalidError: The device, the model or a function cannot be used.
    """
    with clock.during(START_UP), uncollected():
        # The graph needs Beam, and is built later, where nothing else may take seconds.
        import_module("batchscore.pipeline")
        import_module("batchscore.engines.direct")
        from batchscore.plan.readiness import verify

    with clock.during(LOADING):
        return verify(plan, units)
