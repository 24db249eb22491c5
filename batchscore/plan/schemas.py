"""The shards' schemas made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.plan.inputs import Footer
from batchscore.plan.listing import Kinds
from batchscore.wording import nearest


def unify_schemas(footers: Sequence[Footer], wanted: Iterable[str] | None) -> pa.Schema:
    """Returns one type for each wanted column that holds every shard's values.

    Shards may differ in column order, in plain and dictionary strings, and in the width of
    integers, floats, strings and timestamps; a column that is all null has any type.

    Args:
        wanted: column names; None: all of the first shard's.

    Raises:
        InputError: a shard lacks a column, or has another type of it.
    """
    names = list(dict.fromkeys(footers[0].schema.names if wanted is None else wanted))
    kinds: Kinds = {}
    distinct = _first_of_each_schema(footers)
    for footer in distinct:
        for name in names:
            found = _column_type(footer, name, wanted is None)
            expected = kinds.setdefault(name, found)
            if expected == found:
                continue
            kinds[name] = _widest(expected, found) or _conflict(footer, name, expected, found)
    if wanted is None:
        _no_extra_columns(distinct, names)
    return pa.schema([pa.field(name, kinds[name]) for name in names])


def _first_of_each_schema(footers: Sequence[Footer]) -> list[Footer]:
    first: dict[int, Footer] = {}
    for footer in footers:
        first.setdefault(id(footer.schema), footer)
    return list(first.values())


def _column_type(footer: Footer, name: str, all_columns: bool) -> pa.DataType:
    index = footer.schema.get_field_index(name)
    if index >= 0:
        return footer.schema.field(index).type
    remedy = ", or, where it is not needed, name those to keep in output.columns"
    raise InputError(
        f"shard {footer.shard.path}: has no column {name!r} as the shards before it; "
        f"{nearest(name, footer.schema.names)}; write it again or take it out of input.path"
        f"{remedy if all_columns else ''}"
    )


def _no_extra_columns(footers: Sequence[Footer], names: Sequence[str]) -> None:
    for footer in footers:
        extra = [name for name in footer.schema.names if name not in names]
        if extra:
            raise InputError(
                f"shard {footer.shard.path}: has a column {extra[0]!r} that "
                f"{footers[0].shard.path} has not; name the columns to keep in output.columns"
            )


def _conflict(footer: Footer, name: str, expected: pa.DataType, found: pa.DataType) -> pa.DataType:
    raise InputError(
        f"shard {footer.shard.path}: column {name!r} is {found}, expected {expected} as in the "
        "shards before it; write it again with that type, or leave the shard out of input.path"
    )


def _widest(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Returns the type that holds both without loss, or None."""
    types = pa.types
    if types.is_null(first) or types.is_null(second):
        return second if types.is_null(first) else first
    for family in (types.is_signed_integer, types.is_unsigned_integer, types.is_floating):
        if family(first) and family(second):
            return max(first, second, key=lambda kind: kind.bit_width)
    for pair in ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())):
        if first in pair and second in pair:
            return pair[1]
    if types.is_timestamp(first) and types.is_timestamp(second) and first.tz == second.tz:
        units = ("s", "ms", "us", "ns")
        return pa.timestamp(units[max(units.index(first.unit), units.index(second.unit))], first.tz)
    return None
