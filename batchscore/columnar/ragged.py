"""Rows of varying length: how a model input declares them, and as NumPy arrays.

Suffixes: `_t` rows of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscore.columnar.array_type import Array


@dataclass(frozen=True)
class Varying:
    """That each row of a model input has a number of steps of its own.

    Args:
        max_length: Largest number of steps of a row.
        pad: The number that fills a row after its own steps.
        truncate: A longer row keeps its first `max_length` steps; else it is rejected.
    """

    max_length: int
    pad: float = 0
    truncate: bool = False


@dataclass(frozen=True)
class Ragged:
    """Rows of varying length, one after another.

    Args:
        steps_n: The steps (n, …) of all rows.
        offsets: int64 (b + 1,): row i has the steps from offsets[i] to offsets[i + 1].
    """

    steps_n: Array
    offsets: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self.steps_n.dtype

    @property
    def lengths_b(self) -> Array:
        """Steps of each row (b,)."""
        return np.diff(self.offsets)


def make_ragged(steps_n: Array, lengths_b: Array) -> Ragged:
    """Returns steps (n, …) as rows of the given lengths, which add up to n."""
    offsets = np.zeros(len(lengths_b) + 1, np.int64)
    np.cumsum(lengths_b, out=offsets[1:])
    return Ragged(steps_n, offsets)


def take_steps(steps_n: Array, starts_t: Array, lengths_t: Array) -> Array:
    """Returns the steps that begin at each of the places, as many as given, one after another."""
    ends_t = np.cumsum(lengths_t)
    shifts_t = starts_t - (ends_t - lengths_t)
    places_n = np.arange(lengths_t.sum()) + np.repeat(shifts_t, lengths_t)
    return np.asarray(steps_n[places_n])


def truncate(ragged: Ragged, max_length: int) -> Ragged:
    """Returns the rows with no more than their first `max_length` steps."""
    lengths_b = ragged.lengths_b
    if not (lengths_b > max_length).any():
        return ragged
    kept_b = np.minimum(lengths_b, max_length)
    return make_ragged(take_steps(ragged.steps_n, ragged.offsets[:-1], kept_b), kept_b)
