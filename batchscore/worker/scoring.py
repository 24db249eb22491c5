"""The stages of one run as functions of a block, bound to what the run's spec says."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from batchscore.drift.table import TableProfile
from batchscore.errors import FunctionError
from batchscore.job import Preprocess, UserFunction
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Call, OutputSpec
from batchscore.models.backends.protocol import Backend, Predictor
from batchscore.models.backends.registry import backend_of, naming
from batchscore.models.code import load_object
from batchscore.models.features import Features, encode
from batchscore.models.folder import files_below
from batchscore.models.importing import Listed, guarded
from batchscore.models.loadable import Model
from batchscore.models.made_columns import counted_columns, select_made
from batchscore.models.process.current import host_for
from batchscore.models.process.proxy import ProcessBackend
from batchscore.models.text_features import find_gaps
from batchscore.models.tree_features import find_rejected
from batchscore.runs import layout
from batchscore.runs.halvings import note_halved
from batchscore.stages.bisect import bisect
from batchscore.stages.block import Block, timed
from batchscore.stages.call import UserCall, batch_kind
from batchscore.stages.infer import DeviceThread, infer, infer_known, infer_late
from batchscore.stages.postprocess import postprocess
from batchscore.stages.preprocess import Named, Unfit, encode_features, stack_columns
from batchscore.stages.trial import Trial, trial_of
from batchscore.stages.write import Attempt, UnitWriter
from batchscore.storage.store import is_local
from batchscore.units.unit import Unit
from batchscore.worker.kept import Kind, kept, scope_or
from batchscore.worker.spec import ElementSpec, RunSpec, Spec

BlockStep = Callable[[Block], Block]


def load_call(section: Preprocess | UserFunction, spec: Spec, edition: int = 0) -> UserCall:
    """Imports a user's function.

    Args:
        edition: Another number imports its code again.

    Raises:
        FunctionError: It cannot be imported, or is not a function.
    """
    base = spec.scoring.base
    if not is_local(base):
        raise FunctionError(
            f"function {section.function}: the job file is at {base}, and code is read from a "
            "local folder only; copy job file and code to this machine"
        )
    try:
        function = load_object(section.function, base, _listed(spec), edition)
    except FunctionError as error:
        raise FunctionError(f"function {section.function}: {error}") from error
    if not callable(function):
        raise FunctionError(
            f"function {section.function}: is of type {type(function).__name__}; expected a "
            "function that takes a batch and returns one"
        )
    _require_one_argument(section.function, function)
    kind = section.batch or batch_kind(function)
    return UserCall(section.function, guarded(function, base), kind)


def _require_one_argument(reference: str, function: Callable[..., object]) -> None:
    """Raises FunctionError where a function cannot be called with a batch alone."""
    try:
        # What a decorator wraps may take other arguments than what it returns.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # one in C may not say
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise FunctionError(
            f"function {reference}: takes {signature}; expected a function of one argument, a batch"
        ) from error


def _listed(spec: Spec) -> Listed:
    """Returns the files that functions may import, and read: a model's are in its identity."""
    return Listed(spec.scoring.code, readable=files_below(spec.scoring.model, spec.scoring.base))


def preprocess_step(spec: Spec, edition: int = 0) -> BlockStep:
    """Returns the step that makes model inputs: a user's function, fitted features, or columns.

    Args:
        edition: Edition of the function's code.
    """
    features = spec.scoring.model.features
    if spec.scoring.preprocess is None and features is not None:
        step: BlockStep = partial(
            encode_features, encode=partial(encode, features), unfit=_unfit(features)
        )
    else:
        call = (
            load_call(spec.scoring.preprocess, spec, edition) if spec.scoring.preprocess else None
        )
        hidden = spec.scoring.target.hidden
        step = partial(
            stack_columns,
            inputs=spec.scoring.inputs,
            function=call,
            hidden=hidden,
            named=None if features is None else _named(features),
        )
    return rejecting(spec, "preprocess", step)


def _named(features: Features) -> Named:
    return Named(
        features.columns,
        partial(select_made, features),
        partial(encode, features),
        _unfit(features),
        partial(counted_columns, features),
    )


def _unfit(features: Features) -> Unfit:
    return Unfit(partial(find_rejected, features.inputs), partial(find_gaps, features.inputs))


def infer_step(spec: Spec, predictor: Predictor) -> BlockStep:
    """Returns the step that calls the model and waits for it."""
    step = partial(infer, model=make_calls(spec, predictor), sources=_sources(spec))
    found = rejecting(spec, "infer", _guarded_network(spec, step))
    return _taking(spec, predictor, found)


def late_infer_step(spec: Spec, predictor: Predictor) -> BlockStep:
    """Returns the step that calls the model, its results pending where a device computes them."""
    model, sources = make_calls(spec, predictor), _sources(spec)
    if not model.late:
        step = partial(infer, model=model, sources=sources)
        found = rejecting(spec, "infer", _guarded_network(spec, step))
        return _taking(spec, predictor, found)
    thread = DeviceThread(model, sources)
    again = rejecting(spec, "infer", thread.infer)
    late = _guarded_network(spec, partial(infer_late, thread=thread, recover=again))
    return _taking(spec, predictor, late)


def _taking(spec: Spec, predictor: Predictor, step: BlockStep) -> BlockStep:
    """Returns a step that gives a model no NaN, where it says that it takes none."""
    if predictor.takes_missing:
        return step
    return partial(infer_known, step=step, sources=_sources(spec))


def _sources(spec: Spec) -> dict[str, tuple[str, ...]]:
    return {each.name: each.columns for each in spec.scoring.inputs}


