"""The values that a category may have, and a column's places among them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray

from batchscore.columnar.arrays import binary_array, to_arrow
from batchscore.models.column_values import filled_with, plain_values

ABSENT = -1
"""Place of null, and of a value that is not among those known."""


def _distinct(vocabulary: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if not vocabulary or len(set(vocabulary)) != len(vocabulary):
        raise ValueError("needs at least one value, and each only once")
    whole = [value for value in vocabulary if isinstance(value, int)]
    if whole and not (_fits(whole, -(2**63), 2**63) or _fits(whole, 0, 2**64)):
        raise ValueError("holds integers that fit neither int64 nor uint64")
    return vocabulary


Vocabulary = Annotated[
    tuple[pydantic.StrictStr, ...] | tuple[pydantic.StrictInt, ...],
    pydantic.AfterValidator(_distinct),
]
"""Distinct texts, or distinct integers, in an order that counts."""


class HasVocabulary:
    """What a feature with a vocabulary does with it."""

    if TYPE_CHECKING:  # pydantic would take it for the first field
        vocabulary: Vocabulary

    @property
    def is_text(self) -> bool:
        """Whether it holds texts, and not integers."""
        return isinstance(self.vocabulary[0], str)

    @functools.cached_property
    def value_set(self) -> Any:
        """The vocabulary as an Arrow array (string, int64 or uint64), built once."""
        if isinstance(self.vocabulary[0], int):
            small = max(map(int, self.vocabulary)) < 2**63
            return to_arrow(np.array(self.vocabulary, np.int64 if small else np.uint64))
        texts = [str(value).encode() for value in self.vocabulary]
        return binary_array(texts, pa.large_string()).cast(pa.string())

    def places(self, column: pa.Array) -> NDArray[np.int64]:
        """Returns each row's place (b,) in the vocabulary, or `ABSENT`."""
        column, values = plain_values(column), self.value_set
        if pa.types.is_null(column.type):
            column = column.cast(values.type)
        elif pa.types.is_integer(values.type):
            column = column if pa.types.is_uint64(column.type) else column.cast(pa.int64())
            if column.type != values.type:
                # Decimals hold both ranges; a cast to int64 would make large values negative ones.
                column = column.cast(pa.decimal128(20, 0))
                values = values.cast(pa.decimal128(20, 0))
        known = pc.index_in(column, value_set=values.cast(column.type))
        return filled_with(known, ABSENT).astype(np.int64)


def _fits(values: Sequence[int], low: int, high: int) -> bool:
    return all(low <= value < high for value in values)
