"""The job's filter as an Arrow expression, in which each literal has its column's own type."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import InputError
from batchscore.job.parameters import shown
from batchscore.stages.literals import Place, next_above, place

Condition = tuple[str, str, Any]
Groups = Sequence[Sequence[Condition]]

_EITHER_SIDE: dict[str, Callable[[Any, Any], pc.Expression]] = {
    "==": operator.eq,
    "!=": operator.ne,
}
_BELOW: dict[str, Callable[[Any, Any], pc.Expression]] = {"<": operator.lt, "<=": operator.le}


def filter_expression(filters: Groups, schema: pa.Schema) -> pc.Expression:
    """Returns the expression that holds for the rows that a filter keeps.

    Conditions are compared as numbers and instants are, without rounding. As in Arrow, a null
    meets no condition but `not in`, and NaN none but `!=` and `not in`.

    Args:
        filters: DNF as in pyarrow: groups of which one must hold, each of conditions that must
            all hold.
        schema: Has every column of the filter.

    Raises:
        InputError: A literal cannot be compared with its column.
    """
    return _any([_all([_condition(each, schema) for each in group]) for group in filters])


def decidable(filters: Groups | None) -> list[list[Condition]]:
    """Returns what statistics can decide of a filter; nothing where they cannot decide a group.

    They know of no NaN and no null, which `!=` and `not in` keep.
    """
    groups = [[c for c in group if c[1] not in ("!=", "not in")] for group in filters or ()]
    return groups if all(groups) else []


def pruning_expression(groups: Groups, schema: pa.Schema) -> pc.Expression | None:
    """Returns what holds wherever the filter does, in a shard's own types; None: no such thing.

    The rows may be compared in a wider type than the shard's. So a float that a narrow type
    lacks represents all from its lower to its upper neighbour.
    """
    try:
        found = [[_outer_condition(each, schema) for each in group] for group in groups]
    except (InputError, KeyError):
        return None
    kept = [[each for each in group if each is not None] for group in found]
    return _any([_all(group) for group in kept]) if kept and all(kept) else None


def _any(expressions: Sequence[pc.Expression]) -> pc.Expression:
    return reduce(operator.or_, expressions)


def _all(expressions: Sequence[pc.Expression]) -> pc.Expression:
    return reduce(operator.and_, expressions)


def _condition(condition: Condition, schema: pa.Schema) -> pc.Expression:
    column, name, literal = condition
    field, kind = _comparable(pc.field(column), schema.field(column).type)
    if name in ("in", "not in"):
        places = [_place(column, name, each, schema) for each in literal]
        values = [found.floor for found in places if found.exact and found.floor is not None]
        kept = field.isin(_value_set(values, kind))
        return ~kept if name == "not in" else kept
    found = _place(column, name, literal, schema)
    # Nothing but nulls has this type, and a null meets none of these conditions.
    return pc.scalar(False) if pa.types.is_null(kind) else _compare(field, name, found)


def _compare(field: pc.Expression, name: str, found: Place) -> pc.Expression:
    """Compares by the largest value that is not above the literal."""
    name = "==" if name == "=" else name
    if name in _EITHER_SIDE:
        missing = field.is_valid() if name == "!=" else pc.scalar(False)
        return _EITHER_SIDE[name](field, found.floor) if found.exact else missing
    if found.floor is None:
        return pc.scalar(False) if name in _BELOW else field.is_valid()
    if name in _BELOW:
        return _BELOW[name if found.exact else "<="](field, found.floor)
    return field >= found.floor if name == ">=" and found.exact else field > found.floor


def _outer_condition(condition: Condition, schema: pa.Schema) -> pc.Expression | None:
    column, name, literal = condition
    kind = schema.field(column).type
    if pa.types.is_floating(kind):
        return _outer_float(condition, kind, schema)
    # A cast hides from Arrow what statistics are of.
    plain = _comparable(pc.field(column), kind)[1] == kind
    return _condition((column, name, literal), schema) if plain else None


def _outer_float(
    condition: Condition, kind: pa.DataType, schema: pa.Schema
) -> pc.Expression | None:
    column, name, literal = condition
    if pa.types.is_float16(kind):
        return None
    field, literals = pc.field(column), literal if name == "in" else [literal]
    places = [_place(column, name, each, schema) for each in literals]
    near = [_neighbours(each.floor) for each in places if each.floor is not None]
    if name in ("in", "==", "="):
        return _any([(field >= low) & (field <= high) for low, high in near])
    low, high = near[0]
    return field <= high if name in _BELOW else field >= low


def _neighbours(value: pa.Scalar) -> tuple[pa.Scalar, pa.Scalar]:
    below = pa.scalar(-next_above(pa.scalar(-value.as_py(), value.type)).as_py(), value.type)
    return below, next_above(value)


def _comparable(field: pc.Expression, kind: pa.DataType) -> tuple[pc.Expression, pa.DataType]:
    """Returns a column as Arrow can compare it, and its type then."""
    if isinstance(kind, pa.BaseExtensionType):
        return _comparable(field.cast(kind.storage_type), kind.storage_type)
    # There is no comparison of half floats.
    return (field.cast(pa.float32()), pa.float32()) if pa.types.is_float16(kind) else (field, kind)


def _place(column: str, name: str, literal: Any, schema: pa.Schema) -> Place:
    kind = _comparable(pc.field(column), schema.field(column).type)[1]
    if pa.types.is_null(kind):
        return Place(None, exact=False)
    try:
        return place(literal, kind)
    except ValueError as error:
        found = shown(str(literal) if hasattr(literal, "isoformat") else literal, (column,))
        raise InputError(
            f"input.filters: column {column!r} is {schema.field(column).type}, which {name!r} "
            f"cannot compare with {found} ({called(literal)}); {error}"
        ) from error


def called(literal: Any) -> str:
    """Returns what a literal is, for people."""
    names = {"bool": "a boolean", "int": "an integer", "float": "a number", "str": "a text"}
    dated = "a date-time" if hasattr(literal, "hour") else "a date"
    return names.get(type(literal).__name__, dated)


def _value_set(values: Sequence[pa.Scalar], kind: pa.DataType) -> pa.Array:
    # Scalars of dates and times would pass through Python's, which go no further than year 9999.
    return pa.concat_arrays([pa.nulls(0, kind), *(pa.repeat(value, 1) for value in values)])
