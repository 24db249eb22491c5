"""Loads a plan's model and functions, as `run` and `check` do before anything is scored."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from batchscore.engines.flags import as_flags
from batchscore.engines.protocol import Engine
from batchscore.engines.registry import find_engine
from batchscore.models.backends.registry import backend_of
from batchscore.phases import BEAM, FRAMEWORK, MODEL, Stopwatch
from batchscore.plan import Plan
from batchscore.processes import uncollected, warn_of_compiling
from batchscore.units.unit import Unit


def prepared(plan: Plan, units: Sequence[Unit], clock: Stopwatch, flags: Sequence[str]) -> Plan:
    """Returns the plan with its device resolved, once all that scoring imports is imported.

    Args:
        plan: What a run would do.
        units: What is to be scored.
        clock: Counts the imports as start-up, and the rest as loading.
        flags: All Beam options, which the engine validates.

    Raises:
        InvalidError: An option, the device, the model or a function cannot be used.
    """
    with clock.during(BEAM), uncollected():
        engine_of(plan).parse_flags(flags)
        # The graph needs Beam, and is built later, where nothing else may take seconds.
        import_module("batchscore.pipeline")
    warn_of_compiling("apache_beam")
    with clock.during(FRAMEWORK), uncollected():
        backend_of(plan.spec.scoring.model.format).prepare()
        from batchscore.plan.readiness import verify

    with clock.during(MODEL):
        return verify(plan, units, clock)


def engine_of(plan: Plan) -> Engine:
    """Returns the engine that a plan's job names.

    Raises:
        JobFileError: There is none of this name.
    """
    return find_engine(plan.loaded.job.runtime.engine)


def all_flags(plan: Plan, flags: Sequence[str]) -> list[str]:
    """Returns the Beam options of the job file, then those of the command line."""
    return [*as_flags(plan.loaded.job.runtime.options), *flags]
