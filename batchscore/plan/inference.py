"""How a run calls its network: rows a call, precision, compiled or not, and what speaks for it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from batchscore.arrays import to_numpy
from batchscore.errors import DeviceError, FailedError, InvalidError, ModelError, StepError
from batchscore.golden import score_golden
from batchscore.models.load import Network, load_network
from batchscore.plan.plan import Plan
from batchscore.plan.rehearsal import first_block
from batchscore.scoring import call_key, compiled, infer_step, make_forward, preprocess_step
from batchscore.spec import RunSpec
from batchscore.stages.block import Block
from batchscore.stages.infer import infer
from batchscore.stages.infer.measure import find_rows, first_rows, release_memory
from batchscore.stages.infer.search import remember_rows, remembered_rows
from batchscore.stages.infer.step import inputs_of

_SAMPLE_ROWS = 4096
_GROUP_ROWS = 8
_TILE = "a tile of the CPU"


@dataclass(frozen=True)
class Inference:
    """How the network is called, for the manifest.

    Args:
        precision: that it computes with.
        compile: whether it is compiled.
        call_rows: that it sees at once.
        chosen: why so many.
        sample_rows: of the input, that were scored as asked for and in float32, uncompiled.
        gaps: the largest difference between the two by output, over sample and golden rows.
        warm_up_seconds: in which the sample was scored and the network compiled, where it is.
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
        DeviceError: the device cannot do what was asked for, or its memory does not do.
        ModelError: scores come out farther from float32 than the model's tolerance.
        InvalidError: the first batch cannot be read, or put through preprocessing or the network;
            or the rows of a call would make scores depend on a row's place.
    """
    spec = plan.spec
    if spec.precision == "tf32" and not spec.device.startswith("cuda"):
        raise DeviceError(
            f"runtime.precision tf32: is what GPUs compute with, and this run is on {spec.device}; "
            "set runtime.precision to float32 or bf16"
        )
    _require_whole_groups(plan)
    try:
        chosen = _settle(plan)
    except FailedError as error:
        raise InvalidError(str(error)) from error
    release_memory(spec.device)
    spec = replace(spec, call_rows=chosen.call_rows)
    choices = {**plan.choices, **_describe(chosen, spec)}
    return replace(plan, spec=spec, choices=choices, inference=asdict(chosen))


def _require_whole_groups(plan: Plan) -> None:
    """Where rows are left over from a kernel's groups, their bits change with their place."""
    asked = plan.loaded.job.runtime.micro_batch
    if plan.spec.device == "cpu" and asked not in ("auto", 1) and int(asked) % _GROUP_ROWS:
        raise InvalidError(
            f"runtime.micro_batch {asked}: on the CPU, whose kernels take rows in groups, a row's "
            f"scores would change with its place; set 1 or a multiple of {_GROUP_ROWS}"
        )


def _settle(plan: Plan) -> Inference:
    spec = plan.spec
    rows, why = _known_rows(plan)
    faster = spec.precision != "float32" or spec.compile
    if rows is not None and not faster:
        return Inference(spec.precision, spec.compile, rows, why)
    sample = _sample(plan)
    network = load_network(spec.model, spec.device)
    if rows is None:
        rows, why = _search(spec, network, sample)
    found = Inference(spec.precision, spec.compile, rows, why)
    if not faster:
        return found
    return _try_faster(replace(spec, call_rows=rows), network, sample, found)


def _known_rows(plan: Plan) -> tuple[int | None, str]:
    spec, asked = plan.spec, plan.loaded.job.runtime.micro_batch
    if asked != "auto":
        return asked, "as asked for"
    if not spec.device.startswith("cuda"):
        return spec.call_rows, _TILE
    return remembered_rows(call_key(spec), spec.source.batch_rows), "remembered from an earlier run"


def _sample(plan: Plan) -> Block | None:
    """Returns the first batch with its model inputs, or None where no row of it has any."""
    block = first_block(plan)
    if block is None:
        return None
    made = preprocess_step(plan.spec)(block)
    return made if len(made) and made.values is not None else None


def _search(spec: RunSpec, network: Network, sample: Block | None) -> tuple[int, str]:
    if sample is None:
        return spec.call_rows, "there is no row to try others with"
    forward = make_forward(spec, network)
    inputs = inputs_of(sample)
    rows = find_rows(forward, inputs, len(sample), first_rows(inputs, len(sample)))
    if len(sample) == spec.source.batch_rows:
        remember_rows(call_key(spec), rows)
    return rows, f"the fastest for batches of {len(sample):,}, by a search"


