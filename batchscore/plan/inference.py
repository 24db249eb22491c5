"""How a run calls its model: rows a call, precision, compiled or not, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batchscore.errors import DeviceError, FailedError, InvalidError, ModelError, StepError
from batchscore.messages.wording import counted
from batchscore.models.backends.protocol import Predictor
from batchscore.plan.gaps import (
    SAMPLES,
    compare_blocks,
    samples,
    score_plain,
    scored_sample,
)
from batchscore.plan.plan import Plan
from batchscore.plan.rehearsal import first_block
from batchscore.stages.block import Block
from batchscore.stages.infer import infer
from batchscore.stages.infer.step import inputs_of
from batchscore.worker.golden import score_golden
from batchscore.worker.scoring import backend_for, call_of, compiled, load_plain, make_calls
from batchscore.worker.spec import Spec


@dataclass(frozen=True)
class Inference:
    """How the network is called, for the manifest.

    Args:
        precision: Precision that it computes with.
        compile: Whether it is compiled.
        call_rows: Rows per call.
        chosen: Why so many.
        sample_rows: Rows of the input that were scored both as requested and in float32,
            uncompiled.
        gaps: The largest difference between the two by output, over sample and golden rows.
        warm_up_seconds: Seconds in which the sample was scored and the network compiled, where it
            is.
    """

    precision: str
    compile: bool
    call_rows: int
    chosen: str
    sample_rows: int = 0
    gaps: Mapping[str, float] = field(default_factory=dict)
    warm_up_seconds: float | None = None


def settle_inference(plan: Plan) -> Plan:
    """Returns the plan, whose device is resolved, with the rows of a call; what is asked is tried.

    Raises:
        DeviceError: The device cannot do what was asked for, or its memory is too small.
        ModelError: Scores are farther from float32 than the model's tolerance, or there is
            no row with a score to compare.
        InvalidError: The first batch cannot be read, or put through preprocessing or the network;
            or the rows of a call would make scores depend on a row's place, or are more than a
            batch has.
    """
    spec = plan.spec
    if spec.execution.precision == "tf32" and not spec.execution.device.startswith("cuda"):
        raise DeviceError(
            f"runtime.precision tf32: needs a GPU, and this run is on {spec.execution.device}; "
            "set runtime.precision to float32 or bf16"
        )
    _require_possible(spec)
    _require_whole_groups(plan)
    try:
        chosen = _settle(plan)
    except FailedError as error:
        raise InvalidError(str(error)) from error
    backend_for(spec).release(spec.execution.device)
    spec = replace(spec, execution=replace(spec.execution, call_rows=chosen.call_rows))
    choices = {**plan.choices, **_describe(chosen, spec)}
    return replace(plan, spec=spec, choices=choices, inference=asdict(chosen))


def _require_possible(spec: Spec) -> None:
    """Raises DeviceError for a precision, or compilation, that the model's format does not have."""
    backend, form = backend_for(spec), spec.scoring.model.format
    if spec.execution.precision not in backend.precisions:
        raise DeviceError(
            f"runtime.precision {spec.execution.precision}: models of format {form!r} compute in "
            f"{', '.join(backend.precisions)}; set runtime.precision to {backend.precisions[0]}"
        )
    if spec.execution.compile and not backend.compiles:
        raise DeviceError(
            f"runtime.compile: models of format {form!r} are not compiled; set runtime.compile to "
            "false"
        )


