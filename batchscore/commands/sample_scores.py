"""A sample through the stages of a run: its outputs, golden rows and reference profile.

Suffixes: `_g` golden rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import Array, to_arrow, to_numpy
from batchscore.commands.profile import profile
from batchscore.drift.profile_file import write_table
from batchscore.errors import InputError, ModelError, StepError
from batchscore.job.steps.all_steps import AnyStep
from batchscore.messages.wording import counted, nearest
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import TILE_ROWS, Call
from batchscore.models.backends.registry import backend_of
from batchscore.models.backends.saving import Draft
from batchscore.models.card import shape_text
from batchscore.models.features import encode
from batchscore.models.folder import read_model_folder
from batchscore.models.golden_rows import golden_places, golden_rows
from batchscore.models.inputs import ModelInput
from batchscore.stages.block import Block
from batchscore.stages.infer import infer
from batchscore.stages.postprocess import postprocess, score_kinds
from batchscore.stages.preprocess import InputColumns, encode_features, stack_columns
from batchscore.stages.write import MODEL_VERSION
from batchscore.units.unit import Piece, Shard, Unit
from batchscore.worker.scoring import output_specs

_BLOCK_ROWS = 65_536


def _inputs_of(rows: pa.RecordBatch, draft: Draft) -> Block:
    """Returns rows with the inputs that the stages of a run make of them."""
    shard = Shard("sample", 0, "", rows.num_rows)
    unit = Unit("sample", (Piece(shard, (0,), (0,), (rows.num_rows,)),))
    numbers = to_arrow(np.arange(rows.num_rows, dtype=np.int64))
    block = Block(unit, 0, numbers, _flat(rows.select(draft.read)))
    if draft.features is not None:
        return encode_features(block, partial(encode, draft.features))
    return stack_columns(block, [_stacked(each) for each in draft.inputs])


def _flat(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Returns rows with one list for lists of lists of fixed size, which arrays of images become.

    That is how a job's columns have them, and how golden rows are read.
    """
    for place, column in enumerate(rows.columns):
        kind = column.type
        if pa.types.is_fixed_size_list(kind) and pa.types.is_fixed_size_list(kind.value_type):
            name = rows.schema.names[place]
            try:
                flat = to_arrow(to_numpy(column).reshape(len(column), -1))
            except ValueError as error:
                raise InputError(
                    f"sample: column {name!r}: {error}; give lists of numbers, without nulls"
                ) from error
            rows = rows.set_column(place, name, flat)
    return rows


def _stacked(each: ModelInput) -> InputColumns:
    return InputColumns(each.name, each.dtype, each.shape, each.columns, each.varying, each.missing)


def score_all(rows: pa.RecordBatch, draft: Draft, model: Calls, what: str) -> Block:
    """Returns rows with their outputs, by the stages of a run; ModelError where a row has none."""
    block = _infer(rows, draft, model, what)
    if block.rejects:
        bad = block.rejects[0]
        why = bad.texts[0].as_py() or bad.message
        place = bad.rows_r[0].as_py()
        raise ModelError(
            f"{what}: {counted(len(bad.rows_r), 'row')} of {rows.num_rows:,} cannot be scored; "
            f"the first is row {place} ({why}). Correct the model, or leave such rows out"
        )
    return block


def _infer(rows: pa.RecordBatch, draft: Draft, model: Calls, what: str) -> Block:
    columns = {each.name: each.columns for each in draft.inputs}
    _check_columns(rows, draft, what)
    try:
        return infer(_inputs_of(rows, draft), model, columns)
    except StepError as error:
        raise ModelError(
            f"{what}: the model cannot be called as a run calls it, with {_words(draft)} of "
            f"{TILE_ROWS:,} rows or fewer ({error}); correct forward, or the columns and types of "
            "its inputs"
        ) from error


def _words(draft: Draft) -> str:
    return ", ".join(
        f"{name} {each.type} {shape_text(each.shape)}" for name, each in draft.declared.items()
    )


def _check_columns(rows: pa.RecordBatch, draft: Draft, what: str) -> None:
    for name in draft.read:
        if name not in rows.schema.names:
            known = nearest(name, rows.schema.names)
            raise InputError(f"{what}: has no column {name!r}, which the model reads; {known}")


_OTHER_NAME = 'choose another name, such as outputs=["p"], or --outputs p'


def declared_outputs(own: Block, draft: Draft) -> dict[str, dict[str, Any]]:
    """Returns what the card declares of the outputs; a last dimension of one is left out."""
    assert own.values is not None
    found = {}
    for name, array in _arrays(own).items():
        if not name or name == MODEL_VERSION:
            raise InputError(
                f"outputs: {name!r} cannot name an output: expected a text that is not empty and "
                f"not {MODEL_VERSION!r}, a column that each score gets; {_OTHER_NAME}"
            )
        if draft.features is not None and name in draft.read:
            raise InputError(
                f"outputs: {name!r} is also a column that the model reads; {_OTHER_NAME}"
            )
        if name in draft.declared and draft.features is None:
            raise InputError(f"outputs: {name!r} is also an input; {_OTHER_NAME}")
        shape = array.shape[1:-1] if array.shape[1:] and array.shape[-1] == 1 else array.shape[1:]
        found[name] = {"type": str(array.dtype), "shape": [*shape]}
    return found


