"""Whether a run's model is in a process of its own, and why."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace

from batchscore.errors import InvalidError
from batchscore.messages.wording import counted, of_count
from batchscore.models.backends.registry import backend_of
from batchscore.models.process import early
from batchscore.plan.plan import Plan
from batchscore.system.resources import count_cores, shows_gpu

_MANY_ROWS = 1_000_000
"""Fewer are scored before another process would pay for its start."""


def with_model_process(plan: Plan, workers: int) -> Plan:
    """Returns the plan with the choice between a process for the model and none.

    Args:
        plan: What a run would do.
        workers: Number of workers that the run will have.

    Raises:
        InvalidError: The job asks for a process, and the model cannot be in one.
    """
    chosen, why = _choose(plan, workers)
    execution = replace(plan.spec.execution, model_process=chosen)
    choices = {**plan.choices, "model_process": f"{'on' if chosen else 'off'}, {why}"}
    return replace(plan, spec=replace(plan.spec, execution=execution), choices=choices)


def may_have_process(plan: Plan) -> bool:
    """Tells whether the model is in a process of its own, or would be for enough work."""
    if "model_process" in plan.choices:
        return plan.spec.execution.model_process
    asked = plan.loaded.job.runtime.model_process
    return asked == "on" or (asked == "auto" and _unsuitable(plan) is None)


def _choose(plan: Plan, workers: int) -> tuple[bool, str]:
    asked = plan.loaded.job.runtime.model_process
    if asked == "off":
        return False, "as asked for"
    if asked == "on":
        impossible = _impossible(plan)
        if impossible is not None:
            raise InvalidError(
                f"runtime.model_process on: not possible, since {impossible}; set it to auto"
            )
        return True, "as asked for"
    declined = _unsuitable(plan) or (_useless(plan) if workers == 1 else None)
    if declined is not None:
        return False, f"since {declined}"
    if workers > 1:
        return True, f"so that {counted(workers, 'worker')} share one model and its framework"
    return True, "so that its framework is imported, and computes, next to all else"


def _impossible(plan: Plan) -> str | None:
    """Returns why the model cannot be in a process of its own, or None."""
    if not hasattr(socket, "send_fds"):
        return "this system cannot hand files to other processes"
    if plan.spec.scoring.model.folder.startswith("memory:"):
        return "the model is in this process's memory"
    return None


def _unsuitable(plan: Plan) -> str | None:
    """Returns why a process is not known to make any run of this plan faster, or None."""
    impossible = _impossible(plan)
    if impossible is not None:
        return impossible
    runtime, form = plan.loaded.job.runtime, plan.spec.scoring.model.format
    imported = [name for name in backend_of(form).packages if name.replace("-", "_") in sys.modules]
    if imported:
        return f"{imported[0]} is imported in this process already"
    if runtime.engine != "direct":
        return f"it was not measured on engine {runtime.engine}"
    if runtime.device.startswith("cuda") or shows_gpu():
        return "it was not measured on a GPU"
    return None


def _useless(plan: Plan) -> str | None:
    """Returns why another process would not make a run with one worker faster, or None."""
    if count_cores() == 1:
        return "there is one core"
    rows = sum(piece.rows for piece in plan.pieces)
    if rows < _MANY_ROWS and not early.is_started(plan.spec.scoring.model.format):
        return f"{counted(rows, 'row')} {of_count(rows, 'is', 'are')} soon done"
    return None
