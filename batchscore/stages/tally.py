"""The checks of columns, and what they count of a batch: nulls, unknown values, the newest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    escaped_texts,
    python_rows,
    stored_unit,
    to_numpy,
)
from batchscore.errors import InputError, StepError
from batchscore.job import ColumnCheck
from batchscore.job.parameters import shown
from batchscore.messages.values import bounded
from batchscore.messages.wording import nearest, one_line
from batchscore.stages.block import locate_rows
from batchscore.stages.filters import called
from batchscore.stages.literals import is_comparable, place
from batchscore.units.tallies import EXAMPLES, Example, Tally, merge_tallies
from batchscore.units.unit import Unit

_SHOWN = 60
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY = 86_400 * 10**9
Locate = Callable[[Array], list[tuple[str, int]]]
"""Returns shard and row of rows given by their numbers within a unit."""


def check_type(check: ColumnCheck, kind: pa.DataType) -> None:
    """Raises InputError where a column of this type cannot be checked so."""
    plain = _plain_type(kind)
    if check.kind == "accepted":
        _accepted(check, plain)
    types = pa.types
    dated = types.is_date(plain) or types.is_timestamp(plain) or types.is_null(plain)
    if check.kind == "fresh" and not dated:
        raise InputError(
            f"checks.fresh: column {check.column!r} is {kind}; expected dates or timestamps: name "
            "another column, or write this one as a timestamp"
        )


class Tallies:
    """What checks of columns count of a unit's rows, which come in order.

    Args:
        checks: What is counted.
        unit: Whose rows they are.
        locate: Finds the places of rows by the numbers that they come with; by default numbers
            within the unit.
    """

    def __init__(
        self, checks: Sequence[ColumnCheck], unit: Unit, locate: Locate | None = None
    ) -> None:
        self._checks = checks
        self._found = {check.key: Tally() for check in checks}
        self._locate = locate or partial(located, unit)

    @property
    def found(self) -> dict[str, Tally]:
        """The tallies so far, by the checks' keys."""
        return self._found

    def add(
        self,
        batches: Sequence[pa.RecordBatch],
        rows_b: pa.Array,
        made: pa.RecordBatch | None = None,
    ) -> None:
        """Counts rows.

        Args:
            batches: The rows' columns; where two have a name, the first counts.
            rows_b: Numbers of the rows (b,), ascending, and above those before.
            made: Columns that the job's function made, if it made columns for the model.

        Raises:
            StepError: A column is not there, or of a type that cannot be checked.
        """
        for check in self._checks:
            if check.is_made and (made is None or check.column not in made.schema.names):
                continue
            given = [made] if check.is_made and made is not None else batches
            column, found = _column(check, given), self._found[check.key]
            wanted = EXAMPLES - len(found.examples)
            counted = tally(check, column, to_numpy(rows_b), self._locate, wanted)
            self._found[check.key] = merge_tallies([found, counted])


def located(unit: Unit, rows_n: Array) -> list[tuple[str, int]]:
    """Returns shard and row number of a unit's rows (n,)."""
    shards, rows = locate_rows(unit, rows_n)
    return list(zip(shards.to_pylist(), rows.to_pylist(), strict=True))


def _column(check: ColumnCheck, batches: Sequence[pa.RecordBatch]) -> pa.Array:
    for batch in batches:
        if check.column in batch.schema.names:
            return batch.column(check.column)
    known = [name for batch in batches for name in batch.schema.names]
    raise StepError(
        f"checks.{check.kind}: there is no column {check.column!r} among what is read and the "
        f"scores; {nearest(check.column, known)}"
    )


def tally(
    check: ColumnCheck, column: pa.Array, rows_n: Array, locate: Locate, examples: int = EXAMPLES
) -> Tally:
    """Counts one check of one column.

    Args:
        check: What is counted.
        column: The values (n,).
        rows_n: Numbers of the rows (n,), ascending, as `locate` takes them.
        locate: Finds the examples' places.
        examples: How many are wanted at most.

    Raises:
        StepError: The column's type cannot be checked so.
    """
    try:
        check_type(check, column.type)
    except InputError as error:
        raise StepError(str(error)) from error
    values = _plain(column)
    if check.kind == "fresh":
        return Tally(len(column), newest=_newest(values))
    bad_n = failing_rows(check, values)
    if bad_n is None:
        return Tally(len(column))
    places_n = np.flatnonzero(bad_n)
    found = _examples(column, places_n[:examples], rows_n, locate)
    return Tally(len(column), len(places_n), found)


def failing_rows(check: ColumnCheck, column: pa.Array) -> Array | None:
    """Returns which values (n,) do not pass `not_null` or `accepted`; None where all do."""
    values = _plain(column)
    return _null(values) if check.kind == "not_null" else _unknown(check, values)


