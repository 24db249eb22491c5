"""Model outputs to scores, by the steps of a job file and by functions of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import pyarrow as pa

from batchscore.errors import StepError
from batchscore.job import AnyStep
from batchscore.job.steps.base import Columns, Kinds, Step
from batchscore.stages.block import Block, reject_non_finite
from batchscore.stages.typeless import Types, typed

Call = Callable[[pa.RecordBatch], pa.RecordBatch]


def postprocess(
    block: Block, steps: Sequence[AnyStep | Call], known: Types = MappingProxyType({})
) -> Block:
    """Replaces a block's model outputs by what the steps make of them, one after the other.

    Rows for which a step makes a NaN or an infinity are rejected.

    Args:
        steps: Steps of the job file; a user's function is given as what calls it.
        known: Types of scores, for columns that have no value here.

    Raises:
        StepError: A step does not fit the outputs, or a user's function failed.
    """
    if block.values is None or not len(block) or not steps:
        return block
    columns = dict(zip(block.values.schema.names, block.values.columns, strict=True))
    for step in steps:
        columns = _apply(step, columns)
    values = typed(pa.record_batch(list(columns.values()), names=list(columns)), known)
    done = replace(block, values=values)
    return reject_non_finite(done, "postprocess", "postprocessing made NaN, infinity or null")


def _apply(step: AnyStep | Call, columns: Columns) -> Columns:
    if isinstance(step, Step):
        return step.apply(columns)
    assert callable(step)
    made = step(pa.record_batch(list(columns.values()), names=list(columns)))
    if not made.num_columns:
        raise StepError("postprocess: a function returned no columns; expected at least one score")
    return dict(zip(made.schema.names, made.columns, strict=True))


def score_kinds(names: Sequence[str], steps: Sequence[AnyStep]) -> Kinds | None:
    """Returns the names of the scores that steps make of outputs, and what is known of them.

    The kinds are those of `PostprocessStep.kinds`. None: a function decides.
    """
    kinds: Kinds = dict.fromkeys(names, "")
    for step in steps:
        made = step.kinds(kinds)
        if made is None:
            return None
        kinds = made
    return kinds
