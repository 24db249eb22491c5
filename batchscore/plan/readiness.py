"""Tries what needs the model's framework or the user's code, once and early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from batchscore.errors import ModelError, OutputError
from batchscore.models.backends.facts import DEFAULT_KERNELS, Facts
from batchscore.models.backends.protocol import Predictor
from batchscore.models.backends.registry import naming
from batchscore.models.loadable import Model
from batchscore.phases import SAMPLE, Stopwatch
from batchscore.plan.columns import check_drift_columns
from batchscore.plan.declared_scores import output_names
from batchscore.plan.explained import require_compared
from batchscore.plan.inference import settle_inference
from batchscore.plan.kernels import computing_with, settle_kernels, without_kernels
from batchscore.plan.plan import Plan
from batchscore.plan.prove import SampleRows, Tried, read_sample_rows, require_independent
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.write import MODEL_VERSION
from batchscore.units.unit import Unit
from batchscore.worker.scoring import backend_for, postprocess_step, preprocess_step
from batchscore.worker.spec import Spec


def verify(
    plan: Plan,
    units: Sequence[Unit] = (),
    clock: Stopwatch | None = None,
    sample: SampleRows | None = None,
) -> Plan:
    """Returns the plan with its device resolved, once its model and functions were loaded.

    Args:
        units: What is to be scored; on a sample of it, scores must depend on their rows alone.
        clock: Counts the sample for a step of its own.
        sample: Its rows, if they were read before.

    Raises:
        DeviceError, ModelError, FunctionError, OutputError: One of them cannot be used.
        InvalidError: The first batch, where it has to be tried, cannot be scored.
    """
    plan, predictor = _with_model(plan)
    on_cpu = plan.spec.execution.device == "cpu"
    return prove_rows(plan, units, clock, sample, predictor if on_cpu else None)


def _with_model(plan: Plan) -> tuple[Plan, Predictor]:
    """Returns the plan with how its model is called, and the model on the CPU."""
    backend, asked = backend_for(plan.spec), plan.spec.execution.device
    named = plan.loaded.job.runtime.device
    with naming(plan.spec.scoring.model.format):
        device = backend.resolve(asked)
        found = backend.inspect(plan.spec.scoring.model)
        _check_shapes(plan.spec.scoring.model, found)
        if backend.is_fragile:
            from batchscore.models.process.loading_trial import try_loading

            try_loading(plan.spec.scoring.model)
        predictor = backend.load(plan.spec.scoring.model, "cpu", prove=True)
        if plan.spec.scoring.reasons is not None:
            predictor.explaining()
    _check_steps(plan.spec)
    notes = dict(predictor.notes)
    called = {"call": found.said["call"]} if "call" in found.said else {}
    facts = {"device": f"{backend.describe(device)}, asked for {named}", **called, **notes}
    plan = replace(
        plan,
        spec=replace(plan.spec, execution=replace(plan.spec.execution, device=device)),
        choices={**facts, **plan.choices},
    )
    plan = _settled(replace(plan, gpus=backend.gpus(device)), predictor)
    return replace(plan, inference={**plan.inference, **notes}), predictor


def prove_rows(
    plan: Plan,
    units: Sequence[Unit],
    clock: Stopwatch | None = None,
    sample: SampleRows | None = None,
    predictor: Predictor | None = None,
    again: bool = True,
) -> Plan:
    """Returns a plan whose model was tried, once a sample showed that scores depend on their rows.

    Args:
        units: What is to be scored; without any there is nothing to show.
        clock: Counts the sample for a step of its own.
        sample: Its rows, if they were read before.
        predictor: The model as `load_plain` returns it, or on the CPU; None: it is loaded.
        again: Whether the model is made again, as in another process.

    Raises:
        ModelError, FunctionError, OutputError, JobFileError: A score depends on more, or scores
            and job do not fit.
        InvalidError: The first batch cannot be scored.
    """
    if not units:
        return plan
    with (clock or Stopwatch()).during(SAMPLE):
        sample = sample or read_sample_rows(plan, units)
        plan, tried = _proven(plan, units, sample, predictor, again)
    backend_for(plan.spec).release(plan.spec.execution.device)
    check_names(plan.spec, tried.names)
    _check_drift(plan, tried.names)
    _check_explained(plan, tried)
    spec = replace(plan.spec, scoring=replace(plan.spec.scoring, scores=tried.scores))
    return replace(plan, spec=spec, choices={**plan.choices, "alone": tried.said})


def _settled(plan: Plan, predictor: Predictor) -> Plan:
    """Returns the plan with how its network is called; kernels are chosen last."""
    asked = plan.spec.execution.kernels
    plan = settle_inference(replace(plan, spec=computing_with(plan.spec, DEFAULT_KERNELS)))
    return settle_kernels(plan, predictor, asked)


def _proven(
    plan: Plan,
    units: Sequence[Unit],
    sample: SampleRows,
    predictor: Predictor | None,
    again: bool,
) -> tuple[Plan, Tried]:
    """Returns what a sample showed, and the plan; with default kernels if others failed there."""
    try:
        return plan, require_independent(plan, units, sample, predictor, again)
    except ModelError as error:
        plan = without_kernels(plan, error)
    return plan, require_independent(plan, units, sample, predictor, again)


def _check_drift(plan: Plan, scores: Sequence[str]) -> None:
    """Raises JobFileError where the drift section names none of the scores that were found."""
    if scores:
        check_drift_columns(plan.loaded.job, plan.spec.scoring.seen_schema, scores)


def _check_explained(plan: Plan, tried: Tried) -> None:
    """Raises JobFileError where none of the scores that were found is one that is explained."""
    if tried.names:
        types = {name: tried.scores.get(name, pa.null()) for name in tried.names}
        require_compared(plan.loaded.job.explain, types)


def _check_shapes(model: Model, facts: Facts) -> None:
    """Raises ModelError where the model's files take or return other arrays than the card says."""
    for kind, found, declared in (
        ("input", facts.inputs, {each.name: each.shape for each in model.inputs}),
        ("output", facts.outputs, {each.name: each.shape for each in model.outputs}),
    ):
        for name, shape in found.items():
            if name in declared and _without_ones(declared[name]) != _without_ones(shape):
                raise ModelError(
                    f"model {model.name!r}: {kind} {name!r} has shape {list(declared[name])} as "
                    f"declared, and {list(shape)} in {model.weights}; correct the declaration"
                )


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns a shape without sizes of one: a number is as good as a vector of one."""
    return tuple(size for size in shape if size != 1)


def _check_steps(spec: Spec) -> None:
    preprocess_step(spec)
    postprocess_step(spec)
    check_names(spec, score_kinds(output_names(spec.scoring.model), spec.scoring.postprocess) or ())


def check_names(spec: Spec, scores: Iterable[str]) -> None:
    """Raises OutputError where a score has a name that another published column has."""
    found = {*scores}
    if MODEL_VERSION in found:
        raise OutputError(
            f"output: a score is named {MODEL_VERSION!r}, and each published row has the model's "
            "version under that name; rename the output in the model's card, or the score in "
            "postprocess (a step's name: …, or in the function)"
        )
    # Scores are profiled with all columns that are read, also those that are not written.
    taken = {MODEL_VERSION} & set(spec.scoring.target.columns)
    clashes = sorted(taken | (found & set(spec.scoring.seen_schema.names)))
    if clashes:
        raise OutputError(
            f"output.columns: {clashes[0]!r} is the name of an input column and of a score; "
            "rename the score in postprocess (a step's name: …, or in the function), or take the "
            "column out of whatever reads it: output.columns, preprocess.columns, input.filters"
        )
