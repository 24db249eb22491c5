"""A plan to score elements of another pipeline: all that can fail before its workers start."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import ModelError
from batchscore.job import LoadedJob
from batchscore.models.backends.protocol import Predictor
from batchscore.models.loadable import Model
from batchscore.plan.auto import BLOCK_ROWS
from batchscore.plan.code_files import code_files
from batchscore.plan.declared_scores import check_declared, declared_types
from batchscore.plan.fingerprint import score_facts, score_hash, sha256_of
from batchscore.plan.model import resolve_model
from batchscore.plan.plan import Plan, make_execution, make_scoring
from batchscore.plan.prove import SampleRows, Tried, require_independent
from batchscore.plan.readiness import check_names, verify
from batchscore.plan.reference import References
from batchscore.score.scorer import require_golden
from batchscore.score.shape import Shape, element_unit, shape_of
from batchscore.stages.block import Block
from batchscore.stages.casting import cast_block
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.read import Source
from batchscore.stages.typeless import Types
from batchscore.storage.store import Store
from batchscore.worker.golden import golden_sample
from batchscore.worker.scoring import load
from batchscore.worker.spec import ElementSpec, Spec

NOWHERE = "memory://batchscore-score"
"""Where nothing is written: there is no output."""
_ALL_ROWS = 1 << 62
_SAMPLE_ROWS = 1_536


@dataclass(frozen=True)
class ElementPlan:
    """A verified plan without input.

    Args:
        plan: What is scored, and how.
        scores: Type of each score; None where only a row will tell.
    """

    plan: Plan
    scores: Types | None


def plan_elements(
    loaded: LoadedJob,
    declared: pa.Schema,
    sample: pa.RecordBatch | None,
    ship_to: str,
    threads: int,
) -> ElementPlan:
    """Returns a verified plan without input, whose scores depend on their rows alone.

    Args:
        loaded: The job.
        declared: Types of columns; empty: they are known when a batch comes.
        sample: Rows like those of the elements; None: the golden rows alone are tried.
        ship_to: Where workers fetch code and model from; empty if they need not.
        threads: Tiles that are computed at the same time.

    Raises:
        InvalidError: The job, its model, a function, the device or the sample cannot be used.
    """
    plan = _plan(loaded, ship_to, threads)
    shape = _shape(loaded, plan.spec, declared, sample)
    if shape is not None:
        plan = replace(plan, spec=replace(plan.spec, scoring=shape.scoring))
    _require_measurable(plan)
    plan = verify(plan)
    predictor = load(plan.spec)
    require_golden(plan.spec, predictor)
    tried = _prove(plan, shape, sample, predictor)
    scoring = replace(plan.spec.scoring, scores=tried.scores)
    spec = replace(plan.spec, scoring=scoring)
    facts = score_facts(loaded, spec)
    choices = {**plan.choices, "alone": tried.said}
    plan = replace(plan, spec=spec, score_facts=facts, score=score_hash(facts), choices=choices)
    return ElementPlan(plan, _score_types(plan, tried))


def _score_types(plan: Plan, tried: Tried) -> Types | None:
    declared = declared_types(plan.loaded.job, plan.spec.scoring.model)
    if declared is not None:
        return declared
    types = {name: tried.scores[name] for name in tried.names if name in tried.scores}
    return types if types and len(types) == len(tried.names) else None


def _plan(loaded: LoadedJob, ship_to: str, threads: int) -> Plan:
    job = loaded.job
    code = code_files(loaded)
    model = resolve_model(job.model, loaded.base, code)
    check_declared(job, model)
    rows = job.runtime.batch_rows
    source = Source(pa.schema([]), None, rows if isinstance(rows, int) else BLOCK_ROWS[1])
    output = Store(ship_to or NOWHERE)
    scoring = make_scoring(loaded, code, source, model, _base_inputs(model), Store(NOWHERE))
    execution = replace(make_execution(job, 0), max_rejects=_ALL_ROWS, tile_threads=threads)
    spec = Spec(job.name, job.name, output, scoring, execution)
    return Plan(
        loaded=loaded,
        spec=spec,
        score="",
        pieces=(),
        shards=(),
        bad_files=(),
        pruned_rows=0,
        input_bytes=0,
        workers=1,
        choices={},
        references=References(),
        score_facts={},
        fingerprint="",
    )


def _base_inputs(model: Model) -> tuple[InputColumns, ...]:
    """Returns a model's inputs as far as they are known without a schema."""
    return tuple(
        InputColumns(each.name, each.dtype, each.shape, each.columns, each.varying, each.missing)
        for each in model.inputs
    )