def _require_whole_groups(plan: Plan) -> None:
    """Where rows are left over from a kernel's groups, their bits change with their place."""
    asked, group = plan.loaded.job.runtime.micro_batch, backend_for(plan.spec).row_group
    if asked != "auto" and not group:
        raise InvalidError(
            f"runtime.micro_batch {asked}: models of format "
            f"{plan.spec.scoring.model.format!r} size their calls themselves; set "
            "runtime.micro_batch to auto"
        )
    if plan.spec.execution.device != "cpu" or asked in ("auto", 1):
        return
    batch_rows = plan.spec.scoring.source.batch_rows
    most = -(-batch_rows // group) * group
    if int(asked) > most:
        raise InvalidError(
            f"runtime.micro_batch {asked}: each call would have more rows than a batch, "
            f"{batch_rows:,}, and pad the rest; set {most} or less, or a larger runtime.batch_rows"
        )
    if int(asked) % group:
        raise InvalidError(
            f"runtime.micro_batch {asked}: on the CPU a row's scores would change with its place, "
            f"since kernels take rows in groups; set 1 or a multiple of {group}"
        )


def _settle(plan: Plan) -> Inference:
    spec = plan.spec
    rows, why = _known_rows(plan)
    faster = spec.execution.precision != "float32" or spec.execution.compile
    if rows is not None and not faster:
        return Inference(spec.execution.precision, spec.execution.compile, rows, why)
    predictor = load_plain(spec)
    if rows is None:
        rows, why = _search(plan, predictor)
    found = Inference(spec.execution.precision, spec.execution.compile, rows, why)
    if not faster:
        return found
    spec = replace(spec, execution=replace(spec.execution, call_rows=rows))
    return _try_faster(plan, spec, predictor, found)


def _known_rows(plan: Plan) -> tuple[int | None, str]:
    spec, asked = plan.spec, plan.loaded.job.runtime.micro_batch
    if asked != "auto":
        return asked, "as asked for"
    return backend_for(spec).known_rows(spec.scoring.model, call_of(spec))


def _search(plan: Plan, predictor: Predictor) -> tuple[int, str]:
    spec = plan.spec
    sample = next(samples(plan), None)
    if sample is None:
        return spec.execution.call_rows, "there is no row to try others with"

    def find(block: Block) -> int:
        return predictor.best_rows(call_of(spec), inputs_of(block), len(block))

    try:
        rows = find(sample)
    except StepError:
        _, sample = score_plain(spec, predictor, sample)
        if not len(sample):
            return (
                spec.execution.call_rows,
                "no row of the first batch has a score to try others with",
            )
        rows = find(sample)
    if len(sample) == spec.scoring.source.batch_rows:
        backend_for(spec).remember_rows(spec.scoring.model, call_of(spec), rows)
    return rows, f"the fastest for batches of {len(sample):,}, by a search"


def _try_faster(plan: Plan, spec: Spec, predictor: Predictor, found: Inference) -> Inference:
    """Scores a sample and the golden rows as asked for and in float32, and compares them."""
    in_float32 = replace(spec.execution, precision="float32", compile=False)
    plain = replace(spec, execution=in_float32)
    fast = compiled(spec, predictor)
    gaps: dict[str, float] = {}
    rows, warm_up = 0, None
    scored = scored_sample(plan, plain, predictor)
    if scored is not None:
        known, inputs = scored
        start = time.perf_counter()
        made = _score_fast(spec, fast, inputs)
        warm_up = round(time.perf_counter() - start, 3) if spec.execution.compile else None
        rows, gaps = len(inputs), compare_blocks(known, made)
        _require_near(spec, gaps, f"a sample of {counted(rows, 'row')}")
    known_golden = score_golden(plain, predictor)
    if known_golden is not None:
        golden = compare_blocks(known_golden, score_golden(spec, fast))
        _require_near(spec, golden, "the golden rows")
        gaps = {name: max(gap, gaps.get(name, 0.0)) for name, gap in golden.items()} or gaps
    if not gaps and first_block(plan) is not None:
        raise _unproven(spec)
    return replace(found, sample_rows=rows, gaps=gaps, warm_up_seconds=warm_up)


def _unproven(spec: Spec) -> ModelError:
    return ModelError(
        f"{_asked(spec)}: no row of the first {SAMPLES} batches has a score in float32, and "
        f"neither does a golden row of model {spec.scoring.model.name!r}, so the difference "
        f"cannot be measured; set {_remedy(spec)}, or give the model golden rows that have a score"
    )


def _score_fast(spec: Spec, predictor: Predictor, inputs: Block) -> Block:
    try:
        return infer(inputs, make_calls(spec, predictor))
    except StepError as error:
        compiled = " compiled" if spec.execution.compile else ""
        raise ModelError(
            f"model {spec.scoring.model.name!r} cannot be called in "
            f"{spec.execution.precision}{compiled}, although it can in float32: {error}; set "
            f"{_remedy(spec)}"
        ) from error


def _require_near(spec: Spec, gaps: Mapping[str, float], rows: str) -> None:
    name = max(gaps, key=lambda name: gaps[name], default=None)
    tolerance = spec.scoring.model.tolerance
    if name is None or gaps[name] <= tolerance:
        return
    raise ModelError(
        f"{_asked(spec)}: output {name!r} of model {spec.scoring.model.name!r} differs by up to "
        f"{gaps[name]:.3g} from float32 on {rows}, and its tolerance is {tolerance:g}; set "
        f"{_remedy(spec)}, or, if such a difference does no harm, a larger tolerance in the model "
        "folder's model.yaml"
    )


def _asked(spec: Spec) -> str:
    asked = (
        [f"runtime.precision {spec.execution.precision}"]
        if spec.execution.precision != "float32"
        else []
    )
    return " with ".join([*asked, *(["runtime.compile"] if spec.execution.compile else [])])


def _remedy(spec: Spec) -> str:
    remedies = ["runtime.precision: float32"] if spec.execution.precision != "float32" else []
    remedies += ["runtime.compile: false"] if spec.execution.compile else []
    return " and ".join(remedies)


def _describe(chosen: Inference, spec: Spec) -> dict[str, Any]:
    described = {}
    if chosen.chosen != backend_for(spec).usual_call:
        described["micro_batch"] = f"{chosen.call_rows:,}, {chosen.chosen}"
    if chosen.gaps:
        gap = max(chosen.gaps.values())
        described["precision"] = (
            f"{chosen.precision}, at most {gap:.2g} from float32, uncompiled; tolerance "
            f"{spec.scoring.model.tolerance:g}"
        )
    if chosen.warm_up_seconds is not None:
        described["compile"] = f"{chosen.warm_up_seconds:.1f} s to warm up"
    return described
