"""A block's model inputs to its model outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    filter_rows,
    ragged_from_arrow,
    spoiled_values,
    to_arrow,
    to_numpy,
)
from batchscore.columnar.ragged import Ragged
from batchscore.columnar.text_columns import texts_from_arrow
from batchscore.columnar.texts import Texts
from batchscore.messages.values import joined_texts, text_scalar
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import Inputs
from batchscore.stages.block import Block, reject_non_finite, reject_rows
from batchscore.stages.misfits import given_texts

Sources = Mapping[str, tuple[str, ...]]
"""The columns that a model input was stacked from, by its name, where they are known."""

_UNKNOWN: Sources = {}


def infer(block: Block, model: Calls, sources: Sources = _UNKNOWN) -> Block:
    """Replaces a block's model inputs by the model's outputs; rejects rows with NaN or infinity.

    Args:
        model: Called for all rows of the block.
        sources: Names columns in the reason of a rejected row.

    Raises:
        StepError: The model raised, or returned something of another shape, type or name.
    """
    done = begin(block, model, sources)()
    extra_s = model.take_extra_seconds()
    return replace(done, seconds={**done.seconds, "tiles": extra_s}) if extra_s else done


def begin(block: Block, model: Calls, sources: Sources = _UNKNOWN) -> Callable[[], Block]:
    """Starts what `infer` does, and returns what waits for its end; it may be called again.

    Raises:
        StepError: As in `infer`, now or when its results are waited for.
    """
    if block.values is None or not len(block):
        return lambda: block
    outputs = model.predict(inputs_of(block), len(block))
    return lambda: _with_outputs(block, outputs(), sources)


def infer_known(block: Block, step: Callable[[Block], Block], sources: Sources = _UNKNOWN) -> Block:
    """Rejects rows with a NaN among their inputs, and gives the others to a step.

    Args:
        block: Block with model inputs as its values.
        step: Calls a model that takes no NaN.
        sources: Names columns in the reason of a rejected row.
    """
    if block.values is None or not len(block):
        return step(block)
    missing_b = _missing_rows(block.values)
    if not missing_b.any():
        return step(block)
    bad_b = to_arrow(missing_b)
    details = joined_texts(["expected a number", _given(block, sources, bad_b)])
    message = "the model takes no missing value"
    return step(reject_rows(block, bad_b, "infer", "MissingInput", message, details))


def _missing_rows(values: pa.RecordBatch) -> Array:
    """Returns a mask (b,) of the rows that have a NaN, at any depth."""
    mask_b = np.zeros(values.num_rows, np.bool_)
    for column in values.columns:
        row_n, _, found = spoiled_values(column)
        mask_b[row_n[to_numpy(pc.equal(found, text_scalar("nan")))]] = True
    return mask_b


def inputs_of(block: Block) -> Inputs:
    """Views a block's model inputs as arrays (rows, …) by name."""
    assert block.values is not None
    columns = zip(block.values.schema.names, block.values.columns, strict=True)
    return {name: _rows(column) for name, column in columns}


def _rows(column: pa.Array) -> Array | Ragged | Texts:
    if isinstance(column, pa.DictionaryArray):
        return texts_from_arrow(column)
    if isinstance(column, pa.LargeListArray):
        return ragged_from_arrow(column)
    return to_numpy(column)


def _with_outputs(block: Block, outputs: Mapping[str, Array], sources: Sources) -> Block:
    columns = [to_arrow(array) for array in outputs.values()]
    done = replace(block, values=pa.record_batch(columns, names=list(outputs)))
    explain = partial(_given, block, sources)
    return reject_non_finite(done, "infer", "the model returned NaN or infinity", explain)


def _given(block: Block, sources: Sources, bad_b: pa.Array) -> pa.Array:
    """Returns what in the inputs of some rows of a block is not finite, as texts."""
    assert block.values is not None
    return given_texts(filter_rows(block.values, bad_b), sources)
