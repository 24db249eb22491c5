"""Which kernels a run computes with: its slice's, else the fastest within the model's tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from batchscore.errors import DeviceError, FailedError, InvalidError, ModelError, StepError
from batchscore.messages.wording import counted
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import DEFAULT_KERNELS, KernelTrial
from batchscore.models.backends.protocol import Predictor
from batchscore.plan.gaps import SAMPLE_ROWS, compare_blocks, scored_sample
from batchscore.plan.independence import take
from batchscore.plan.plan import Plan
from batchscore.stages.block import Block
from batchscore.stages.infer import infer
from batchscore.stages.infer.step import inputs_of
from batchscore.worker.golden import measure_golden
from batchscore.worker.scoring import backend_for, call_of, make_calls
from batchscore.worker.spec import Spec

_FASTEST = "fastest"
# Kernels that save less than a tenth are not worth other bits, and timings differ by some per cent.
_GAIN = 1.1
_TIMED_ROWS = 64
# A sample is smaller if its rows take longer.
_SAMPLE_SECONDS = 1.0


_NO_ROW = "there is no row with a score to try others with"
_AS_BEFORE = "rows of the slice were scored with them before"
_REMEDY = "run the job where they can be used, or score the whole slice again with --rescore"


@dataclass(frozen=True)
class Kernels:
    """Which kernels a run computes with, for the manifest.

    Args:
        chosen: Their name.
        why: Why they were chosen.
        kept: Whether they are those that rows of the slice were scored with before.
        seconds: CPU seconds of a call with each of the kernels; empty if none was timed.
        call_rows: Rows of that call.
        sample_rows: Rows of the input that were scored with `default` too.
        gaps: The largest difference between the two by output, and that to golden scores.
    """

    chosen: str
    why: str
    kept: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    call_rows: int = 0
    sample_rows: int = 0
    gaps: Mapping[str, float] = field(default_factory=dict)


def settle_kernels(plan: Plan, predictor: Predictor, asked: str) -> Plan:
    """Returns the plan with the kernels that its run computes with.

    Args:
        plan: Its device is resolved, and its kernels are `default`.
        predictor: The model on the CPU.
        asked: `fastest`, or the kernels that rows of the slice were scored with.

    Raises:
        DeviceError: The kernels that rows of the slice were scored with cannot be used.
        ModelError: With these, scores differ from default by more than the model's tolerance.
        InvalidError: The first batch cannot be read, or put through preprocessing or the network.
    """
    if plan.loaded.job.runtime.kernels == DEFAULT_KERNELS:
        return plan
    try:
        found = _fastest(plan, predictor) if asked == _FASTEST else _kept(plan, predictor, asked)
    except FailedError as error:
        raise InvalidError(str(error)) from error
    return _with(plan, found)


def without_kernels(plan: Plan, error: ModelError) -> Plan:
    """Returns the plan with default kernels, after a test of its scores failed with others.

    Raises:
        ModelError: The kernels are default already, or those of the slice.
    """
    chosen = plan.spec.execution.kernels
    if chosen == DEFAULT_KERNELS:
        raise error
    if plan.inference["kernels"]["kept"]:
        raise ModelError(f"runtime.kernels {chosen}: {_AS_BEFORE}, and now {error}; {_REMEDY}")
    return _with(plan, Kernels(DEFAULT_KERNELS, f"with {chosen}, {error}"))


def _with(plan: Plan, found: Kernels) -> Plan:
    return replace(
        plan,
        spec=computing_with(plan.spec, found.chosen),
        choices={**plan.choices, "kernels": f"{found.chosen}: {found.why}"},
        inference={**plan.inference, "kernels": asdict(found)},
    )


def _kept(plan: Plan, predictor: Predictor, kernels: str) -> Kernels:
    """Returns the kernels of the slice's rows; another choice would mix scores of two kinds."""
    if kernels == DEFAULT_KERNELS:
        return Kernels(kernels, _AS_BEFORE, kept=True)
    impossible = f"runtime.kernels {kernels}: {_AS_BEFORE}, but "
    why = _obstacle(plan)
    if why:
        raise DeviceError(f"{impossible}{why}; {_REMEDY}")
    trial = _tried(plan, predictor)
    known = Kernels(kernels, _AS_BEFORE, True, trial.seconds, trial.rows)
    try:
        found = _compared(plan, predictor, known)
    except ModelError as error:
        raise DeviceError(f"{impossible}{error}; {_REMEDY}") from error
    far = _too_far(plan, found)
    if far:
        raise ModelError(f"{impossible}{far}; {_REMEDY}")
    return replace(found, why=f"{_AS_BEFORE}{_nearness(plan, found)}")


def _fastest(plan: Plan, predictor: Predictor) -> Kernels:
    why = _obstacle(plan)
    if why:
        return Kernels(DEFAULT_KERNELS, why)
    trial = _tried(plan, predictor)
    default = Kernels(DEFAULT_KERNELS, trial.why, False, trial.seconds, trial.rows)
    best = min(trial.seconds, key=lambda name: trial.seconds[name], default=DEFAULT_KERNELS)
    if best == DEFAULT_KERNELS or trial.seconds[DEFAULT_KERNELS] < _GAIN * trial.seconds[best]:
        slow = f"no others are faster by a tenth ({_times(trial)})"
        return replace(default, why=slow) if trial.seconds else default
    try:
        found = _compared(plan, predictor, replace(default, chosen=best))
    except ModelError as error:
        return replace(default, why=str(error))
    far = _too_far(plan, found)
    if far:
        return replace(default, why=far, sample_rows=found.sample_rows, gaps=found.gaps)
    if not found.sample_rows:
        return replace(default, why=_NO_ROW)
    return replace(found, why=f"the fastest ({_times(trial)}){_nearness(plan, found)}")


