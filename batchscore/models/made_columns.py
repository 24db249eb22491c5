"""Columns that a job's own function made, as a model's features read them by name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import to_arrow
from batchscore.errors import StepError
from batchscore.messages.wording import nearest
from batchscore.models.column_values import floats, plain_type
from batchscore.models.features import Features, reads_integers
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Coded

_INT = pa.int64()
_EXACT = 2.0**53
"""Floats below it tell each integer apart."""


def select_made(features: Features, made: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the columns that features read, of those that a function made.

    pandas makes floats of integers if one of them is null. So whole floats become integers where a
    feature reads these.

    Raises:
        StepError: A column is missing.
    """
    for name in features.columns:
        if name not in made.schema.names:
            inputs = ", ".join(map(repr, features.inputs))
            raise StepError(
                f"preprocess.function returned no column {name!r}, which the model reads; "
                f"{nearest(name, made.schema.names)}. Return each column of the model, or its "
                f"encoded input {inputs} itself"
            )
    whole = {f.column for each in features.inputs.values() for f in each if reads_integers(f)}
    columns = [
        _whole(made.column(name)) if name in whole else made.column(name)
        for name in features.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=list(features.columns))


def counted_columns(features: Features, made: pa.RecordBatch) -> pa.RecordBatch | None:
    """Returns the columns whose categories are counted that training never saw, if there are."""
    members = [each for found in features.inputs.values() for each in found]
    coded = [each.column for each in members if isinstance(each, Coded) and each.unseen == "null"]
    coded += [each.column for each in members if isinstance(each, Verbatim) and each.vocabulary]
    kept = [field.name for field in made.schema if not pa.types.is_boolean(plain_type(field.type))]
    counted = [name for name in kept if name in coded]
    return made.select(counted) if counted else None


def _whole(column: pa.Array) -> pa.Array:
    """Returns floats as integers if each is whole or missing; any other column as it is."""
    if not pa.types.is_floating(column.type):
        return column
    value_b = floats(column)
    known_b = ~np.isnan(value_b)
    value_b = np.where(known_b, value_b, 0.0)
    if not ((np.floor(value_b) == value_b) & (np.abs(value_b) < _EXACT)).all():
        return column
    made = to_arrow(value_b.astype(np.int64))
    return made if known_b.all() else pc.if_else(to_arrow(known_b), made, pa.nulls(len(made), _INT))
