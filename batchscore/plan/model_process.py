"""Whether a run's model is in a process of its own, and why."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace

from batchscore.errors import InvalidError
from batchscore.messages.wording import counted, of_count
from batchscore.models.backends.registry import backend_of
from batchscore.plan.auto import count_cores
from batchscore.plan.plan import Plan

_MANY_ROWS = 1_000_000
"""Fewer are scored before another process would pay for its start."""
_GPUS = ("/dev/nvidiactl", "/dev/kfd")


def with_model_process(plan: Plan) -> Plan:
    """Returns the plan with the choice between a process for the model and none.

    Raises:
        InvalidError: The job asks for a process, and the model cannot be in one.
    """
    asked = plan.loaded.job.runtime.model_process
    chosen, why = _choose(plan, asked)
    execution = replace(plan.spec.execution, model_process=chosen)
    choices = {**plan.choices, "model_process": f"{'on' if chosen else 'off'}, {why}"}
    return replace(plan, spec=replace(plan.spec, execution=execution), choices=choices)


def _choose(plan: Plan, asked: str) -> tuple[bool, str]:
    if asked == "off":
        return False, "as asked for"
    impossible = _impossible(plan)
    if asked == "on":
        if impossible is not None:
            raise InvalidError(
                f"runtime.model_process on: not possible, since {impossible}; set it to auto"
            )
        return True, "as asked for"
    useless = impossible or _useless(plan)
    if useless is not None:
        return False, f"since {useless}"
    return True, "so that it computes while the worker reads and writes"


def _impossible(plan: Plan) -> str | None:
    """Returns why the model cannot be in a process of its own, or None."""
    if not hasattr(socket, "send_fds"):
        return "this system cannot hand files to other processes"
    if plan.spec.scoring.model.folder.startswith("memory:"):
        return "the model is in this process's memory"
    return None


def _useless(plan: Plan) -> str | None:
    """Returns why another process would not make the run faster, or None."""
    runtime, form = plan.loaded.job.runtime, plan.spec.scoring.model.format
    imported = [name for name in backend_of(form).packages if name.replace("-", "_") in sys.modules]
    if imported:
        return f"{imported[0]} is imported in this process already"
    if count_cores() == 1:
        return "there is one core"
    if runtime.engine != "direct":
        return f"it was not measured on engine {runtime.engine}"
    rows = sum(piece.rows for piece in plan.pieces)
    if rows < _MANY_ROWS:
        return f"{counted(rows, 'row')} {of_count(rows, 'is', 'are')} soon done"
    if runtime.device.startswith("cuda") or any(os.path.exists(each) for each in _GPUS):
        return "it was not measured on a GPU"
    return None
