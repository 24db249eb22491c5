"""How far two ways of computing scores are from each other, on a sample of the input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow.compute as pc

from batchscore.columnar.arrays import to_numpy
from batchscore.models.backends.protocol import Predictor
from batchscore.plan.plan import Plan
from batchscore.plan.rehearsal import first_blocks
from batchscore.stages.block import Block
from batchscore.worker.scoring import infer_step, preprocess_step
from batchscore.worker.spec import Spec

SAMPLE_ROWS = 4096
# Batches that are looked through for a row with a score.
SAMPLES = 16


def samples(plan: Plan) -> Iterator[Block]:
    """Yields the first batches with their model inputs, but for those where no row has any."""
    prepare = preprocess_step(plan.spec)
    made = map(prepare, islice(first_blocks(plan), SAMPLES))
    return (block for block in made if len(block) and block.values is not None)


def scored_sample(
    plan: Plan, plain: Spec, predictor: Predictor, rows: int = SAMPLE_ROWS
) -> tuple[Block, Block] | None:
    """Returns the scores and the model inputs of the first batch that has a row with a score.

    Args:
        plan: Names the input.
        plain: How the scores are computed.
        predictor: The model.
        rows: The first of a batch that are scored.
    """
    for sample in samples(plan):
        known, inputs = score_plain(plain, predictor, _head(sample, rows))
        if len(inputs):
            return known, inputs
    return None


def _head(block: Block, rows: int) -> Block:
    assert block.values is not None
    return replace(
        block, rows_b=block.rows_b[:rows], batch=block.batch[:rows], values=block.values[:rows]
    )


def score_plain(spec: Spec, predictor: Predictor, sample: Block) -> tuple[Block, Block]:
    """Returns the scores of the rows that have some, and these rows with their model inputs."""
    assert sample.values is not None
    values = sample.values
    sample = replace(sample, rejects=())
    known = infer_step(spec, predictor)(sample)
    scored_b = pc.is_in(sample.rows_b, known.rows_b)
    inputs = replace(
        sample,
        rows_b=sample.rows_b.filter(scored_b),
        batch=sample.batch.filter(scored_b),
        values=values.filter(scored_b),
    )
    return known, inputs


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