def value_texts(column: pa.Array) -> pa.Array:
    """Returns values (n,) as texts for people; dates and texts at once, others one by one."""
    plain = _plain(column)
    if pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type):
        return bounded(escaped_texts(plain))
    return pa.array([_text(column, index) for index in range(len(column))], pa.string())


def _examples(
    column: pa.Array, places_n: Array, rows_n: Array, locate: Locate
) -> tuple[Example, ...]:
    if not len(places_n):
        return ()
    where = zip(locate(rows_n[places_n]), places_n.tolist(), strict=True)
    return tuple(Example(shard, row, _text(column, index)) for (shard, row), index in where)


def _null(values: pa.Array) -> Array | None:
    """Returns which values (n,) are null; None where none is."""
    return to_numpy(values.is_null()) if values.null_count else None


def _unknown(check: ColumnCheck, values: pa.Array) -> Array | None:
    """Returns which values (n,) are neither null nor accepted; None where none is."""
    known = pc.is_in(values, value_set=_accepted(check, values.type))
    bad = pc.and_(pc.invert(known), values.is_valid())
    return to_numpy(bad) if pc.any(bad).as_py() else None


def _newest(values: pa.Array) -> int | None:
    """Returns the largest instant in nanoseconds since 1970; a time without a zone is in UTC."""
    if values.null_count == len(values):
        return None
    days = pa.types.is_date32(values.type)
    largest = pc.max(values.view(pa.int32() if days else pa.int64())).as_py()
    return int(largest) * (_DAY if days else _NANOSECONDS[stored_unit(values.type)])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type that values of a type are looked at in."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return _AS.get(kind, kind)


# Types that Arrow's kernels do not know, and those that hold their values.
_AS: Mapping[pa.DataType, pa.DataType] = {
    pa.float16(): pa.float32(),
    pa.string_view(): pa.large_string(),
    pa.binary_view(): pa.large_binary(),
}


def _plain(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return _plain(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return _plain(column.dictionary_decode())
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _accepted(check: ColumnCheck, kind: pa.DataType) -> pa.Array:
    # True equals 1 for Python; the key tells them apart.
    return _value_set(check.key, check, kind)


@lru_cache(maxsize=64)
def _value_set(_key: str, check: ColumnCheck, kind: pa.DataType) -> pa.Array:
    """Returns the accepted values in a column's type; InputError where one does not fit it."""
    if pa.types.is_null(kind):
        return pa.nulls(0)
    if not is_comparable(kind):
        raise InputError(
            f"checks.accepted: column {check.column!r} is {kind}, whose values cannot be listed; "
            "name a column of numbers, texts, booleans, dates or times"
        )
    values = [scalar for each in check.values if (scalar := _scalar(check, each, kind))]
    # Arrow's set tells the zeros of floats apart.
    values += [pa.scalar(-0.0, kind) for each in values if _is_zero(each)]
    return pa.array(values, kind)


def _scalar(check: ColumnCheck, literal: Any, kind: pa.DataType) -> pa.Scalar | None:
    """Returns a value in a column's type; None for a category that this type does not have."""
    try:
        return _value(check.column, literal, kind)
    except InputError:
        if check.kind == "unseen":
            return None
        raise


def _is_zero(value: pa.Scalar) -> bool:
    return bool(pa.types.is_floating(value.type)) and value.as_py() == 0


def _value(column: str, literal: Any, kind: pa.DataType) -> pa.Scalar:
    try:
        where = place(literal, kind)
    except ValueError as error:
        head = _no_value(column, literal, kind)
        raise InputError(f"{head} ({called(literal)}); {error}") from error
    if not where.exact or where.floor is None:
        head = _no_value(column, literal, kind)
        raise InputError(f"{head}; correct it, or take it out")
    return where.floor


def _no_value(column: str, literal: Any, kind: pa.DataType) -> str:
    found = shown(str(literal) if hasattr(literal, "isoformat") else literal, (column,))
    return f"checks.accepted: column {column!r} is {kind}, which has no value {found}"


def _text(column: pa.Array, index: int) -> str:
    """Returns one value as a text for people."""
    own = column.slice(index, 1)
    one = _plain(own)
    if one.null_count:
        return "null"
    if isinstance(own.type, pa.UuidType):
        return str(own[0].as_py())
    try:
        return one_line(one.cast(pa.string())[0].as_py(), _SHOWN)
    except (pa.ArrowException, UnicodeDecodeError):
        rows = python_rows(pa.RecordBatch.from_arrays([one], names=["value"]))
        return one_line(rows[0]["value"], _SHOWN)
