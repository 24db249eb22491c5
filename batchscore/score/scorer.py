"""Batches to outcomes, block by block, as the stages of a run score them; no Beam."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import BatchscoreError, FailedError, FunctionError, ModelError
from batchscore.models.backends.protocol import Predictor
from batchscore.plan.auto import fitting_rows
from batchscore.runs.checks import check_golden
from batchscore.score.shape import Shape, element_unit, shape_of
from batchscore.stages.block import Block, Cause, reject_causes
from batchscore.stages.casting import ERROR, cast_block
from batchscore.stages.row_checks import reject_failing
from batchscore.stages.trial import trial_of
from batchscore.stages.write import scored_batch, unplaced_rejects
from batchscore.storage.store import is_local
from batchscore.worker.arrival import arrived
from batchscore.worker.explaining import after_steps, infer_steps
from batchscore.worker.golden import measure_golden
from batchscore.worker.scoring import (
    BlockStep,
    load,
    preprocess_step,
)
from batchscore.worker.spec import ElementSpec, Scoring, Spec


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of a block.

    Args:
        block: The scored rows, numbered within their batch, and the rejects.
        read: Rows that went in.
        filtered: Rows that the job's filter left out.
        scored: Passed-through columns, scores and the model's version; None: no row was scored.
    """

    block: Block
    read: int
    filtered: int
    scored: pa.RecordBatch | None

    @property
    def rejected_rows(self) -> int:
        """How many rows were rejected."""
        return sum(len(reject.rows_r) for reject in self.block.rejects)

    @property
    def rejected(self) -> pa.RecordBatch | None:
        """Rejected rows with their source columns behind stage, error, message and detail."""
        if not self.block.rejects:
            return None
        return unplaced_rejects(self.block.rejects).combine_chunks().to_batches()[0]


@dataclass(frozen=True)
class _Steps:
    shape: Shape
    preprocess: BlockStep
    infer: BlockStep
    postprocess: BlockStep


class ElementScorer:
    """Scores batches of any schema that has what the job needs; for all threads of a process.

    Args:
        spec: The job, whose files are on this machine.
        predictor: Its model.
    """

    def __init__(self, spec: ElementSpec, predictor: Predictor) -> None:
        self.spec = spec
        self._predictor = predictor
        # Threads of one worker share the model, and not each model may be called by several.
        self._turn: AbstractContextManager[Any] = threading.Lock()
        self._steps: dict[pa.Schema, _Steps] = {}

    def outcomes(self, batch: pa.RecordBatch, causes: Sequence[Cause] = ()) -> Iterator[Outcome]:
        """Yields what becomes of a batch's rows, some at a time; nothing for an empty batch.

        Args:
            causes: Rows that could not become rows of the batch.

        Raises:
            InputError: A column is missing, or has a type that does not fit.
            FailedError: A stage fails for all rows, or without any row.
        """
        steps, unit = self._steps_for(batch.schema), element_unit(batch.num_rows)
        size = self._block_rows(batch)
        for sequence, start in enumerate(range(0, batch.num_rows, size)):
            part = batch.slice(start, size)
            numbers = np.arange(start, start + part.num_rows, dtype=np.int64)
            block = Block(unit, sequence, to_arrow(numbers), part)
            yield self._score(_without(block, causes), part.num_rows, steps)

    def _block_rows(self, batch: pa.RecordBatch) -> int:
        asked = self.spec.asked.runtime.batch_rows
        return asked if isinstance(asked, int) else fitting_rows(batch.nbytes / (len(batch) or 1))

    def _steps_for(self, schema: pa.Schema) -> _Steps:
        schema = schema.remove_metadata()
        if schema not in self._steps:
            spec = self.spec
            shape = shape_of(spec.asked, spec.scoring, spec.declared, schema)
            own = replace(spec, scoring=shape.scoring)
            self._steps[schema] = _Steps(
                shape,
                preprocess_step(own),
                infer_steps(own, self._predictor),
                after_steps(own),
            )
        return self._steps[schema]

    def _score(self, block: Block, read: int, steps: _Steps) -> Outcome:
        scoring = steps.shape.scoring
        block = cast_block(block, scoring.source.schema)
        kept = _filtered(block, steps.shape.condition)
        filtered = len(block) - len(kept)
        done = steps.preprocess(kept)
        with self._turn:
            done = steps.infer(done)
        done = steps.postprocess(done)
        done = _seen(reject_failing(done, scoring.target.checks, scoring.checks), scoring)
        if not len(done) or done.values is None:
            return Outcome(done, read, filtered, None)
        trial_of(self.spec.key, passed=True).passed = True
        return Outcome(done, read, filtered, scored_batch(done, scoring.target))


