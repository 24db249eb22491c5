"""Why rows cannot become model inputs: the column, the value that was found, what was expected.

Suffixes: `_f` rows with one fault, `_c` rows with one cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.columnar.arrays import (
    Array,
    filled,
    is_list,
    spoiled_values,
    text_array,
    to_arrow,
    to_numpy,
)
from batchscore.columnar.ragged import Varying
from batchscore.columnar.texts import TEXT
from batchscore.messages.values import joined_texts, number_texts, plain_values, text_scalar
from batchscore.messages.wording import counted, one_line
from batchscore.stages.block import Cause


class Wanted(Protocol):
    """What a model input takes; see `preprocess.InputColumns`."""

    @property
    def dtype(self) -> str:
        """NumPy's name of its type, or `TEXT`."""

    @property
    def width(self) -> int:
        """Numbers in one row, or in one step."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is stacked from."""

    @property
    def varying(self) -> Varying | None:
        """Set where each row has a number of steps of its own."""

    @property
    def missing(self) -> str | None:
        """The text that takes the place of null."""


@dataclass(frozen=True)
class _Fault:
    """Rows of a column with one fault.

    Args:
        what: What is wrong with the column, for a message that all of them share.
        rows_f: Their ascending places (f,).
        found: What is there in place of what was expected, as texts (f,).
        expected: What was expected.
    """

    what: str
    rows_f: Array
    found: pa.Array
    expected: str


def input_causes(batch: pa.RecordBatch, inputs: Sequence[Wanted]) -> list[Cause]:
    """Returns the causes for which rows cannot become model inputs; a row has its first alone."""
    causes, known_b = list[Cause](), np.zeros(batch.num_rows, np.bool_)
    for wanted in inputs:
        for name in wanted.columns if wanted.missing is None else ():
            for fault in _faults(batch.column(name), wanted, wanted.varying is not None):
                new_f = ~known_b[fault.rows_f]
                known_b[fault.rows_f] = True
                if new_f.any():
                    causes.append(_cause(name, fault, new_f))
    return causes


def unseen_causes(batch: pa.RecordBatch, unseen: Mapping[str, Array]) -> list[Cause]:
    """Returns the causes for which rows with an unseen category are rejected; a row has one.

    Args:
        batch: The rows.
        unseen: By column, a mask (b,) of the rows whose value training never saw.
    """
    causes, known_b = list[Cause](), np.zeros(batch.num_rows, np.bool_)
    for name, found_b in unseen.items():
        rows_f = np.flatnonzero(found_b & ~known_b)
        known_b |= found_b
        if len(rows_f):
            values = plain_values(batch.column(name).take(to_arrow(rows_f)))
            fault = _Fault(
                "has a value that training lacks",
                rows_f,
                text_array([one_line(repr(value)) for value in values]),
                "a category of training",
            )
            causes.append(_cause(name, fault, np.ones(len(rows_f), np.bool_)))
    return causes


def textless_causes(batch: pa.RecordBatch, textless: Mapping[str, Array]) -> list[Cause]:
    """Returns the causes for which rows without a text, or without a number, are rejected.

    A row has one.

    Args:
        batch: The rows.
        textless: By column, a mask (b,) of the rows.
    """
    causes, known_b = list[Cause](), np.zeros(batch.num_rows, np.bool_)
    for name, found_b in textless.items():
        rows_f = np.flatnonzero(found_b & ~known_b)
        known_b |= found_b
        if len(rows_f):
            causes.append(
                _cause(name, _null_fault(rows_f, "a value"), np.ones(len(rows_f), np.bool_))
            )
    return causes


def _null_fault(null_f: Array, expected: str) -> _Fault:
    return _Fault("is null", null_f, pa.repeat(text_scalar("null"), len(null_f)), expected)


def _cause(name: str, fault: _Fault, new_f: Array) -> Cause:
    found = fault.found.filter(to_arrow(new_f))
    details = joined_texts([f"column {name!r}: ", found, f", expected {fault.expected}"])
    return Cause(f"column {name!r} {fault.what}", fault.rows_f[new_f], details)


def _faults(column: pa.Array, wanted: Wanted, is_sequence: bool = False) -> Iterator[_Fault]:
    lists = is_list(column.type)
    if column.null_count:
        kind = "a text" if wanted.dtype == TEXT else f"a number ({wanted.dtype})"
        expected = "a list of numbers" if lists else kind
        yield _null_fault(np.flatnonzero(to_numpy(column.is_null())), expected)
    if lists:
        if not is_sequence:
            yield from _lengths(column, wanted)
        yield from _items(column, wanted)
    elif wanted.dtype == TEXT:
        return
    elif pa.types.is_integer(column.type) and np.dtype(wanted.dtype).kind in "iu":
        yield from _range(column, wanted)


