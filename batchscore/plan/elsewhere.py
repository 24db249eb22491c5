"""A plan whose device only the workers' machines have: what is tried here, and what there."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchscore.errors import DeviceError, InvalidError
from batchscore.models.backends.facts import DEFAULT_KERNELS, TILE_ROWS
from batchscore.models.backends.registry import backend_of, naming
from batchscore.plan.plan import Plan
from batchscore.units.unit import Unit
from batchscore.worker.scoring import backend_for
from batchscore.worker.spec import RunSpec


@dataclass(frozen=True)
class Placement:
    """How a worker's machine computes a plan, and that it may.

    Args:
        host: Name of the machine.
        pid: The worker's process id there.
        device: The device.
        call_rows: Rows per network call.
        choices: What the plan came to there, and why, by key of the job file.
        inference: How the network is called, for the manifest.
    """

    host: str
    pid: int
    device: str
    call_rows: int
    choices: dict[str, str]
    inference: Any


def is_elsewhere(plan: Plan) -> bool:
    """Tells whether a plan asks for a device that models of its format know, and not this machine.

    Whether it is on a worker's machine has to be tried there.
    """
    asked, form = plan.spec.execution.device, plan.spec.scoring.model.format
    if asked.partition(":")[0] not in backend_of(form).other_devices:
        return False
    try:
        with naming(form):
            backend_for(plan.spec).resolve(asked)
    except DeviceError:
        return True
    return False


def on_cpu(plan: Plan) -> Plan:
    """Returns the plan as this machine can try it: on the CPU, called in the usual way."""
    usual = {"micro_batch": "auto", "precision": "float32", "compile": False}
    runtime = plan.loaded.job.runtime.model_copy(update={**usual, "kernels": DEFAULT_KERNELS})
    job = plan.loaded.job.model_copy(update={"runtime": runtime})
    execution = replace(
        plan.spec.execution,
        device="cpu",
        precision="float32",
        compile=False,
        kernels=DEFAULT_KERNELS,
        call_rows=TILE_ROWS,
        auto_rows=True,
    )
    spec = replace(plan.spec, execution=execution)
    return replace(plan, loaded=replace(plan.loaded, job=job), spec=spec)


def part_of(plan: Plan, unit: Unit) -> Plan:
    """Returns a plan of a few rows, small enough to be sent, and without what it is compared with.

    Args:
        unit: Has the rows.
    """
    references = replace(plan.references, chosen=())
    small = replace(plan, pieces=unit.pieces, shards=(), bad_files=(), references=references)
    return replace(small, choices={}, inference={})


def place_there(spec: RunSpec, plan: Plan, units: Sequence[Unit]) -> Placement:
    """Resolves a plan's device on this machine, and tries there all that a launcher would try.

    Args:
        spec: With code and model in folders of this machine.
        plan: What `part_of` returned.
        units: The rows on which scores must depend on their rows alone.

    Raises:
        InvalidError: The machine has no such device, or a score may not be computed on it.
    """
    from batchscore.plan.readiness import verify

    found = verify(replace(plan, spec=spec), units)
    execution = found.spec.execution
    return Placement(
        platform.node(),
        os.getpid(),
        execution.device,
        execution.call_rows,
        found.choices,
        found.inference,
    )


def placed_as(plan: Plan, tried: Plan, found: Placement) -> Plan:
    """Returns the plan as a worker's machine computes it.

    Args:
        plan: What the job asks for.
        tried: What was tried of it here.
        found: What was tried of it there.

    Raises:
        InvalidError: The worker answered with another device.
    """
    asked = plan.spec.execution.device
    if found.device.partition(":")[0] != asked.partition(":")[0]:
        raise InvalidError(f"runtime.device {asked}: the worker on {found.host} has {found.device}")
    execution = replace(
        plan.spec.execution,
        device=found.device,
        call_rows=found.call_rows,
        kernels=DEFAULT_KERNELS,
        model_process=tried.spec.execution.model_process,
    )
    return replace(
        plan,
        spec=replace(plan.spec, scoring=tried.spec.scoring, execution=execution),
        choices={**tried.choices, **_said(found)},
        inference=found.inference,
        here=tried.spec.execution,
    )


def unplaced(plan: Plan, tried: Plan) -> Plan:
    """Returns a plan that has no row to score, so that no worker is asked for its device."""
    asked = plan.spec.execution.device
    choices = {**tried.choices, "device": f"{asked}, as asked for; it had nothing to compute"}
    return replace(tried, loaded=plan.loaded, choices=choices)


def seen_here(plan: Plan) -> Plan:
    """Returns the plan as this process can score rows of it."""
    if plan.here is None:
        return plan
    return replace(plan, spec=replace(plan.spec, execution=plan.here))


def _said(found: Placement) -> Mapping[str, str]:
    """Returns what a worker chose, and that it is a worker's choice."""
    where = f"by the worker on {found.host}"
    device = f"{found.choices['device']}; resolved and tried {where}, and not on this machine"
    return {**found.choices, "device": device, "alone": f"{found.choices['alone']}, {where}"}
