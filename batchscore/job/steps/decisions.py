"""The steps `top_k`, `threshold` and `labels`: scores become classes and decisions.

Suffixes: `_b` rows, `_bc` rows by classes, `_bk` rows by the k best classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from batchscore.columnar.arrays import Array, text_array, to_arrow
from batchscore.errors import StepError, UnfitStepError
from batchscore.job.field_types import OneOrMore, Text
from batchscore.job.steps.base import (
    Columns,
    Kinds,
    Step,
    chosen,
    classes,
    floats,
    merged,
    numbers,
)
from batchscore.messages.wording import counted


class TopK(Step):
    """Replaces a row's class scores by its k best classes and their scores, best first."""

    key: ClassVar[str] = "top_k"

    k: int = Field(ge=1, description="How many classes to keep; at most as many as there are.")
    labels: OneOrMore | None = Field(
        default=None,
        description="A text for each class, in the model's order; by default the class's index.",
    )
    name: Text = Field(
        default="top", description="The results are named `<name>_labels` and `<name>_scores`."
    )

    @model_validator(mode="after")
    def _k_fits_the_labels(self) -> TopK:
        if self.labels is not None and self.k > len(self.labels):
            raise ValueError(f"k is {self.k}, and there are labels for {len(self.labels)}; lower k")
        return self

    def apply(self, columns: Columns) -> Columns:
        """Replaces the class scores by two columns at the end."""
        name = chosen(self.output, columns)
        scores_bc = classes(name, floats(name, columns[name]))
        self._check_classes(name, scores_bc.shape[1])
        best_bk = np.argsort(-scores_bc, axis=1, kind="stable")[:, : self.k]
        top_bk = np.take_along_axis(scores_bc, best_bk, axis=1)
        kept = {key: value for key, value in columns.items() if key != name}
        best = {
            f"{self.name}_labels": _take_labels(best_bk, self.labels),
            f"{self.name}_scores": to_arrow(top_bk),
        }
        return merged(kept, best)

    def _check_classes(self, name: str, there: int) -> None:
        if self.k > there:
            raise UnfitStepError(
                f"postprocess: output {name!r} has {counted(there, 'class')}, and top_k keeps "
                f"{self.k}; lower k"
            )
        if self.labels is not None:
            _check_labels(name, there, self.labels)

    def kinds(self, kinds: Kinds) -> Kinds:
        """The best scores are probabilities if all were; they do not add up to 1."""
        _, kind, others = self.replaced(kinds)
        scores = "probability" if kind else ""
        return {**others, f"{self.name}_labels": "", f"{self.name}_scores": scores}

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        labels = None if self.labels is None else list(self.labels)
        return {"output": self.output, "k": self.k, "labels": labels, "name": self.name}


class Threshold(Step):
    """Adds a boolean: whether the score is at least `at`."""

    key: ClassVar[str] = "threshold"

    at: float = Field(description="The lowest score that counts as true, in the score's unit.")
    name: Text = Field(default="decision", description="The boolean's name.")

    def apply(self, columns: Columns) -> Columns:
        """Adds the boolean at the end."""
        name = chosen(self.output, columns)
        return merged(columns, {self.name: to_arrow(floats(name, columns[name]) >= self.at)})

    def kinds(self, kinds: Kinds) -> Kinds:
        """Adds its result."""
        return {**kinds, self.name: ""}

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        return {"output": self.output, "at": self.at, "name": self.name}


class Labels(Step):
    """Adds a text: of the best class for class scores, else of a boolean or integer class."""

    key: ClassVar[str] = "labels"
    short: ClassVar[type | None] = list

    labels: OneOrMore = Field(
        description="A text for each class, in the model's order; for a boolean false, then true."
    )
    name: Text = Field(default="label", description="The text's name.")

    def apply(self, columns: Columns) -> Columns:
        """Adds the text at the end."""
        name = chosen(self.output, columns)
        return merged(columns, {self.name: _label(name, columns[name], self.labels)})

    def kinds(self, kinds: Kinds) -> Kinds:
        """Adds its result."""
        return {**kinds, self.name: ""}

    def spell(self) -> dict[str, Any]:
        """Writes its settings out."""
        return {"output": self.output, "labels": list(self.labels), "name": self.name}


def _take_labels(index_bk: Array, labels: Sequence[str] | None) -> pa.Array:
    index_bk = index_bk.astype(np.int64)
    if labels is None:
        return to_arrow(index_bk)
    texts = text_array(labels).take(to_arrow(index_bk.reshape(-1)))
    return pa.FixedSizeListArray.from_arrays(texts, index_bk.shape[1])


def _label(name: str, column: pa.Array, labels: Sequence[str]) -> pa.Array:
    index_b = _best_class(name, column, labels)
    outside = (index_b < 0) | (index_b >= len(labels))
    if outside.any():
        raise StepError(
            f"postprocess: output {name!r} holds class {index_b[outside][0]}, and the job has "
            f"{counted(len(labels), 'label')}; give each class a label"
        )
    return text_array(labels).take(to_arrow(index_b.astype(np.int64)))


def _best_class(name: str, column: pa.Array, labels: Sequence[str]) -> Array:
    values = numbers(name, column)
    if values.ndim == 1 and values.dtype.kind in "bui":
        return values
    if values.ndim != 2:
        raise UnfitStepError(
            f"postprocess: labels of output {name!r}, a column of {column.type}: expected class "
            "scores, a boolean or an integer class; put a threshold before it"
        )
    _check_labels(name, values.shape[1], labels)
    return np.asarray(values.argmax(axis=1))


def _check_labels(name: str, classes: int, labels: Sequence[str]) -> None:
    if classes != len(labels):
        raise UnfitStepError(
            f"postprocess: output {name!r} has {counted(classes, 'class')}, and the job has "
            f"{counted(len(labels), 'label')}; give each class a label"
        )