def _lengths(column: pa.Array, wanted: Wanted) -> Iterator[_Fault]:
    lengths = pc.list_value_length(column)
    bad_f = np.flatnonzero(filled(lengths, wanted.width) != wanted.width)
    if len(bad_f):
        found = joined_texts(["a list of ", number_texts(lengths.take(to_arrow(bad_f)))])
        expected = f"a list of {counted(wanted.width, 'number')}"
        yield _Fault("is a list of another length", bad_f, found, expected)


def _items(column: pa.Array, wanted: Wanted) -> Iterator[_Fault]:
    """Yields the faults of a column's items, of each row the first."""
    lengths_b = filled(pc.list_value_length(column), 0).astype(np.int64)
    row_n = np.repeat(np.arange(len(column)), lengths_b)
    place_n = np.arange(len(row_n)) - np.repeat(lengths_b.cumsum() - lengths_b, lengths_b)
    for fault in _faults(pc.list_flatten(column), wanted):
        rows_f, first_f = np.unique(row_n[fault.rows_f], return_index=True)
        places = number_texts(to_arrow(place_n[fault.rows_f[first_f]]))
        found = joined_texts([fault.found.take(to_arrow(first_f)), " at place ", places])
        what = f"has an item that {fault.what}" if fault.what.startswith("is") else fault.what
        yield replace(fault, what=what, rows_f=rows_f, found=found)


def _range(column: pa.Array, wanted: Wanted) -> Iterator[_Fault]:
    values_b, limits = filled(column, 0), np.iinfo(wanted.dtype)
    bad_f = np.flatnonzero((values_b < limits.min) | (values_b > limits.max))
    if len(bad_f):
        expected = f"an integer from {limits.min:,} to {limits.max:,} ({wanted.dtype})"
        found = number_texts(column.take(to_arrow(bad_f)))
        yield _Fault(f"is out of the range of {wanted.dtype}", bad_f, found, expected)


def uneven_cause(lengths_b: dict[str, Array]) -> Cause:
    """Returns the cause of rows whose inputs, by name, are not of equally many steps (b,)."""
    steps = list(lengths_b.values())
    rows_c = np.flatnonzero(np.any([each_b != steps[0] for each_b in steps], axis=0))
    parts = [
        part
        for name, each_b in lengths_b.items()
        for part in (f", {name} has ", number_texts(to_arrow(each_b[rows_c])))
    ]
    details = joined_texts([parts[0][2:], *parts[1:], " steps, expected as many of each"])
    message = f"the model inputs {' and '.join(lengths_b)} are not equally long in this row"
    return Cause(message, rows_c, details)


def long_cause(column: str, long_b: Array, length_b: Array, limit: int) -> Cause:
    """Returns the cause of the rows (b,) that have more steps (b,) than the model takes."""
    rows_c, most = np.flatnonzero(long_b), counted(limit, "step")
    steps = number_texts(to_arrow(length_b[rows_c]))
    details = joined_texts([f"column {column!r}: ", steps, f" steps, expected {most} at most"])
    message = (
        f"the row is longer than {most}, the model's max_length; its truncate: true would cut such "
        "rows off"
    )
    return Cause(message, rows_c, details)


def given_texts(inputs: pa.RecordBatch, columns: Mapping[str, Sequence[str]]) -> pa.Array:
    """Returns the first number of each row (b,) that is not finite; an empty text without one.

    Args:
        inputs: What the network was given.
        columns: Those that an input was stacked from, by its name, where they are known.
    """
    rows, texts = list[Array](), list[pa.Array]()
    for name, column in zip(inputs.schema.names, inputs.columns, strict=True):
        row_n, place_n, found = spoiled_values(column)
        where = _origin(name, column, place_n, columns.get(name, ()))
        rows.append(row_n)
        texts.append(joined_texts(["; the model was given ", found, where]))
    row_n, first_n = np.unique(np.concatenate(rows), return_index=True)
    all_texts = pa.concat_arrays([*texts, text_array([""])])
    index_b = np.full(inputs.num_rows, len(all_texts) - 1)
    index_b[row_n] = first_n
    return all_texts.take(to_arrow(index_b))


def _origin(name: str, column: pa.Array, place_n: Array, columns: Sequence[str]) -> pa.Array:
    """Returns which column, or place of a list, the numbers at some places (n,) come from."""
    if len(columns) > 1:
        names = text_array([f" for column {each!r}" for each in columns])
        return names.take(to_arrow(place_n))
    what = f"column {columns[0]!r}" if columns else f"input {name!r}"
    if not is_list(column.type):
        return pa.repeat(text_scalar(f" for {what}"), len(place_n))
    return joined_texts([" at place ", number_texts(to_arrow(place_n)), f" of {what}"])
