"""A block's model inputs to its model outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pyarrow as pa

from batchscore.columnar.arrays import Array, filter_rows, to_arrow, to_numpy
from batchscore.columnar.ragged import Ragged, ragged_from_arrow
from batchscore.models.backends.torch.buckets import Inputs
from batchscore.models.backends.torch.forward import Forward, Outputs
from batchscore.models.backends.torch.tiles import run_tiles
from batchscore.stages.block import Block, reject_non_finite
from batchscore.stages.misfits import given_texts


def infer(block: Block, forward: Forward) -> Block:
    """Replaces a block's model inputs by the model's outputs; rows with a NaN or infinity leave.

    Each call has `forward.rows` rows, the last filled up by its last row. On the CPU a row's bits
    depend on nothing but its inputs, whatever the block's size and the number of threads.

    Raises:
        StepError: the network raised, or returned something of another shape, type or name.
    """
    done = begin(block, forward)()
    beside_s = forward.pace.take_beside()
    return replace(done, seconds={**done.seconds, "tiles": beside_s}) if beside_s else done


def begin(block: Block, forward: Forward) -> Callable[[], Block]:
    """Begins what `infer` does, and returns what waits for its end; it may be called again.

    Raises:
        StepError: as `infer`, now or when waited for.
    """
    if block.values is None or not len(block):
        return lambda: block
    outputs = start(inputs_of(block), len(block), forward)
    return lambda: _with_outputs(block, outputs(), forward.columns)


def inputs_of(block: Block) -> Inputs:
    """Views a block's model inputs as arrays (rows, …) by name."""
    assert block.values is not None
    columns = zip(block.values.schema.names, block.values.columns, strict=True)
    return {name: _rows(column) for name, column in columns}


def _rows(column: pa.Array) -> Array | Ragged:
    varying = pa.types.is_large_list(column.type)
    return ragged_from_arrow(column) if varying else to_numpy(column)


def start(inputs: Inputs, rows: int, forward: Forward) -> Outputs:
    """Begins to put arrays (rows, …) through the network, on a device or in tiles on the CPU."""
    if forward.begin is not None:
        return forward.begin(inputs, rows, forward)
    made = run_tiles(inputs, rows, forward)
    return lambda: made


def _with_outputs(
    block: Block, outputs: Mapping[str, Array], sources: Mapping[str, tuple[str, ...]]
) -> Block:
    columns = [to_arrow(array) for array in outputs.values()]
    done = replace(block, values=pa.record_batch(columns, names=list(outputs)))
    explain = partial(_given, block, sources)
    return reject_non_finite(done, "infer", "the model returned NaN or infinity", explain)


def _given(block: Block, sources: Mapping[str, tuple[str, ...]], bad_b: pa.Array) -> pa.Array:
    """Returns what in the inputs of some rows of a block is not finite, as texts."""
    assert block.values is not None
    return given_texts(filter_rows(block.values, bad_b), sources)
