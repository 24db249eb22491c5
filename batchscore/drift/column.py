"""The profile of one column: its rows, its nulls, and the aspects that its kind is seen by.

Suffixes: `_bd` rows by elements of a vector, `_d` distinct values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchscore.columnar.arrays import is_ascii, is_list, to_arrow, to_numpy
from batchscore.drift.accumulator import Accumulator, Part
from batchscore.drift.categories import Categories
from batchscore.drift.derived import entropies, finite_matrix, margins, norms
from batchscore.drift.numbers import Numbers, is_time, key_space, number_values
from batchscore.drift.ordering import FLOAT, PROBABILITY, SIGNED
from batchscore.drift.vectors import MAX_WIDTH, NARROW, Vectors

Kind = Literal[
    "number", "probability", "time", "category", "vector", "classes", "labels", "list", "other"
]
Hint = Literal["probability", "classes"]
"""What a type does not tell: that scores go from 0 to 1, or are of classes that add up to 1."""

MOST_CLASSES = 100
_MANY = 1_024  # texts; of fewer, to look for other characters than ASCII costs more than it saves
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_WIDE = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
_ACCUMULATORS: dict[str, Any] = {each.kind: each for each in (Numbers, Categories, Vectors)}


@dataclass
class ColumnProfile:
    """What is known of one column; `update` and `merge` change it.

    Args:
        type: The Arrow type's name; of dictionaries, runs and extensions that of the values.
        kind: Kind by which its aspects were chosen.
        aspects: What is accumulated, by name; none for types without statistics.
        count: Rows, nulls among them.
        nulls: Rows without a value.
        spoiled: Vectors that were left out, since they hold a null or a number that is not finite.
    """

    type: str
    kind: Kind
    aspects: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    nulls: int = 0
    spoiled: int = 0

    def update(self, array: pa.Array) -> None:
        """Adds the values of `array`, which has this column's type."""
        array = _plain(array)
        self.count += len(array)
        self.nulls += array.null_count
        if self.aspects:
            _UPDATES[self.kind](self, array)

    def merge(self, other: ColumnProfile) -> None:
        """Adds what `other`, a profile of the same type and kind, has seen."""
        self.count += other.count
        self.nulls += other.nulls
        self.spoiled += other.spoiled
        for name, aspect in other.aspects.items():
            self.aspects[name].merge(aspect)

    def summary(self) -> dict[str, Any]:
        """Returns JSON-able statistics: the counts, those of `value`, and of each other aspect."""
        head: dict[str, Any] = {"type": self.type, "kind": self.kind}
        head |= {"count": self.count, "nulls": self.nulls}
        head |= {"spoiled": self.spoiled} if self.spoiled else {}
        aspects = {name: aspect.summary() for name, aspect in sorted(self.aspects.items())}
        return {**head, **aspects.pop("value", {}), **({"aspects": aspects} if aspects else {})}


def new_column(type_: pa.DataType, hint: Hint | None = None) -> ColumnProfile:
    """Returns the profile of no rows of a column; a hint that does not fit the type is ignored."""
    type_ = _plain_type(type_)
    kind = _kind(type_, hint)
    return ColumnProfile(str(type_), kind, _aspects(type_, kind))


def restore_aspect(
    kind: str, type_: str, scalars: Mapping[str, Any], parts: Mapping[str, Part]
) -> Accumulator:
    """Returns a stored accumulator; ValueError where it is damaged."""
    if kind not in _ACCUMULATORS:
        raise ValueError(f"there is no accumulator {kind!r}")
    accumulator: Accumulator = _ACCUMULATORS[kind].restore(type_, scalars, parts)
    return accumulator


def type_name(type_: pa.DataType) -> str:
    """Returns an Arrow type's name; of dictionaries, runs and extensions that of the values."""
    return str(_plain_type(type_))


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if isinstance(type_, pa.BaseExtensionType):
        return _plain_type(type_.storage_type)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return _plain_type(type_.value_type)
    # Writers name a list's items `item`, `element` or `array`, which is no difference.
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(type_.value_type, type_.list_size)
    if pa.types.is_list(type_):
        return pa.list_(type_.value_type)
    return pa.large_list(type_.value_type) if pa.types.is_large_list(type_) else type_


def _plain(array: pa.Array) -> pa.Array:
    """Returns an array without extensions, runs, views, and dictionaries but those of categories.

    Arrow can neither filter nor take views.
    """
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if isinstance(array, pa.RunEndEncodedArray):
        return _plain(_by_run(array))
    if isinstance(array, pa.DictionaryArray):
        return _plain_dictionary(array)
    wide = _WIDE.get(str(array.type))
    return array if wide is None else array.cast(wide)


def _plain_dictionary(array: pa.DictionaryArray) -> pa.Array:
    values = _plain(array.dictionary)
    if values is not array.dictionary:
        array = pa.DictionaryArray.from_arrays(array.indices, values)
    # A dictionary may hold a null, which is one of every row that points to it.
    if values.null_count or not _is_category(values.type):
        return _plain(array.dictionary_decode())
    return array


def _by_run(array: pa.RunEndEncodedArray) -> pa.DictionaryArray:
    """Returns each row as an index into the values of the runs."""
    rows_n = np.arange(array.offset, array.offset + len(array))
    runs_n = np.searchsorted(to_numpy(array.run_ends), rows_n, side="right")
    return pa.DictionaryArray.from_arrays(to_arrow(runs_n), array.values)


