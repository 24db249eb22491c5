"""Features as trees take them: numbers as they are, categories as codes, gaps as NaN.

Suffixes: `_k` values of a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.arrays import raw_values, to_numpy
from batchscore.models.column_values import nearest_floats, plain_values
from batchscore.models.validate import Frozen
from batchscore.models.vocabulary import ABSENT, HasVocabulary, Vocabulary

Float = Literal["float32", "float64"]
Unseen = Literal["null", "own", "reject"]


class Plain(Frozen):
    """A number as it is: one float, NaN for null and NaN.

    `missing` is a number that stands for a gap too, as `missing=` of a framework says. Infinities
    stay what they are: larger, or smaller, than each number. Rows with a gap are rejected if the
    model takes none here.
    """

    kind: Literal["plain"] = "plain"
    column: str
    type: Float = "float32"
    missing: float | None = None
    nulls: Literal["keep", "reject"] = "keep"

    def encode(self, column: pa.Array) -> NDArray[Any]:
        """Returns the numbers (b,), which may be the column's own memory."""
        column = plain_values(column)
        if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
            column = nearest_floats(column)
        has_gaps = bool(column.null_count) or self.missing is not None
        with np.errstate(over="ignore"):
            # From the column's own type in one step, since a second rounding may change a bit.
            value_b = np.asarray(raw_values(column)).astype(self.type, copy=has_gaps)
        if column.null_count:
            value_b[to_numpy(column.is_null())] = np.nan
        if self.missing is not None:
            value_b[value_b == np.dtype(self.type).type(self.missing)] = np.nan
        return value_b


class Coded(Frozen, HasVocabulary):
    """A category: one float, its place in the vocabulary from 0, NaN for null.

    A value that is not in the vocabulary counts as null, or has the place behind the last one as
    its own, or the row is rejected.
    """

    kind: Literal["coded"] = "coded"
    column: str
    vocabulary: Vocabulary
    type: Float = "float32"
    unseen: Unseen = "null"
    nulls: Literal["keep", "reject"] = "keep"

    def encode(self, column: pa.Array) -> NDArray[Any]:
        """Returns the codes (b,)."""
        place_b = self._places(column)
        code_b = place_b.astype(self.type)
        code_b[place_b == ABSENT] = np.nan
        if self.unseen == "own":
            code_b[self.find_unseen(column)] = len(self.vocabulary)
        return code_b

    def find_unseen(self, column: pa.Array) -> NDArray[np.bool_]:
        """Returns a mask (b,) of the rows whose value is not null and not in the vocabulary."""
        unseen_b = self._places(column) == ABSENT
        if column.null_count or pa.types.is_dictionary(column.type):
            unseen_b &= to_numpy(plain_values(column).is_valid())
        return np.asarray(unseen_b)

    def _places(self, column: pa.Array) -> NDArray[np.int64]:
        if not isinstance(column, pa.DictionaryArray) or len(column.dictionary) > len(column):
            return self.places(column)
        # Each value of the dictionary is looked up once; the last place is for null.
        place_k = np.append(self.places(column.dictionary), ABSENT)
        index_b = np.asarray(raw_values(column.indices)).astype(np.int64)
        if column.null_count:
            index_b[to_numpy(column.indices.is_null())] = -1
        return np.asarray(place_k[index_b])


def find_rejected(features: Mapping[str, Any], batch: pa.RecordBatch) -> dict[str, Any]:
    """Returns a mask (b,) of the rows to reject for an unseen category, by column.

    Args:
        features: By model input, its features.
        batch: Rows with the columns that they read.
    """
    coded = [each for members in features.values() for each in members if isinstance(each, Coded)]
    strict = [each for each in coded if each.unseen == "reject"]
    return {each.column: each.find_unseen(batch.column(each.column)) for each in strict}


def find_nulls(column: pa.Array) -> NDArray[np.bool_]:
    """Returns a mask (b,) of the rows with a null or NaN."""
    plain = plain_values(column)
    is_gap_b = to_numpy(plain.is_null())
    if pa.types.is_floating(plain.type):
        is_gap_b = is_gap_b | np.isnan(raw_values(plain))
    return np.asarray(is_gap_b)
