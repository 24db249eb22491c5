"""Types of the columns that a model was saved with, as its card records them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from batchscore.columnar.arrays import is_list
from batchscore.columnar.texts import TEXT
from batchscore.models.column_values import TEXTS, plain_type

_LIST = "list of "
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
_NUMBERS = {
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *_FLOATS.values(),
    "bool",
    "decimal",
}


def trained_type(kind: pa.DataType) -> str:
    """Returns the name that a card has for a type: lists of lists are lists of their numbers."""
    plain = plain_type(kind)
    if is_list(plain):
        return _LIST + trained_type(plain.value_type).removeprefix(_LIST)
    if any(test(plain) for test in TEXTS):
        return TEXT
    if pa.types.is_decimal(plain):
        return "decimal"
    return _FLOATS.get(str(plain), str(plain))


def is_as_trained(kind: pa.DataType, trained: str) -> bool:
    """Tells whether a column is of the training's type: each number is as good as another.

    pandas makes floats of integers next to a null, so that their type alone says nothing.
    """
    return _family(trained_type(kind)) == _family(trained)


def _family(name: str) -> str:
    if name.startswith(_LIST):
        return _LIST + _family(name.removeprefix(_LIST))
    return "number" if name in _NUMBERS else name


def trained_columns(schema: pa.Schema, columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the columns of an input as a card records them, with their types in a sample."""
    types = [trained_type(schema.field(name).type) for name in columns]
    return {"columns": [*columns], "types": types}