def _guarded_network(spec: Spec, step: BlockStep) -> BlockStep:
    """Returns a step that fails where the job's own architecture did what is refused."""
    return guarded(step, spec.scoring.model.code) if spec.scoring.model.code else step


def make_calls(spec: Spec, predictor: Predictor) -> Calls:
    """Returns the model as the run calls it."""
    return predictor.called(call_of(spec))


def call_of(spec: Spec) -> Call:
    """Returns how the run calls its model."""
    return Call(
        output_specs(spec.scoring.model),
        spec.execution.device,
        spec.execution.tile_threads,
        spec.execution.call_rows,
        spec.execution.precision,
        spec.execution.compile,
        spec.execution.kernels,
        spec.scoring.source.batch_rows,
        {each.name: each.varying for each in spec.scoring.model.inputs if each.varying},
        partial(_remember_halved, spec),
    )


def _remember_halved(spec: Spec, halvings: int) -> None:
    rows = max(1, spec.execution.call_rows >> halvings)
    logging.warning("the device's memory ran out: %d rows a call from here on", rows)
    if spec.execution.auto_rows:
        backend_for(spec).remember_rows(spec.scoring.model, call_of(spec), rows)
    if isinstance(spec, RunSpec):
        note_halved(spec.output, spec.identity.run, rows)


def output_specs(model: Model) -> tuple[OutputSpec, ...]:
    """Returns the declared outputs as the stage takes them."""
    return tuple(OutputSpec(each.name, each.dtype, each.shape) for each in model.outputs)


def postprocess_step(spec: Spec, edition: int = 0) -> BlockStep:
    """Returns the step that makes scores of model outputs.

    Args:
        edition: Edition of its functions' code.
    """
    steps = tuple(
        load_call(step, spec, edition) if isinstance(step, UserFunction) else step
        for step in spec.scoring.postprocess
    )
    return rejecting(
        spec, "postprocess", partial(postprocess, steps=steps, known=spec.scoring.scores)
    )


def rejecting(spec: Spec, stage: str, step: BlockStep) -> BlockStep:
    """Returns a step that rejects the rows it fails on, and counts the seconds it takes."""
    isolating = partial(
        bisect, stage=stage, step=step, limit=spec.execution.max_rejects, trial=_trial(spec)
    )
    return partial(timed, stage, isolating)


def _trial(spec: Spec) -> Trial:
    """Returns the trial that a process has for what it was sent; what is only tried shares none."""
    key = spec.key if isinstance(spec, RunSpec | ElementSpec) else None
    return trial_of(key, passed=not spec.execution.fresh)


def load(spec: Spec) -> Predictor:
    """Loads the run's model to its device, compiled where the job says so.

    Raises:
        DeviceError: This machine does not have the device.
    """
    if spec.execution.device != "cpu":
        with naming(spec.scoring.model.format):
            backend_for(spec).resolve(spec.execution.device)
    if not spec.execution.compile:
        return load_plain(spec)
    # In this order, since the plain one is taken from those that are kept too.
    plain = load_plain(spec)
    return kept(_kind(spec, compiled=True), partial(compiled, spec, plain))


def load_plain(spec: Spec) -> Predictor:
    """Loads the run's model to its device, uncompiled."""
    return kept(_kind(spec), partial(_load_plain, spec))


def _load_plain(spec: Spec) -> Predictor:
    model, execution = spec.scoring.model, spec.execution
    with naming(model.format):
        return backend_for(spec).load(model, execution.device, execution.tile_threads)


def _kind(spec: Spec, compiled: bool = False) -> Kind:
    model, execution = spec.scoring.model, spec.execution
    threads, own = execution.tile_threads, execution.model_process
    return Kind(model.identity, model.folder, execution.device, threads, compiled, own)


def backend_for(spec: Spec) -> Backend:
    """Returns the backend of a model: in this process, or in the model's own.

    Workers of one run share what its process loads.
    """
    form, execution = spec.scoring.model.format, spec.execution
    own = backend_of(form)
    if not execution.model_process:
        return own
    run = spec.identity.run if isinstance(spec, RunSpec) else ""
    return ProcessBackend(own, host_for(form, execution.model_timeout_s), shared=scope_or(run))


def compiled(spec: Spec, predictor: Predictor) -> Predictor:
    """Returns the model compiled where the job says so."""
    return predictor.compiled() if spec.execution.compile else predictor


@dataclass(frozen=True)
class Scorer:
    """A loaded model, or None if nothing is left, and the step that calls it; one a process."""

    predictor: Predictor | None
    step: BlockStep


@dataclass(frozen=True)
class UnitOutput:
    """What writes one attempt at a unit, and the profile that grows with it."""

    writer: UnitWriter
    profile: TableProfile


def make_attempt(spec: RunSpec, unit: Unit, name: str) -> Attempt:
    """Returns a run's attempt at a unit, under a name that no other attempt has."""
    folder = f"{layout.staging(spec.slice)}/{name}"
    ledger = layout.ledger(spec.slice, spec.identity.score)
    attempt = Attempt(unit, name, spec.identity.run, folder, ledger, spec.execution.kernels)
    if spec.execution.device == "cpu":
        return attempt
    return replace(attempt, device=describe_device(spec))


def describe_device(spec: Spec) -> str:
    """Returns the device that this process computes on; of the CPU no more than that."""
    device = spec.execution.device
    return device if device == "cpu" else backend_for(spec).describe(device)


def open_unit(spec: Spec, attempt: Attempt) -> UnitOutput:
    """Opens the files and the profile of an attempt at a unit."""
    profile = TableProfile(hints=spec.scoring.hints)
    writer = UnitWriter(spec.output, attempt, spec.scoring.target, profile.update, _trial(spec))
    return UnitOutput(writer, profile)