def _without(block: Block, causes: Sequence[Cause]) -> Block:
    """Rejects those rows of a block that are among rows of its batch."""
    first, own = int(block.rows_b[0].as_py()), list[Cause]()
    for cause in causes:
        inside = (cause.rows_c >= first) & (cause.rows_c < first + len(block))
        if inside.any():
            details = cause.details.filter(to_arrow(inside))
            own.append(Cause(cause.message, cause.rows_c[inside] - first, details))
    return reject_causes(block, own, "convert", ERROR) if own else block


def _filtered(block: Block, condition: pc.Expression | None) -> Block:
    if condition is None:
        return block
    numbered = block.batch.append_column("", block.rows_b).filter(condition)
    batch = numbered.select(range(numbered.num_columns - 1))
    return replace(block, rows_b=numbered.columns[-1], batch=batch)


def _seen(block: Block, scoring: Scoring) -> Block:
    """Returns a block whose rejects lack the columns that are read for checks alone."""
    hidden = list(scoring.target.hidden)
    if not hidden:
        return block
    rejects = [replace(each, batch=each.batch.drop_columns(hidden)) for each in block.rejects]
    return replace(block, rejects=tuple(rejects))


_scorers: WeakValueDictionary[str, ElementScorer] = WeakValueDictionary()
_loading = threading.Lock()


def scorer_of(spec: ElementSpec) -> ElementScorer:
    """Returns what scores a job's elements in this process, shared by all threads that ask for it.

    Raises:
        BatchscoreError: Code or model cannot be fetched or loaded, or the golden rows' scores are
            other than known.
    """
    with _loading:
        found = _scorers.get(spec.key)
        if found is None:
            found = _scorers[spec.key] = _load(spec)
        return found


def _load(spec: ElementSpec) -> ElementScorer:
    _require_visible(spec)
    spec = arrived(spec)
    predictor = load(spec)
    require_golden(spec, predictor)
    return ElementScorer(spec, predictor)


def require_golden(spec: Spec, predictor: Predictor) -> None:
    """Raises ModelError where the model makes other scores of its golden rows than known."""
    found = measure_golden(spec, predictor)
    model = spec.scoring.model
    if found is not None:
        (check,) = check_golden([found["gaps"]], model.tolerance, found["rows"])
        if not check.passed:
            raise ModelError(
                f"model {model.name!r} on {platform.node()}: {check.detail}; use the versions of "
                "packages that the model was made with, or a larger tolerance in its model.yaml"
            )


def _require_visible(spec: ElementSpec) -> None:
    """Raises an error of batchscore where this machine does not see what the launcher saw."""
    model, here = spec.scoring.model, f"the worker on {platform.node()} does not see"
    if spec.shipment is not None:
        address = spec.output.address
        if is_local(address) and not os.path.isdir(address):
            raise FailedError(
                f"{here} ship_to {address}; give bs.Score an address that launcher and workers "
                "both reach, such as s3://bucket/folder"
            )
        return
    folders: list[tuple[str, str, type[BatchscoreError]]] = []
    folders += [("the model's folder", model.folder, ModelError)] if is_local(model.folder) else []
    folders += [("the job's folder", spec.scoring.base, FunctionError)] if spec.scoring.code else []
    for what, folder, error in folders:
        if not os.path.isdir(folder):
            raise error(
                f"{here} {what}, {folder}; give bs.Score ship_to, an address that launcher and "
                "workers both reach, such as s3://bucket/folder"
            )
