"""Texts of rows as a model gets them: the distinct ones of a batch, and which one each row has.

A batch repeats few texts, so a backend hashes or decodes each one once. The process of a model
imports this module, and no Arrow.

Suffixes: `_k` distinct texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from batchscore.columnar.array_type import Array
from batchscore.columnar.ragged import Ragged, make_ragged

TEXT = "text"
"""The type of a model input that takes one text a row."""

MISSING_TEXT = -1
"""The place of a row without a text."""


@dataclass(frozen=True)
class Texts:
    """One text for each row, in any order and any number of times.

    Args:
        place_b: int32 (b,): each row's place among the distinct texts, or `MISSING_TEXT`.
        bytes_k: The distinct texts in UTF-8, as uint8 steps; some may belong to no row.
    """

    place_b: Array
    bytes_k: Ragged

    def __len__(self) -> int:
        return len(self.place_b)

    def __getitem__(self, places_n: Array) -> Texts:
        """Returns the rows at some places, in their order; they share the distinct texts."""
        return Texts(self.place_b[places_n], self.bytes_k)

    @cached_property
    def encoded_k(self) -> list[bytes]:
        """The distinct texts in UTF-8."""
        steps_n, ends = self.bytes_k.steps_n.tobytes(), self.bytes_k.offsets.tolist()
        return [steps_n[start:end] for start, end in pairwise(ends)]

    def spelled(self) -> Array:
        """Returns the text of each row (b,) as Python's, None where there is none.

        Raises:
            UnicodeDecodeError: A text is not valid UTF-8.
        """
        known_k = np.empty(len(self.encoded_k) + 1, object)
        known_k[:-1] = [each.decode() for each in self.encoded_k]
        known_k[MISSING_TEXT] = None
        return np.asarray(known_k[self.place_b])


def make_texts(values: Sequence[bytes | None]) -> Texts:
    """Returns the texts of rows, in UTF-8, None where a row has none."""
    known = [value for value in dict.fromkeys(values) if value is not None]
    distinct = {value: place for place, value in enumerate(known)}
    place_b = np.array(
        [MISSING_TEXT if value is None else distinct[value] for value in values], np.int32
    )
    lengths_k = np.array([len(value) for value in known], np.int64)
    return Texts(place_b, make_ragged(np.frombuffer(b"".join(known), np.uint8), lengths_k))
