"""The steps `sigmoid` and `softmax`: logits become probabilities.

Suffixes: `_b` rows, `_bc` rows by classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from batchscore.columnar.arrays import Array, to_arrow
from batchscore.job.field_types import Text
from batchscore.job.steps.base import Columns, Kinds, Step, chosen, classes, floats, merged

_SCORE_NAMES = {"logit": "score", "logits": "scores"}


class Sigmoid(Step):
    """Replaces a logit by its probability, element by element."""

    key: ClassVar[str] = "sigmoid"
    by_name: ClassVar[bool] = True
    needs_numpy: ClassVar[bool] = True

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )

    def apply(self, columns: Columns) -> Columns:
        """Replaces the logits in their place."""
        name = chosen(self.output, columns)
        return _in_place(columns, name, self.name, sigmoid(floats(name, columns[name])))

    def kinds(self, kinds: Kinds) -> Kinds:
        """Each of its results is a probability."""
        old, _, others = self.replaced(kinds)
        return {**others, _named(old, self.name): "probability"}

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        return {"output": self.output, "name": self.name}


class Softmax(Step):
    """Replaces a row's logits, one for each class, by probabilities that add up to 1."""

    key: ClassVar[str] = "softmax"
    by_name: ClassVar[bool] = True
    needs_numpy: ClassVar[bool] = True

    name: Text | None = Field(
        default=None,
        description="The result's name; by default the output's own, but `score` for `logit` and "
        "`scores` for `logits`.",
    )

    def apply(self, columns: Columns) -> Columns:
        """Replaces the logits in their place."""
        name = chosen(self.output, columns)
        scores_bc = softmax(classes(name, floats(name, columns[name])))
        return _in_place(columns, name, self.name, scores_bc)

    def kinds(self, kinds: Kinds) -> Kinds:
        """Its results are class scores."""
        old, _, others = self.replaced(kinds)
        return {**others, _named(old, self.name): "classes"}

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        return {"output": self.output, "name": self.name}


def sigmoid(logits: Array) -> Array:
    """Returns 1 / (1 + e^-x) without overflow, element by element, in the type given."""
    decay = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, decay) / (1 + decay), logits.dtype)


def softmax(logits_bc: Array) -> Array:
    """Returns each row's probabilities (b, c), without overflow, in the type given."""
    powers_bc = np.exp(logits_bc - logits_bc.max(axis=1, keepdims=True))
    # Added class by class: a row's sum must not depend on how NumPy blocks the array.
    total_b = powers_bc[:, 0].copy()
    for column_b in powers_bc.T[1:]:
        total_b += column_b
    return np.asarray(powers_bc / total_b[:, None])


def _named(old: str, name: str | None) -> str:
    return name or _SCORE_NAMES.get(old, old)


def _in_place(columns: Columns, old: str, name: str | None, scores: Array) -> Columns:
    new = _named(old, name)
    others = {key: value for key, value in columns.items() if key != old}
    done = merged(others, {new: to_arrow(scores)})
    return {key: done[key] for key in (new if key == old else key for key in columns)}
