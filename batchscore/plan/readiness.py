"""Tries what needs torch or the user's code, once and early: device, model, functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from batchscore.errors import OutputError
from batchscore.models.backends.torch.load import (
    describe_device,
    load_network,
    resolve_device,
    visible_gpus,
)
from batchscore.models.backends.torch.measure import release_memory
from batchscore.plan.columns import output_names
from batchscore.plan.inference import settle_inference
from batchscore.plan.plan import Plan
from batchscore.plan.prove import require_independent
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.write import MODEL_VERSION
from batchscore.units.unit import Unit
from batchscore.worker.scoring import postprocess_step, preprocess_step
from batchscore.worker.spec import RunSpec


def verify(plan: Plan, units: Sequence[Unit] = ()) -> Plan:
    """Returns the plan with its device resolved, once its model and functions were loaded.

    Args:
        units: what is to be scored; on a sample of it, scores must depend on their rows alone.

    Raises:
        DeviceError, ModelError, FunctionError, OutputError: one of them cannot be used.
        InvalidError: the first batch, where it has to be tried, cannot be scored.
    """
    asked = plan.spec.device
    device = resolve_device(asked)
    network = load_network(plan.spec.model, "cpu", prove=True)
    _check_steps(plan.spec)
    weights = {"weights": network.casts} if network.casts else {}
    told = {"device": f"{describe_device(device)}, asked for {asked}", **weights}
    plan = replace(plan, spec=replace(plan.spec, device=device), choices={**told, **plan.choices})
    plan = settle_inference(replace(plan, gpus=visible_gpus(device)))
    if units:
        tried = require_independent(plan, units, network if device == "cpu" else None)
        release_memory(device)
        spec = replace(plan.spec, scores=tried.scores)
        plan = replace(plan, spec=spec, choices={**plan.choices, "alone": tried.said})
    return replace(plan, inference={**plan.inference, **weights})


def _check_steps(spec: RunSpec) -> None:
    preprocess_step(spec)
    postprocess_step(spec)
    _check_names(spec, score_kinds(output_names(spec.model), spec.postprocess) or ())


def _check_names(spec: RunSpec, scores: Iterable[str]) -> None:
    # Scores are profiled beside all columns that are read, also those that are not written.
    taken = {MODEL_VERSION} & set(spec.target.columns)
    clashes = sorted(taken | (set(scores) & set(spec.source.schema.names)))
    if clashes:
        raise OutputError(
            f"output.columns: {clashes[0]!r} is the name of an input column and of a score; "
            "rename the score in postprocess (name: …), or take the column out of whatever reads "
            "it: output.columns, preprocess.columns, input.filters"
        )
