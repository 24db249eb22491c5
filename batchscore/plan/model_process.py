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
from batchscore.processes import count_cores, shows_gpu

_MANY_ROWS = 1_000_000
"""Fewer are scored before another process would pay for its start."""


def with_model_process(plan: Plan, workers: int) -> Plan:
    """Returns the plan with the choice between a process for the model and none.

    Args:
        plan: What a run would do.
        workers: That the run will have.

    Raises:
        InvalidError: The job asks for a process, and the model cannot be in one.
    """
    asked = plan.loaded.job.runtime.model_process
    chosen, why = _choose(plan, asked, workers)
    execution = replace(plan.spec.execution, model_process=chosen)
    choices = {**plan.choices, "model_process": f"{'on' if chosen else 'off'}, {why}"}
    return replace(plan, spec=replace(plan.spec, execution=execution), choices=choices)


def _choose(plan: Plan, asked: str, workers: int) -> tuple[bool, str]:
    if asked == "off":
        return False, "as asked for"
    impossible = _impossible(plan)
    if asked == "on":
        if impossible is not None:
            raise InvalidError(
                f"runtime.model_process on: not possible, since {impossible}; set it to auto"
            )
        return True, "as asked for"
    useless = impossible or _useless(plan, workers)
    if useless is not None:
        return False, f"since {useless}"
    return True, "so that its framework is imported, and computes, next to all else"


def _impossible(plan: Plan) -> str | None:
    """Returns why the model cannot be in a process of its own, or None."""
    if not hasattr(socket, "send_fds"):
        return "this system cannot hand files to other processes"
    if plan.spec.scoring.model.folder.startswith("memory:"):
        return "the model is in this process's memory"
    return None


def _useless(plan: Plan, workers: int) -> str | None:
    """Returns why another process would not make the run faster, or None."""
    runtime, form = plan.loaded.job.runtime, plan.spec.scoring.model.format
    imported = [name for name in backend_of(form).packages if name.replace("-", "_") in sys.modules]
    if imported:
        return f"{imported[0]} is imported in this process already"
    if count_cores() == 1:
        return "there is one core"
    if runtime.engine != "direct":
        return f"it was not measured on engine {runtime.engine}"
    if workers > 1:
        return f"{counted(workers, 'worker')} keep the cores busy"
    rows = sum(piece.rows for piece in plan.pieces)
    if rows < _MANY_ROWS and not early.is_started(form):
        return f"{counted(rows, 'row')} {of_count(rows, 'is', 'are')} soon done"
    if runtime.device.startswith("cuda") or shows_gpu():
        return "it was not measured on a GPU"
    return None
