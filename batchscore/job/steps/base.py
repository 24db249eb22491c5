"""What a postprocess step declares, and what steps share that work on columns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from batchscore.columnar.arrays import Array, to_numpy
from batchscore.errors import StepError, UnfitStepError
from batchscore.job.field_types import Section, Text
from batchscore.messages.wording import nearest

Columns = dict[str, pa.Array]
"""The outputs so far, by name."""
Kinds = dict[str, str]
"""What is known of each output; see `PostprocessStep.kinds`."""


class PostprocessStep(Section):
    """A step after the model: its settings are the fields of a subclass.

    The job file, its JSON Schema and its page, the stage, the profile's hints and the score hash
    read a step's subclass. Nothing else names a step, except the user's function, which a worker
    has to load.
    """

    key: ClassVar[str]
    """Its name in the job file."""
    short: ClassVar[type | None] = None
    """The type of the field named `key` that may replace the mapping: `labels: [a, b]`."""
    by_name: ClassVar[bool] = False
    """Whether its name alone is enough, since each setting has a default."""
    needs_numpy: ClassVar[bool] = False
    """Whether NumPy's version can change its result in the last bit."""

    def kinds(self, kinds: Kinds) -> Kinds | None:
        """Returns what is known of the outputs after this step. None: nothing, not their names.

        `probability` are from 0 to 1, `classes` also add up to 1. An empty text: nothing is known.

        Args:
            kinds: What is known before it.
        """
        raise NotImplementedError

    def spell(self) -> dict[str, Any]:
        """Returns its settings as plain JSON, for the score hash.

        They are written out one by one, since a published hash must not change with the class.
        """
        raise NotImplementedError


class Step(PostprocessStep):
    """A postprocess step on one of the outputs so far."""

    output: Text | None = Field(
        default=None, description="The output to work on; by default the only one there is."
    )

    def apply(self, columns: Columns) -> Columns:
        """Returns the outputs after this step. The plan calls it with columns that have no rows.

        Raises:
            UnfitStepError: The step does not fit the outputs, whatever their values.
            StepError: It fails on a value of these rows.
        """
        raise NotImplementedError

    def replaced(self, kinds: Kinds) -> tuple[str, str, Kinds]:
        """Returns the output that the step replaces, its kind, and all others."""
        name = self.output or next(iter(kinds))
        others = {key: kind for key, kind in kinds.items() if key != name}
        return name, kinds.get(name, ""), others


def merged(columns: Columns, new: Columns) -> Columns:
    """Returns all columns; UnfitStepError where two have one name."""
    clash = next((name for name in new if name in columns), None)
    if clash is not None:
        raise UnfitStepError(
            f"postprocess: {clash!r} would appear twice, the outputs so far are {list(columns)}; "
            "give the step another name"
        )
    return {**columns, **new}


def chosen(wanted: str | None, columns: Columns) -> str:
    """Returns the output to work on; UnfitStepError if there is none, or it is not named."""
    if wanted is None and len(columns) == 1:
        return next(iter(columns))
    if wanted in columns:
        return str(wanted)
    raise UnfitStepError(
        f"postprocess: there is no output {wanted!r}; {nearest(str(wanted), columns)}"
        if wanted
        else f"postprocess: name an output; the outputs so far are {list(columns)}"
    )


def classes(name: str, values: Array) -> Array:
    """Returns an output that has one score for each class (b, c); else UnfitStepError."""
    if values.ndim != 2:
        raise UnfitStepError(
            f"postprocess: output {name!r} has {per_row(values.shape[1:])}; expected one score for "
            "each class"
        )
    return values


def per_row(shape: Sequence[int]) -> str:
    """Says how many numbers an output has: `one number per row`, `2 x 3 numbers per row`."""
    return f"{' x '.join(map(str, shape))} numbers per row" if shape else "one number per row"


def floats(name: str, column: pa.Array) -> Array:
    """Returns an output's numbers as floats."""
    values = numbers(name, column)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def numbers(name: str, column: pa.Array) -> Array:
    """Returns an output's numbers; StepError for a null, UnfitStepError for another type."""
    try:
        return to_numpy(column)
    except ValueError as error:
        fault = StepError if _may_hold_numbers(column) else UnfitStepError
        raise fault(f"postprocess: output {name!r}: {error}; expected numbers") from error


def _may_hold_numbers(column: pa.Array) -> bool:
    """Tells whether a column's type is of numbers, or unknown, so that values are at fault."""
    with suppress(ValueError):
        to_numpy(column[:0])
        return True
    return bool(pa.types.is_null(column.type))
