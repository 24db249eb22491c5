"""Why a row has its score: the columns that moved it most, as the model itself counts them.

Suffixes: `_e` entries, of which a model has one for each number of its inputs; `_n` explained rows,
`_ne` explained rows by entries, `_nc` explained rows by columns, `_r` reasons of all of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import (
    Array,
    numbers_by_row,
    take_rows,
    text_array,
    to_arrow,
    to_numpy,
)
from batchscore.errors import FailedError, UnfitStepError
from batchscore.messages.wording import nearest
from batchscore.models.backends.calling import Calls
from batchscore.models.backends.facts import CONTRIBUTIONS, RAW
from batchscore.stages.block import Block, locate_rows, reject_rows
from batchscore.stages.infer.step import inputs_of

REASONS = "reasons"
"""The column that holds them."""
_FIELDS = [pa.field("column", pa.string()), pa.field("contribution", pa.float64())]
KIND = pa.list_(pa.struct(_FIELDS))
"""Its type."""
TOLERANCE = 1e-5
_PART_NUMBERS = 1 << 21
"""So many contributions are computed at a time."""


@dataclass(frozen=True)
class Explaining:
    """Which rows are explained, and by which columns.

    Args:
        top: The most columns that a row names.
        above: A row is explained if its score is above it; None: each row is.
        score: The score that is compared; None: the only one that holds numbers.
        columns: Of each entry of the model's contributions, the column that it belongs to.
        named: The columns that reasons may name.
    """

    top: int
    above: float | None
    score: str | None
    columns: tuple[str, ...]
    named: tuple[str, ...]


def explain(block: Block, given: Block, wanted: Explaining, calls: Calls) -> Block:
    """Adds a column of reasons to a block's scores: null for a row that is not explained.

    Rejects rows whose raw score is NaN or infinite, as that behind a probability of 1 may be.

    Args:
        block: Scored rows.
        given: The same rows, and those that were rejected since, with their model inputs.
        wanted: What is explained.
        calls: Returns the model's contributions, the base last, and its raw score.

    Raises:
        FailedError: Contributions and base do not add up to the raw score.
        UnfitStepError: There is no such score.
    """
    if block.values is None or not len(block):
        return block
    chosen_n = _chosen(block.values, wanted)
    rows_n = to_numpy(block.rows_b)[chosen_n]
    places_n = np.searchsorted(to_numpy(given.rows_b), rows_n)
    size = max(1, _PART_NUMBERS // (len(wanted.columns) + 1))
    parts = [
        _explained(given, places_n[start : start + size], wanted, calls)
        for start in range(0, len(places_n), size)
    ]
    column = _listed(len(block), chosen_n, parts, wanted.named)
    names = [*block.values.schema.names, REASONS]
    values = pa.RecordBatch.from_arrays([*block.values.columns, column], names=names)
    return _without_endless(replace(block, values=values), chosen_n, parts)


def _without_endless(block: Block, chosen_n: Array, parts: Sequence[_RowReasons]) -> Block:
    bad_b = np.zeros(len(block), np.bool_)
    bad_b[chosen_n] = _joined([part.endless_n for part in parts], np.bool_)
    if not bad_b.any():
        return block
    message = "the raw score is NaN or infinite, so no column has a part in it"
    return reject_rows(block, to_arrow(bad_b), "explain", "NonFiniteScore", message)


def _chosen(values: pa.RecordBatch, wanted: Explaining) -> Array:
    """Returns the places of the rows that are explained; of a vector its largest number counts."""
    if wanted.above is None:
        return np.arange(values.num_rows)
    numbers = {
        n: numbers_by_row(c) for n, c in zip(values.schema.names, values.columns, strict=True)
    }
    known = [name for name, found in numbers.items() if found is not None]
    name = compared_score(known, wanted.score)
    found = numbers[name]
    assert found is not None
    most_b = np.full(values.num_rows, -np.inf)
    rows_n, numbers_n = found
    np.maximum.at(most_b, rows_n, numbers_n)
    return np.flatnonzero(most_b > wanted.above)


def compared_score(known: Sequence[str], asked: str | None) -> str:
    """Returns the score that `above` is compared with.

    Args:
        known: The scores that hold numbers.
        asked: The one that the job names, if it names one.

    Raises:
        UnfitStepError: There is none, or it is not clear which one.
    """
    if asked is not None and asked not in known:
        raise UnfitStepError(
            f"explain.score: no score of numbers is named {asked!r}; {nearest(asked, known)}"
        )
    if asked is None and len(known) != 1:
        raise UnfitStepError(
            f"explain.above: the scores that hold numbers are {', '.join(known) or 'none'}; name "
            "the one that it is compared with as explain.score, or leave explain.above out"
        )
    return known[0] if asked is None else asked


@dataclass(frozen=True)
class _RowReasons:
    """Reasons of some rows.

    Args:
        sizes_n: How many reasons each row has.
        column_r: Places of their columns among those that may be named.
        contribution_r: What each contributed.
        endless_n: Whether a row's raw score is NaN or infinite; such a row has no reasons.
    """

    sizes_n: Array
    column_r: Array
    contribution_r: Array
    endless_n: Array


def _explained(given: Block, places_n: Array, wanted: Explaining, calls: Calls) -> _RowReasons:
    assert given.values is not None
    rows = replace(given, values=take_rows(given.values, to_arrow(places_n)))
    made = calls.predict(inputs_of(rows), len(places_n))()
    endless_n = ~np.isfinite(made[RAW])
    if endless_n.any():
        made = {name: np.where(endless_n, 0.0, found.T).T for name, found in made.items()}
    _require_sum(given, places_n, made[CONTRIBUTIONS], made[RAW])
    by_column_nc = _by_column(made[CONTRIBUTIONS], wanted)
    # Of equal ones the first in the model's own order.
    order_nc = np.argsort(-np.abs(by_column_nc), axis=1, kind="stable")[:, : wanted.top]
    value_nc = np.take_along_axis(by_column_nc, order_nc, axis=1)
    moved_nc = value_nc != 0
    return _RowReasons(moved_nc.sum(axis=1), order_nc[moved_nc], value_nc[moved_nc], endless_n)


def _require_sum(given: Block, places_n: Array, found_ne: Array, raw_n: Array) -> None:
    sum_n = found_ne.sum(axis=1)
    good_n = np.abs(sum_n - raw_n) <= TOLERANCE * np.maximum(1.0, np.abs(raw_n))
    if good_n.all():
        return
    bad = int(np.flatnonzero(~good_n)[0])
    row = to_numpy(given.rows_b)[places_n[bad : bad + 1]]
    shards, rows = locate_rows(given.unit, row)
    raise FailedError(
        f"explain: row {rows[0]} of shard {shards[0]} has contributions that come to "
        f"{sum_n[bad]:.9g} with their base, and the raw score {raw_n[bad]:.9g}; expected a "
        f"difference of at most {TOLERANCE:g} of it, or of 1. The model's framework cannot explain "
        "this model exactly: leave explain out"
    )


def _by_column(found_ne: Array, wanted: Explaining) -> Array:
    """Adds up what the entries of each column that may be named contributed."""
    by_column_nc = np.zeros((len(found_ne), len(wanted.named)))
    place = {name: number for number, name in enumerate(wanted.named)}
    for entry, name in enumerate(wanted.columns):
        if name in place:
            by_column_nc[:, place[name]] += found_ne[:, entry]
    return by_column_nc


def _listed(
    rows: int, chosen_n: Array, parts: Sequence[_RowReasons], named: Sequence[str]
) -> pa.Array:
    """Returns the reasons of all rows (b,), null for those that were not chosen."""
    sizes_b, known_b = np.zeros(rows, np.int32), np.zeros(rows, np.bool_)
    sizes_b[chosen_n] = _joined([part.sizes_n for part in parts], np.int32)
    known_b[chosen_n] = True
    places_r = _joined([part.column_r for part in parts], np.int64)
    numbers_r = _joined([part.contribution_r for part in parts], np.float64)
    columns = [text_array(named).take(to_arrow(places_r)), to_arrow(numbers_r)]
    items = pa.StructArray.from_arrays(columns, fields=_FIELDS)
    offsets_b = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes_b, dtype=np.int32)])
    valid = None if known_b.all() else pa.py_buffer(np.packbits(known_b, bitorder="little"))
    buffers = [valid, pa.py_buffer(offsets_b)]
    return pa.Array.from_buffers(KIND, rows, buffers, children=[items])


def _joined(arrays: Sequence[Array], kind: type) -> Array:
    return np.concatenate([np.empty(0, kind), *arrays]).astype(kind, copy=False)
