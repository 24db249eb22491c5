"""Dictionaries and Beam's rows as batches, and scores as their like; no Beam.

Suffixes: `_c` rows with one cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import make_batch, to_numpy
from batchscore.errors import InputError
from batchscore.messages.wording import one_line, type_of
from batchscore.score.scorer import ElementScorer, Outcome
from batchscore.score.shape import UNTYPED, needs_schema, passed_names
from batchscore.stages.block import Cause
from batchscore.stages.casting import narrowed, plain_type
from batchscore.stages.write import MODEL_VERSION, REASON_COLUMNS, free_names

Fields = Mapping[str, Any]
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
_SHOWN = 80


def fields_of(element: Any) -> Fields:
    """Returns the fields of a dictionary, a named tuple, a dataclass or one of Beam's rows.

    Raises:
        InputError: It is something else.
    """
    if isinstance(element, Mapping):
        return element
    if hasattr(element, "_asdict"):
        fields: Fields = element._asdict()
        return fields
    if dataclasses.is_dataclass(element) and not isinstance(element, type):
        return {each.name: getattr(element, each.name) for each in dataclasses.fields(element)}
    raise InputError(
        f"bs.Score found {type_of(element)} among its elements; it takes record batches, tables, "
        "dictionaries, named tuples and beam.Row: convert the elements with beam.Map"
    )


def score_rows(
    rows: Sequence[Fields], scorer: ElementScorer
) -> Iterator[tuple[Outcome, dict[int, Fields], dict[int, Fields]]]:
    """Yields outcomes, each with its scored and its rejected rows by their places in `rows`.

    A scored row has its own fields, as far as `output.columns` keeps them, and its scores. A
    rejected row has its own fields, and why it was rejected.

    Raises:
        InputError: No schema says what the fields are; or a score has the name of one.
        FailedError: A stage fails for all rows.
    """
    batch, causes = _to_batch(rows, scorer)
    for outcome in scorer.outcomes(batch, causes):
        yield outcome, _scored(rows, outcome, scorer), _rejected(rows, outcome)


def _to_batch(rows: Sequence[Fields], scorer: ElementScorer) -> tuple[pa.RecordBatch, list[Cause]]:
    """Returns rows as a batch, and those of which a field is missing, or not of its type."""
    schema = scorer.spec.declared
    if not schema.names:
        spec = scorer.spec
        raise needs_schema(spec.asked, spec.scoring.model, UNTYPED)
    schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])
    columns, causes, bad = list[pa.Array](), list[Cause](), set[int]()
    for field in schema:
        column, misfits = _column(rows, field)
        columns.append(column)
        for message, texts in misfits.items():
            new = {place: text for place, text in texts.items() if place not in bad}
            bad |= {*new}
            if new:
                places_c = np.array(sorted(new), np.int64)
                details = pa.array([new[place] for place in sorted(new)], pa.string())
                causes.append(Cause(message, places_c, details))
    return make_batch(columns, schema, len(rows)), causes


def _column(
    rows: Sequence[Fields], field: pa.Field
) -> tuple[pa.Array, dict[str, dict[int, str | None]]]:
    """Returns a field of all rows, null where it does not fit, and details of those by cause."""
    name, kind = field.name, field.type
    absent: dict[int, str | None] = {
        place: None for place, row in enumerate(rows) if name not in row
    }
    values = [row.get(name) for row in rows]
    unfit: dict[int, str | None] = {}
    try:
        column = _array(values, kind)
    except _UNFIT:
        for place, value in enumerate(values):
            if not _fits(value, kind):
                values[place] = None
                unfit[place] = f"field {name!r}: {one_line(repr(value), _SHOWN)}, expected {kind}"
        column = _array(values, kind)
    misfits = {
        f"the row has no field {name!r}": absent,
        f"field {name!r} has a value that is not {kind}": unfit,
    }
    return column, {message: found for message, found in misfits.items() if found}


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Returns values as a column; raises one of `_UNFIT` where one of them is not of its type."""
    if not pa.types.is_floating(kind):
        return pa.array(values, kind)
    column, bad_b = narrowed(pa.array(values, pa.float64()), kind)
    if bad_b.any():
        raise OverflowError
    return column


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        _array([value], kind)
    except _UNFIT:
        return False
    return True


def _scored(rows: Sequence[Fields], outcome: Outcome, scorer: ElementScorer) -> dict[int, Fields]:
    values = outcome.block.values
    if values is None or not len(outcome.block):
        return {}
    kept = passed_names(scorer.spec.asked)
    places = to_numpy(outcome.block.rows_b).tolist()
    columns = [column.to_pylist() for column in values.columns]
    version = {MODEL_VERSION: scorer.spec.scoring.model.version}
    made: dict[int, Fields] = {}
    for place, *scores in zip(places, *columns, strict=True):
        own = rows[place] if kept is None else {name: rows[place][name] for name in kept}
        new = {**dict(zip(values.schema.names, scores, strict=True)), **version}
        clash = next((name for name in new if name in own), None)
        if clash is not None:
            raise taken(clash)
        made[place] = {**own, **new}
    return made


def taken(name: str) -> InputError:
    """Returns the error of a field that has the name of a score."""
    return InputError(
        f"bs.Score: a row has a field {name!r}, and a score has that name; rename the score in "
        "postprocess, or leave the field out with output.columns"
    )


def _rejected(rows: Sequence[Fields], outcome: Outcome) -> dict[int, Fields]:
    made: dict[int, Fields] = {}
    for reject in outcome.block.rejects:
        places, texts = to_numpy(reject.rows_r).tolist(), reject.texts.to_pylist()
        for place, text in zip(places, texts, strict=True):
            why = (reject.stage, reject.error, reject.message, text)
            own = dict(zip(free_names([*rows[place]]), rows[place].values(), strict=True))
            made[place] = {**dict(zip(REASON_COLUMNS, why, strict=True)), **own}
    return made
