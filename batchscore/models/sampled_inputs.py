"""A model's inputs as a sample of them shows: which columns, of what type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import is_list
from batchscore.errors import InputError
from batchscore.messages.wording import counted, nearest
from batchscore.models.card import InputTensor, shape_text
from batchscore.models.validate import validated

Facts = Mapping[str, Any]


def declare_inputs(
    batch: pa.RecordBatch,
    columns: Mapping[str, Sequence[str]],
    float_type: str,
    given: Mapping[str, Facts],
) -> dict[str, InputTensor]:
    """Returns what a card declares of each model input.

    Args:
        batch: Some rows, with at least one.
        columns: The columns that each input is stacked from.
        float_type: Type of inputs that hold fractions: that of the network's weights.
        given: What the rows do not show, or show otherwise, by the card's keys.

    Raises:
        InputError: A column is missing or not made of numbers.
        ModelError: What was given is nothing that a card says of an input.
    """
    _check_given(given, columns)
    found = {}
    for name, sources in columns.items():
        facts = {**_facts(batch, name, sources, float_type), **given.get(name, {})}
        if None not in (facts["shape"] or ()) and "max_length" not in given.get(name, {}):
            facts.pop("max_length", None)
        found[name] = validated(InputTensor, facts, f"input {name!r}")
        _check_width(batch, name, sources, found[name])
    return found


def _check_width(
    batch: pa.RecordBatch, name: str, sources: Sequence[str], declared: InputTensor
) -> None:
    """Refuses a given shape of more or fewer values than columns of numbers make."""
    if any(is_list(batch.schema.field(each).type) for each in sources):
        return
    if None in declared.shape or math.prod(map(int, filter(None, declared.shape))) != len(sources):
        raise InputError(
            f"inputs: {name!r} is given shape {shape_text(declared.shape)}, and "
            f"{counted(len(sources), 'column')} of numbers make {[len(sources)]}; leave the shape "
            "out, or give as many columns"
        )


def _check_given(given: Mapping[str, Facts], columns: Mapping[str, Sequence[str]]) -> None:
    for name in given:
        if name not in columns:
            raise InputError(f"inputs: the model has no input {name!r}; {nearest(name, columns)}")


def _facts(batch: pa.RecordBatch, name: str, sources: Sequence[str], float_type: str) -> Facts:
    for source in sources:
        if source not in batch.schema.names:
            raise InputError(
                f"model input {name!r}: the sample has no column {source!r}; "
                f"{nearest(source, batch.schema.names)}"
            )
    if len(sources) == 1:
        return _of_column(batch.column(sources[0]), sources[0], float_type)
    kinds = [_dtype(batch.schema.field(each).type, each, float_type) for each in sources]
    return {"type": _common(kinds, float_type), "shape": [len(sources)]}


def _common(kinds: Sequence[str], float_type: str) -> str:
    if float_type in kinds:
        return float_type
    return str(np.result_type(*kinds))


def _of_column(column: pa.Array, name: str, float_type: str) -> Facts:
    kind = column.type
    shape: list[int | None] = []
    longest = None
    if is_list(kind) and not pa.types.is_fixed_size_list(kind):
        low, high = pc.min_max(pc.list_value_length(column)).as_py().values()
        shape.append(high if low == high and high else None)
        longest = max(high or 0, 1)
        kind = kind.value_type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    facts: dict[str, Any] = {"type": _dtype(kind, name, float_type), "shape": shape}
    return {**facts, "max_length": longest} if longest else facts


def _dtype(kind: pa.DataType, name: str, float_type: str) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return float_type
    if pa.types.is_integer(kind):
        # torch computes with no unsigned integers but those of a byte.
        return str(kind) if str(kind) in ("int8", "uint8", "int16", "int32", "int64") else "int64"
    raise InputError(
        f"sample: column {name!r} is {kind}, and a network takes numbers; encode it with "
        "bs.fit_features and give the result as features, or leave the column out"
    )
