"""The scores of a job, as far as they are known before a row is scored: names, types, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import pyarrow as pa

from batchscore.columnar.arrays import leaf_numbers, to_arrow
from batchscore.drift.column import Hint
from batchscore.errors import JobFileError, UnfitStepError
from batchscore.job import Checks, Job, column_checks
from batchscore.job.steps.base import Columns, Step, per_row
from batchscore.messages.wording import nearest
from batchscore.models.backends.facts import DEFAULT_OUTPUT
from batchscore.models.loadable import Model
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.tally import check_type
from batchscore.stages.typeless import Types


def output_names(model: Model) -> list[str]:
    """Returns the names of what the network returns."""
    return [output.name for output in model.outputs] or [DEFAULT_OUTPUT]


def score_hints(job: Job, model: Model) -> dict[str, Hint]:
    """Returns which score columns hold probabilities; none after a user's function."""
    kinds = score_kinds(output_names(model), job.postprocess) or {}
    return {name: cast(Hint, kind) for name, kind in kinds.items() if kind}


def declared_types(job: Job, model: Model) -> Types | None:
    """Returns the scores' types, by name, from what the model declares of its outputs.

    None: a user's function decides, or nothing is declared. Steps before the function are tried.

    Raises:
        JobFileError: A step does not fit the outputs.
    """
    columns = {o.name: to_arrow(np.empty((0, *o.shape), o.dtype)) for o in model.outputs}
    for place, step in enumerate(job.postprocess):
        if not columns or not isinstance(step, Step):
            return None
        columns = _applied(step, columns, place, model)
    return {name: column.type for name, column in columns.items()} or None


def check_declared(job: Job, model: Model) -> None:
    """Refuses steps and checks of scores that no row can pass, as far as the scores are known.

    Raises:
        JobFileError: A step does not fit the outputs, or a check needs a score that is not made.
        InputError: A check does not fit a score's type.
    """
    types = declared_types(job, model)
    if types is None:
        return
    check_score_range(job.checks, types)
    for check in column_checks(job.checks):
        if check.column in types:
            check_type(check, types[check.column])


def _applied(step: Step, columns: Columns, place: int, model: Model) -> Columns:
    try:
        return step.apply(columns)
    except UnfitStepError as error:
        outputs = ", ".join(f"{o.name} ({per_row(o.shape)})" for o in model.outputs)
        raise JobFileError(
            f"{error}. This is step {place + 1}, {step.key}; the model declares {outputs}: correct "
            "the step, or what the model declares of its outputs"
        ) from error


def check_score_range(checks: Checks, types: Types) -> None:
    """Raises JobFileError if `checks.score_range` is of a score that holds no numbers.

    Args:
        checks: The job's section.
        types: Types of all scores. Of Arrow's null type nothing is known.
    """
    if checks.score_range is None:
        return
    numbers = [name for name, kind in types.items() if may_hold_numbers(kind)]
    if not isinstance(checks.score_range, Mapping) and not numbers:
        raise JobFileError(
            f"checks.score_range: no score holds numbers; the scores are {_shown(types)}: take "
            "the check out, or keep a score of numbers"
        )
    wanted = checks.score_range if isinstance(checks.score_range, Mapping) else {}
    for name in wanted:
        if name not in types:
            raise JobFileError(
                f"checks.score_range: there is no score {name!r}; {nearest(name, types)}"
            )
        if name not in numbers:
            raise JobFileError(
                f"checks.score_range: score {name!r} is {types[name]}, expected numbers; name "
                f"another of the scores {_shown(types)}"
            )


def may_hold_numbers(kind: pa.DataType) -> bool:
    """Tells whether a column of a type holds numbers, or lists of them, as far as it is known."""
    return pa.types.is_null(kind) or leaf_numbers(pa.nulls(0, kind)) is not None


def _shown(types: Types) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items())