def _kind(type_: pa.DataType, hint: Hint | None) -> Kind:
    space = key_space(str(type_))
    if space is not None:
        if hint == "probability" and space is FLOAT:
            return "probability"
        return "time" if is_time(str(type_)) else "number"
    if _is_category(type_):
        return "category"
    if pa.types.is_fixed_size_list(type_) and pa.types.is_floating(type_.value_type):
        if hint is None or not 0 < type_.list_size <= MOST_CLASSES:
            return "vector" if 0 < type_.list_size <= MAX_WIDTH else "other"
        return "classes" if hint == "classes" else "labels"
    return "list" if is_list(type_) else "other"


def _aspects(type_: pa.DataType, kind: Kind) -> dict[str, Any]:
    name = str(type_)
    if kind in ("number", "probability", "time"):
        space = PROBABILITY if kind == "probability" else key_space(name)
        assert space is not None
        return {"value": Numbers(name, space)}
    if kind == "category":
        length = {} if pa.types.is_boolean(type_) else {"length": Numbers("int64", SIGNED)}
        return {"value": Categories(name), **length}
    if kind in ("classes", "labels"):
        return _score_aspects(type_, kind)
    if kind == "vector":
        return _vector_aspects(type_)
    return _list_aspects(type_) if kind == "list" else {}


def _score_aspects(type_: pa.DataType, kind: Kind) -> dict[str, Any]:
    assert pa.types.is_fixed_size_list(type_)
    scores = {
        f"class {i}": Numbers(str(type_.value_type), PROBABILITY) for i in range(type_.list_size)
    }
    if kind == "labels":
        return scores
    figures = {name: Numbers("double", FLOAT) for name in ("entropy", "margin")}
    return {**scores, "argmax": Categories("int64"), **figures}


def _vector_aspects(type_: pa.DataType) -> dict[str, Any]:
    assert pa.types.is_fixed_size_list(type_)
    width, item = type_.list_size, str(type_.value_type)
    items = range(width if width <= NARROW else 0)
    elements = {f"element {i}": Numbers(item, FLOAT) for i in items}
    aspects = {"norm": Numbers("double", FLOAT), "vector": Vectors(str(type_), width)}
    return {**aspects, **elements}


def _list_aspects(type_: pa.DataType) -> dict[str, Any]:
    aspects: dict[str, Any] = {"length": Numbers("int64", SIGNED)}
    assert is_list(type_)
    items = new_column(type_.value_type)
    if "value" in items.aspects:
        aspects["items"] = items.aspects["value"]
    return aspects


def _update_numbers(column: ColumnProfile, array: pa.Array) -> None:
    column.aspects["value"].update(number_values(array))


def _update_category(column: ColumnProfile, array: pa.Array) -> None:
    length = column.aspects.get("length")
    for values, counts_n in column.aspects["value"].split(array):
        column.aspects["value"].update_counted(values, counts_n)
        if length is None:
            continue
        if counts_n is None:
            length.update(number_values(_lengths(values)))
        else:
            lengths_n = number_values(_lengths(values)).astype(np.int64, copy=False)
            length.update_counted(lengths_n, counts_n)


def _update_vector(column: ColumnProfile, array: pa.Array) -> None:
    array = _present(array)
    values_bd = finite_matrix(array)
    column.spoiled += len(array) - len(values_bd)
    column.aspects["norm"].update(norms(values_bd))
    column.aspects["vector"].update(values_bd)
    if "element 0" in column.aspects:
        _update_each(column, "element", values_bd)


def _update_scores(column: ColumnProfile, array: pa.Array) -> None:
    array = _present(array)
    scores_bd = finite_matrix(array)
    column.spoiled += len(array) - len(scores_bd)
    _update_each(column, "class", scores_bd)
    if column.kind == "classes":
        column.aspects["argmax"].update(to_arrow(np.argmax(scores_bd, axis=1)))
        column.aspects["entropy"].update(entropies(scores_bd))
        column.aspects["margin"].update(margins(scores_bd))


def _update_each(column: ColumnProfile, what: str, values_bd: NDArray[Any]) -> None:
    for i, values_b in enumerate(np.ascontiguousarray(values_bd.T)):
        column.aspects[f"{what} {i}"].update(values_b)


def _update_list(column: ColumnProfile, array: pa.Array) -> None:
    array = _present(array)
    lengths = pc.list_value_length(array).cast(pa.int64())
    column.aspects["length"].update(number_values(lengths))
    if "items" in column.aspects:
        items = _plain(pc.list_flatten(array)).drop_null()
        aspect = column.aspects["items"]
        aspect.update(items if isinstance(aspect, Categories) else number_values(items))


_UPDATES: dict[str, Callable[[ColumnProfile, pa.Array], None]] = {
    "number": _update_numbers,
    "probability": _update_numbers,
    "time": _update_numbers,
    "category": _update_category,
    "vector": _update_vector,
    "classes": _update_scores,
    "labels": _update_scores,
    "list": _update_list,
}


def _present(array: pa.Array) -> pa.Array:
    return array.drop_null() if array.null_count else array


def _lengths(array: pa.Array) -> pa.Array:
    """Returns characters of texts, bytes of binaries."""
    if "string" in str(array.type) and (len(array) < _MANY or not is_ascii(array)):
        return pc.utf8_length(array)
    return pc.binary_length(array)


def _is_category(type_: pa.DataType) -> bool:
    texts = str(type_) in _TEXTS or pa.types.is_fixed_size_binary(type_)
    return bool(texts or pa.types.is_boolean(type_))
