"""Loads a plan's model and functions, as `run` and `check` do before anything is scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from batchscore.engines.flags import as_flags
from batchscore.engines.protocol import Engine
from batchscore.engines.registry import find_engine
from batchscore.errors import BatchscoreError
from batchscore.finish.drift_gate import import_comparison
from batchscore.job.sections import Runtime
from batchscore.models.process import early
from batchscore.models.process.current import host_for
from batchscore.phases import BEAM, FRAMEWORK, IMPORTS, MODEL, SAMPLE, Stopwatch
from batchscore.plan import Plan
from batchscore.plan.elsewhere import is_elsewhere, on_cpu, unplaced
from batchscore.plan.model_process import with_model_process
from batchscore.system.imports import uncollected, warn_of_compiling
from batchscore.units.unit import Unit
from batchscore.worker.scoring import backend_for

if TYPE_CHECKING:
    from batchscore.plan.prove import SampleRows

_log = logging.getLogger("batchscore.run")


def with_process(plan: Plan, workers: int) -> Plan:
    """Returns the plan with its model's process started, if the model has one.

    Started before the workers and Beam, it imports the model's framework next to them.

    Args:
        plan: What a run would do.
        workers: That the run will have.

    Raises:
        InvalidError: The job asks for a process, and the model cannot be in one.
    """
    plan = with_model_process(plan, workers)
    execution = plan.spec.execution
    if execution.model_process:
        host_for(plan.spec.scoring.model.format, execution.model_timeout_s).start()
    else:
        early.end()
    return plan


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
    # The model's process imports its framework meanwhile; nothing here needs it yet.
    with clock.during(IMPORTS), uncollected():
        from batchscore.plan.readiness import verify

        if plan.references.chosen:
            import_comparison()
    with clock.during(SAMPLE):
        sample = _read_ahead(plan, units)
    with clock.during(FRAMEWORK), uncollected():
        backend_for(plan.spec).prepare()
    ships = engine_of(plan).ships
    with clock.during(MODEL):
        if ships and is_elsewhere(plan):
            tried = verify(on_cpu(plan), units, clock, sample)
            return _placed(plan, tried, units, flags)
        return verify(_with_workers_device(plan) if ships else plan, units, clock, sample)


def _placed(plan: Plan, tried: Plan, units: Sequence[Unit], flags: Sequence[str]) -> Plan:
    """Returns the plan with the device that only workers have, once one of them has tried it."""
    from batchscore.commands.workers_check import place_by_worker

    if not units:
        return unplaced(plan, tried)
    _log.warning(
        "runtime.device %s: not on this machine; model and functions were tried on its CPU, and a "
        "worker tries the device",
        plan.spec.execution.device,
    )
    return place_by_worker(plan, tried, units, flags)


def _with_workers_device(plan: Plan) -> Plan:
    """Returns the plan on the CPU if its device is `auto`: workers must not differ in theirs."""
    if plan.spec.execution.device != "auto":
        return plan
    execution = replace(plan.spec.execution, device="cpu")
    return replace(plan, spec=replace(plan.spec, execution=execution))


def _read_ahead(plan: Plan, units: Sequence[Unit]) -> SampleRows | None:
    """Reads a sample of the units; None if that fails, and is tried again in its place."""
    from batchscore.plan.prove import read_sample_rows

    with suppress(BatchscoreError, OSError):
        return read_sample_rows(plan, units) if units else None
    return None


def engine_of(plan: Plan) -> Engine:
    """Returns the engine that a plan's job names.

    Raises:
        JobFileError: There is none of this name.
    """
    return find_engine(plan.loaded.job.runtime.engine)


def all_flags(runtime: Runtime, flags: Sequence[str]) -> list[str]:
    """Returns the Beam options of the engine's section, of `options`, and of the command line.

    Of two for the same, Beam takes the last.

    Raises:
        JobFileError: The engine is not known.
    """
    section = find_engine(runtime.engine).section_flags(runtime)
    return [*section, *as_flags(runtime.options), *flags]