def _times(trial: KernelTrial) -> str:
    """Names what a call takes: `onednn 40.1 ms, default 89 ms for 1,024 rows`."""
    spent = sorted(trial.seconds.items(), key=lambda each: each[1])
    times = ", ".join(f"{name} {seconds * 1000:.3g} ms" for name, seconds in spent)
    return f"{times} for {counted(trial.rows, 'row')}"


def _nearness(plan: Plan, found: Kernels) -> str:
    if not found.gaps:
        return ""
    gap, tolerance = max(found.gaps.values()), plan.spec.scoring.model.tolerance
    return f"; scores differ by at most {gap:.2g}, tolerance {tolerance:g}"


def _obstacle(plan: Plan) -> str:
    """Returns why no other kernels can be used; empty if they may be."""
    execution, form = plan.spec.execution, plan.spec.scoring.model.format
    if backend_for(plan.spec).kernels == (DEFAULT_KERNELS,):
        return f"models of format {form!r} have no others"
    if execution.device != "cpu":
        return "other kernels are for the CPU"
    if execution.compile:
        return "runtime.compile chooses kernels itself"
    if execution.precision != "float32":
        return f"other kernels compute in float32, and runtime.precision is {execution.precision}"
    return ""


def _tried(plan: Plan, predictor: Predictor) -> KernelTrial:
    """Returns how long calls take with each of the kernels, remembered or measured now."""
    spec, backend = plan.spec, backend_for(plan.spec)
    known = backend.known_kernels(spec.scoring.model, call_of(spec))
    if known is not None:
        return known
    sample = scored_sample(plan, spec, predictor, _TIMED_ROWS)
    if sample is None:
        return KernelTrial(why=_NO_ROW)
    _, inputs = sample
    trial = predictor.try_kernels(call_of(spec), inputs_of(inputs), len(inputs))
    backend.remember_kernels(spec.scoring.model, call_of(spec), trial)
    return trial


def _compared(plan: Plan, predictor: Predictor, chosen: Kernels) -> Kernels:
    """Returns kernels with the largest differences that scores have with them.

    Raises:
        ModelError: They cannot be used with the model.
    """
    fast = computing_with(plan.spec, chosen.chosen)
    calls = make_calls(fast, predictor)
    sample = scored_sample(plan, plan.spec, predictor, _sample_rows(chosen))
    gaps, rows = dict[str, float](), 0
    if sample is not None:
        known, inputs = sample
        made = _made(inputs, calls, chosen.chosen)
        gaps, rows = compare_blocks(known, made), len(inputs)
    golden = measure_golden(fast, predictor)
    for name, gap in (golden or {"gaps": {}})["gaps"].items():
        gaps[name] = max(gap, gaps.get(name, 0.0))
    return replace(chosen, sample_rows=rows, gaps=gaps)


def _made(inputs: Block, calls: Calls, kernels: str) -> Block:
    """Returns the scores of rows, which must have the same bits at other places of their calls."""
    places_b = np.roll(np.arange(len(inputs), dtype=np.int64)[::-1], len(inputs) // 3)
    try:
        made = infer(inputs, calls)
        moved = infer(take(inputs, places_b), calls)
    except StepError as error:
        raise ModelError(f"with kernels {kernels}, {error}") from error
    if len(made) == len(inputs) and not _equal(moved, take(made, places_b)):
        raise ModelError(f"with kernels {kernels}, a row's scores depend on its place in a call")
    return made


def _equal(ours: Block, theirs: Block) -> bool:
    """Tells whether blocks of the same rows have the same scores, to the bit."""
    assert theirs.values is not None
    return ours.values is not None and ours.values.equals(theirs.values)


def _sample_rows(chosen: Kernels) -> int:
    seconds = chosen.seconds.get(DEFAULT_KERNELS, 0.0) / max(1, chosen.call_rows)
    return _TIMED_ROWS if seconds * SAMPLE_ROWS > _SAMPLE_SECONDS else SAMPLE_ROWS


def _too_far(plan: Plan, found: Kernels) -> str:
    """Returns what is wrong if scores differ by more than the model's tolerance; else nothing."""
    tolerance = plan.spec.scoring.model.tolerance
    name = max(found.gaps, key=lambda name: found.gaps[name], default=None)
    if name is None or found.gaps[name] <= tolerance:
        return ""
    rows = f"a sample of {counted(found.sample_rows, 'row')} or on the golden rows"
    return (
        f"with {found.chosen}, output {name!r} differs by up to {found.gaps[name]:.3g} on {rows}; "
        f"the model's tolerance is {tolerance:g}"
    )


def computing_with(spec: Spec, kernels: str) -> Spec:
    """Returns a spec whose network computes with some kernels."""
    return replace(spec, execution=replace(spec.execution, kernels=kernels))