def _arrays(block: Block) -> dict[str, Array]:
    assert block.values is not None
    values = block.values
    return {n: to_numpy(c) for n, c in zip(values.schema.names, values.columns, strict=True)}


def load_back(folder: Path, draft: Draft) -> Calls:
    """Returns how a run calls the model that lies in a folder, on the CPU."""
    model = read_model_folder(str(folder))
    predictor = backend_of(model.format).load(model, "cpu", prove=True)
    return predictor.called(Call(output_specs(model), varying=draft.varying))


def golden_of(
    rows: pa.RecordBatch,
    own: Block,
    draft: Draft,
    loaded: Calls,
    tolerance: float,
    if_differs: str,
) -> pa.RecordBatch:
    """Returns golden rows with their outputs, after a look at whether all ways give the same.

    Args:
        rows: The sample.
        own: Its outputs, by the model in memory.
        draft: What is known of the model.
        loaded: The model that was loaded from the folder.
        tolerance: The largest difference.
        if_differs: What to do if it is larger.

    Raises:
        ModelError: The loaded network gives other outputs, or a row's depend on other rows.
    """
    every = _arrays(score_all(rows, draft, loaded, "sample"))
    gap = _gap(every, _arrays(own))
    if gap > tolerance:
        raise ModelError(
            "the model that was loaded from the folder gives the sample's rows scores that differ "
            f"by {gap:.3g} from the model in memory; the tolerance is {tolerance:g}. {if_differs}"
        )
    places_g = golden_places(rows.select(draft.read))
    chosen = golden_rows(rows.select(draft.read), places_g)
    known = _arrays(score_all(chosen, draft, loaded, "sample"))
    halves = (chosen[: len(places_g) // 2], chosen[len(places_g) // 2 :])
    apart = [_arrays(score_all(half, draft, loaded, "sample")) for half in halves if half.num_rows]
    joined = {name: np.concatenate([half[name] for half in apart]) for name in known}
    gap = max(
        _gap(known, {name: array[places_g] for name, array in every.items()}), _gap(known, joined)
    )
    if gap > tolerance:
        raise ModelError(
            f"scores change by {gap:.3g} with the other rows of a call; the tolerance is "
            f"{tolerance:g}. Combine no rows in forward, and keep nothing from call to call"
        )
    stored = chosen if draft.features is not None else _inputs_of(chosen, draft).values
    assert stored is not None
    stored = _flat(stored)
    for name, array in known.items():
        stored = stored.append_column(name, to_arrow(array))
    return stored


def _gap(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> float:
    """Returns the largest difference of outputs of as many rows."""
    pairs = [(array, theirs[name].reshape(array.shape)) for name, array in ours.items()]
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0)) for a, b in pairs
    )


def reference_of(
    rows: pa.RecordBatch,
    draft: Draft,
    loaded: Calls,
    outputs: Iterable[str],
    steps: Sequence[AnyStep],
) -> bytes:
    """Returns a file with the profile of what the model reads and gives, as a job's is made."""
    parts = [
        _with_scores(rows[start : start + _BLOCK_ROWS], draft, loaded, steps)
        for start in range(0, rows.num_rows, _BLOCK_ROWS)
    ]
    table = pa.Table.from_batches(parts)
    if not len(table):
        raise InputError("reference: none of its rows can be scored; give rows like the sample's")
    kinds = score_kinds([*outputs], steps) or {}
    hints = {kind: [n for n, k in kinds.items() if k == kind] for kind in kinds.values()}
    found = profile(
        table, probabilities=hints.get("probability", ()), classes=hints.get("classes", ())
    )
    return write_table(found, {})


def _with_scores(
    rows: pa.RecordBatch, draft: Draft, loaded: Calls, steps: Sequence[AnyStep]
) -> pa.RecordBatch:
    """Returns rows that have scores: the columns that the model reads, and a job's scores."""
    block = _infer(rows, draft, loaded, "reference")
    try:
        block = postprocess(block, steps)
    except StepError as error:
        raise InputError(f"{error}; correct postprocess") from error
    values = block.values
    batch = block.batch.select(draft.read)
    for name, column in zip(values.schema.names, values.columns, strict=True) if values else ():
        if name in batch.schema.names:
            raise InputError(f"score {name!r} is also a column; choose another name for the output")
        batch = batch.append_column(name, column)
    return batch
