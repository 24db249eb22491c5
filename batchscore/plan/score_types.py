"""Finds the types of score columns that a sample does not tell, since it has no value of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchscore.errors import StepError
from batchscore.job import UserFunction
from batchscore.plan.independence import attempt
from batchscore.plan.published import published_types
from batchscore.plan.sample import read_sample, spread
from batchscore.stages.block import Block, Step
from batchscore.stages.typeless import Types, are_alike, known_types
from batchscore.units.unit import Unit, make_unit, split_piece
from batchscore.worker.spec import Spec

# So many places all over the input are looked at, a few rows at each.
_PLACES = 16
_ROWS = 256


def learn_types(spec: Spec, before: Types, steps: Sequence[Step], units: Sequence[Unit]) -> Types:
    """Returns the types of score columns that rows elsewhere have, or that are published.

    Args:
        before: Score columns that are published.
        steps: Steps from the source columns to the scores.
        units: What is to be scored.
    """
    types = {**before}
    for part in _places(units):
        block = _scored(read_sample([part], spec.scoring.source, _ROWS), steps)
        values = block.values if block is not None else None
        found = known_types(values)
        types |= found
        if values is not None and len(found) == values.num_columns:
            break
    return types


def keep_published(before: Types, types: Types) -> Types:
    """Returns types with those that are published in place of others of numbers, or of texts."""
    return {
        name: before[name] if name in before and are_alike(kind, before[name]) else kind
        for name, kind in types.items()
    }


def published_scores(spec: Spec) -> Types:
    """Returns the types of columns that are published; none where no function makes scores."""
    types: dict[str, pa.DataType] = {}
    if not any(isinstance(step, UserFunction) for step in spec.scoring.postprocess):
        return types
    for name, text in published_types(spec.output, spec.job, spec.slice).items():
        types |= _named(name, text)
    return types


def _named(name: str, text: str) -> dict[str, pa.DataType]:
    try:
        return {name: pa.type_for_alias(text)}
    except ValueError:  # of types with parts Arrow reads no names
        return {}


def _places(units: Sequence[Unit]) -> Iterator[Unit]:
    """Yields row groups spread over the input, one each."""
    groups = [group for unit in units for piece in unit.pieces for group in split_piece(piece, 1)]
    yield from (make_unit((group,)) for group in spread(groups, _PLACES))


def _scored(block: Block | None, steps: Sequence[Step]) -> Block | None:
    for step in steps:
        if block is None or not len(block):
            return None
        made = attempt(step, block)
        block = None if isinstance(made, StepError) else made
    return block
