"""A feature that is a text as it is, for models that take texts themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

from batchscore.columnar.text_columns import fill_missing, missing_texts, to_text_column
from batchscore.models.tree_features import Coded, Plain, find_nulls
from batchscore.models.validate import Frozen
from batchscore.models.vocabulary import Vocabulary


class Verbatim(Frozen):
    """A text as it is, or the digits of a whole number; the only feature of its input.

    A row without a text is rejected, unless `missing` is the text that training had in its place.
    `type` is that of the column in training, if it is known: no column of the other one is read.
    `vocabulary` has the categories of a sample of training. Others are counted, and score too.
    """

    kind: Literal["text"] = "text"
    column: str
    missing: str | None = None
    type: Literal["text", "integer"] | None = None
    vocabulary: Vocabulary | None = None

    @property
    def sampled(self) -> Vocabulary:
        """The categories that a sample has, with the text that stands for null; or none."""
        known = self.vocabulary or ()
        if not known or self.missing is None or isinstance(known[0], int) or self.missing in known:
            return known
        return (*(str(each) for each in known), self.missing)

    def encode(self, column: pa.Array) -> pa.DictionaryArray:
        """Returns the texts (b,) as a column of `to_text_column`."""
        texts = to_text_column(column)
        return texts if self.missing is None else fill_missing(texts, self.missing)


def find_gaps(features: Mapping[str, Any], batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """Returns a mask (b,) of the rows to reject since they lack a text or number, by column.

    Args:
        features: By model input, its features.
        batch: Rows with the columns that they read.
    """
    masks = {}
    for each in (each for found in features.values() for each in found):
        if isinstance(each, Verbatim) and each.missing is None:
            masks[each.column] = missing_texts(batch.column(each.column))
        elif isinstance(each, Plain | Coded) and each.nulls == "reject":
            masks[each.column] = find_nulls(batch.column(each.column))
    return {column: mask_b for column, mask_b in masks.items() if mask_b.any()}