def _try_faster(
    spec: RunSpec, network: Network, sample: Block | None, found: Inference
) -> Inference:
    """Scores the sample and the golden rows as asked for and in float32, and compares them."""
    plain = replace(spec, precision="float32", compile=False)
    fast = compiled(spec, network)
    gaps: dict[str, float] = {}
    rows, warm_up = 0, None
    if sample is not None:
        known, inputs = _score_plain(plain, network, sample)
        start = time.perf_counter()
        made = _score_fast(spec, fast, inputs)
        warm_up = round(time.perf_counter() - start, 3) if spec.compile else None
        rows, gaps = len(inputs), compare_blocks(known, made)
        _require_near(spec, gaps, f"a sample of {rows:,} rows")
    known_golden = score_golden(plain, network)
    if known_golden is not None:
        golden = compare_blocks(known_golden, score_golden(spec, fast))
        _require_near(spec, golden, "the golden rows")
        gaps = {name: max(gap, gaps.get(name, 0.0)) for name, gap in golden.items()}
    return replace(found, sample_rows=rows, gaps=gaps, warm_up_seconds=warm_up)


def _score_plain(spec: RunSpec, network: Network, sample: Block) -> tuple[Block, Block]:
    """Returns the scores of the rows that have some, and these rows with their model inputs."""
    assert sample.values is not None
    rows = min(len(sample), _SAMPLE_ROWS)
    first = replace(
        sample,
        rows_b=sample.rows_b[:rows],
        batch=sample.batch[:rows],
        values=sample.values[:rows],
        rejects=(),
    )
    known = infer_step(spec, network)(first)
    scored_b = pc.is_in(first.rows_b, known.rows_b)
    inputs = replace(
        first,
        rows_b=first.rows_b.filter(scored_b),
        batch=first.batch.filter(scored_b),
        values=sample.values[:rows].filter(scored_b),
    )
    return known, inputs


def _score_fast(spec: RunSpec, network: Network, inputs: Block) -> Block:
    try:
        return infer(inputs, make_forward(spec, network))
    except StepError as error:
        compiled = " compiled" if spec.compile else ""
        raise ModelError(
            f"model {spec.model.name!r} cannot be called in {spec.precision}{compiled}, as it can "
            f"in float32: {error}; set {_remedy(spec)}"
        ) from error


def compare_blocks(known: Block, made: Block | None) -> dict[str, float]:
    """Returns each output's largest difference; infinity where other rows have a finite score.

    There are none where no row of the known ones has a score.
    """
    if known.values is None or not len(known):
        return {}
    names = known.values.schema.names
    if made is None or made.values is None or not made.rows_b.equals(known.rows_b):
        return dict.fromkeys(names, math.inf)
    gaps = {}
    for name in names:
        pair = [to_numpy(values.column(name)) for values in (known.values, made.values)]
        known_b, made_b = (values.astype(np.float64) for values in pair)
        gaps[name] = float(np.abs(known_b - made_b).max(initial=0.0))
    return gaps


def _require_near(spec: RunSpec, gaps: Mapping[str, float], rows: str) -> None:
    name = max(gaps, key=lambda name: gaps[name], default=None)
    tolerance = spec.model.tolerance
    if name is None or gaps[name] <= tolerance:
        return
    asked = [f"runtime.precision {spec.precision}"] if spec.precision != "float32" else []
    asked += ["runtime.compile"] if spec.compile else []
    raise ModelError(
        f"{' with '.join(asked)}: output {name!r} of model {spec.model.name!r} comes out up to "
        f"{gaps[name]:.3g} from float32 on {rows}, and its tolerance is {tolerance:g}; set "
        f"{_remedy(spec)}, or where such a difference does no harm, a larger tolerance in the "
        "model folder's model.yaml"
    )


def _remedy(spec: RunSpec) -> str:
    remedies = ["runtime.precision: float32"] if spec.precision != "float32" else []
    remedies += ["runtime.compile: false"] if spec.compile else []
    return " and ".join(remedies)


def _describe(chosen: Inference, spec: RunSpec) -> dict[str, Any]:
    described = {}
    if chosen.chosen != _TILE:
        described["micro_batch"] = f"{chosen.call_rows:,}, {chosen.chosen}"
    if chosen.gaps:
        gap = max(chosen.gaps.values())
        described["precision"] = (
            f"{chosen.precision}, at most {gap:.2g} from float32, uncompiled; tolerance "
            f"{spec.model.tolerance:g}"
        )
    if chosen.warm_up_seconds is not None:
        described["compile"] = f"{chosen.warm_up_seconds:.1f} s to warm up"
    return described
