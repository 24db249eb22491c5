"""The shards' schemas made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from batchscore.errors import InputError
from batchscore.messages.terms import JOB, Terms
from batchscore.messages.wording import counted, nearest, of_count
from batchscore.plan.chunks import is_all_null, named_by
from batchscore.plan.footers import Footer


def unify_schemas(
    footers: Sequence[Footer], wanted: Iterable[str] | None, terms: Terms = JOB
) -> pa.Schema:
    """Returns one type for each wanted column that holds every shard's values.

    Shards may differ in column order, in plain and dictionary strings, and in the width of
    integers, floats, strings and timestamps. A column that is all null has any type: one of type
    null, and a flat one of another type where the shard's statistics say so.

    Args:
        wanted: Column names; None: all of the first shard's.
        terms: The user's names, for messages.

    Raises:
        InputError: A shard lacks a column, or has another type of it.
    """
    names = list(dict.fromkeys(footers[0].schema.names if wanted is None else wanted))
    distinct = _first_of_each_schema(footers)
    kinds = {n: _common_type(footers, distinct, n, wanted is None, terms) for n in names}
    if wanted is None:
        _no_extra_columns(distinct, names, terms)
    return pa.schema([pa.field(name, kind) for name, kind in kinds.items()])


def check_plain(footers: Sequence[Footer], names: Sequence[str]) -> None:
    """Raises InputError where a column that is to be read is encrypted in a shard."""
    for footer in footers:
        found = named_by(footer.encrypted, names) if footer.encrypted else []
        if found:
            raise InputError(
                f"shard {footer.shard.path}: column {found[0]!r} is encrypted, which cannot be "
                "read here; write the shard without encryption, or leave the column out"
            )


def _common_type(
    footers: Sequence[Footer],
    distinct: Sequence[Footer],
    name: str,
    all_columns: bool,
    terms: Terms,
) -> pa.DataType:
    found = [(each, _column_type(footers, each, name, all_columns, terms)) for each in distinct]
    kind, conflict = _fold(found)
    if conflict is None:
        return kind
    # Statistics are looked at where types differ alone, since that opens the shards again.
    nulls = {each for each in {kind for _, kind in found} if _is_null_in_all(footers, name, each)}
    known, conflict = _fold([(f, pa.null() if k in nulls else k) for f, k in found])
    if conflict is not None:
        return _conflict(conflict, name, known, terms)
    return found[0][1] if pa.types.is_null(known) else known


def _fold(found: Iterable[tuple[Footer, pa.DataType]]) -> tuple[pa.DataType, Footer | None]:
    """Returns what holds the types of all shards; or of those before the one that misfits."""
    kind = pa.null()
    for footer, own in found:
        wider = own if own == kind else _widest(kind, own)
        if wider is None:
            return kind, footer
        kind = wider
    return kind, None


def _is_null_in_all(footers: Sequence[Footer], name: str, kind: pa.DataType) -> bool:
    """Tells whether all shards that have this type of a column have nothing but nulls in it."""
    alike = [footer for footer in footers if footer.schema.field(name).type == kind]
    return all(is_all_null(footer.address or footer.shard.path, name) for footer in alike)


def _first_of_each_schema(footers: Sequence[Footer]) -> list[Footer]:
    first: dict[int, Footer] = {}
    for footer in footers:
        first.setdefault(id(footer.schema), footer)
    return list(first.values())


def lacking(footers: Sequence[Footer], name: str) -> str:
    """Returns which shards lack a column that is not in all of them: the first, and how many."""
    lack = [footer.shard.path for footer in footers if name not in footer.schema.names]
    if len(footers) == 1:
        return f"shard {lack[0]}"
    return f"{len(lack):,} of {len(footers):,} shards; the first of them is {lack[0]}"


def _column_type(
    footers: Sequence[Footer], footer: Footer, name: str, all_columns: bool, terms: Terms
) -> pa.DataType:
    index = footer.schema.get_field_index(name)
    if index >= 0:
        return footer.schema.field(index).type
    others = sum(name not in each.schema.names for each in footers) - 1
    them = of_count(others + 1, "it", "them")
    also = f"; {counted(others, 'more shard')} {of_count(others, 'lacks', 'lack')} it too"
    remedy = f", or, where the column is not needed, name those to keep in {terms.columns}"
    raise InputError(
        f"shard {footer.shard.path}: has no column {name!r}, unlike the shards before "
        f"it{also if others else ''}; {nearest(name, footer.schema.names)}; write {them} again or "
        f"take {them} out of {terms.data}{remedy if all_columns else ''}"
    )


def _no_extra_columns(footers: Sequence[Footer], names: Sequence[str], terms: Terms) -> None:
    for footer in footers:
        extra = [name for name in footer.schema.names if name not in names]
        if extra:
            raise InputError(
                f"shard {footer.shard.path}: has a column {extra[0]!r} that "
                f"{footers[0].shard.path} lacks; name the columns to keep in {terms.columns}"
            )


def _conflict(footer: Footer, name: str, expected: pa.DataType, terms: Terms) -> pa.DataType:
    found = footer.schema.field(name).type
    raise InputError(
        f"shard {footer.shard.path}: column {name!r} is {found}, expected {expected} as in the "
        "shards before it; write it again with that type, or leave the shard out of "
        f"{terms.data}"
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
