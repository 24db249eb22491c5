"""Tries what needs torch or the user's code, once and early: device, model, functions."""

from __future__ import annotations

from dataclasses import replace

from batchscore.errors import OutputError
from batchscore.models.load import describe_device, load_network, resolve_device
from batchscore.plan.plan import Plan
from batchscore.scoring import postprocess_step, preprocess_step
from batchscore.spec import RunSpec
from batchscore.stages.infer import DEFAULT_OUTPUT
from batchscore.stages.postprocess import output_names
from batchscore.stages.write import MODEL_VERSION


def verify(plan: Plan) -> Plan:
    """Returns the plan with its device resolved, once its model and functions were loaded.

    Raises:
        DeviceError, ModelError, FunctionError, OutputError: one of them cannot be used.
    """
    asked = plan.spec.device
    device = resolve_device(asked)
    _check_steps(plan.spec)
    choices = {"device": f"{describe_device(device)}, asked for {asked}", **plan.choices}
    return replace(plan, spec=replace(plan.spec, device=device), choices=choices)


def _check_steps(spec: RunSpec) -> None:
    load_network(spec.model, "cpu")
    preprocess_step(spec)
    postprocess_step(spec)
    names = [output.name for output in spec.model.outputs] or [DEFAULT_OUTPUT]
    scores = output_names(names, spec.postprocess)
    clashes = sorted({*(scores or ()), MODEL_VERSION} & set(spec.target.columns))
    if clashes:
        raise OutputError(
            f"output.columns: {clashes[0]!r} is the name of a score, too; rename the score in "
            "postprocess (name: …), or leave the column out of output.columns"
        )