def _shape(
    loaded: LoadedJob, spec: Spec, declared: pa.Schema, sample: pa.RecordBatch | None
) -> Shape | None:
    """Returns how a batch of the declared columns, or of the sample's, is scored."""
    given = declared if sample is None else sample.schema
    return shape_of(loaded.job, spec.scoring, declared, given) if given.names else None


def _require_measurable(plan: Plan) -> None:
    """Raises ModelError where scores would differ from float32, and no row shows by how much."""
    execution, model = plan.spec.execution, plan.spec.scoring.model
    if model.golden is None and (execution.precision != "float32" or execution.compile):
        raise ModelError(
            f"runtime.precision {execution.precision}, runtime.compile {execution.compile}: "
            f"bs.Score compares their scores with float32 on golden rows, and model {model.name!r} "
            "has none; set runtime.precision: float32 and runtime.compile: false, or save the "
            "model with golden rows"
        )


def _prove(
    plan: Plan, shape: Shape | None, sample: pa.RecordBatch | None, predictor: Predictor
) -> Tried:
    """Returns what the sample, or else the golden rows, show: each score depends on its row alone.

    Raises:
        InvalidError: A function or the model makes something else of a row elsewhere.
    """
    spec, known = plan.spec, predictor if plan.spec.execution.device == "cpu" else None
    if sample is not None and shape is not None:
        block = _block(sample, shape)
    else:
        golden = golden_sample(spec)
        if golden is None:
            return _untried(plan)
        spec, block = golden
        # Their columns are not the input's.
        target = replace(spec.scoring.target, checks=())
        spec = replace(spec, scoring=replace(spec.scoring, target=target))
    tried = require_independent(replace(plan, spec=spec), (), SampleRows(block), known)
    check_names(plan.spec, tried.names)
    if not tried.names:
        _warn(tried.said)
    return tried


def _block(sample: pa.RecordBatch, shape: Shape) -> Block:
    batch = sample.slice(0, _SAMPLE_ROWS)
    numbers = to_arrow(np.arange(batch.num_rows, dtype=np.int64))
    block = Block(element_unit(batch.num_rows), 0, numbers, batch)
    return replace(cast_block(block, shape.scoring.source.schema), rejects=())


def _untried(plan: Plan) -> Tried:
    model = plan.spec.scoring.model
    said = f"not tried: model {model.name!r} has no golden rows, and there is no sample"
    _warn(said)
    return Tried(said, {})


def _warn(said: str) -> None:
    logging.getLogger(__name__).warning(
        "bs.Score: whether each score depends on its row alone was %s; give sample, a table of "
        "rows to score",
        said,
    )


def element_spec(planned: ElementPlan, declared: pa.Schema) -> ElementSpec:
    """Returns what workers get of a verified plan, without a shipment.

    Raises:
        InputError: The declared columns are not what the job needs.
    """
    plan, spec, model = planned.plan, planned.plan.spec, planned.plan.spec.scoring.model
    if declared.names:
        shape_of(plan.loaded.job, spec.scoring, declared, declared)
    places = [spec.scoring.base, model.folder, spec.output.address]
    # The score hash leaves out what only says which rows are rejected, and of what size blocks are.
    asked = plan.loaded.job.model_dump(mode="json")
    known = {name: str(kind) for name, kind in spec.scoring.scores.items()}
    how = [spec.execution.device, spec.execution.tile_threads]
    facts = [plan.score, asked, str(declared), known, *how, *places]
    return ElementSpec(
        spec.job,
        spec.slice,
        spec.output,
        spec.scoring,
        spec.execution,
        plan.loaded.job,
        declared,
        sha256_of(facts),
    )
