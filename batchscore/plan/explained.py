"""What a job's reasons may say, and whether its model has any."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from batchscore.errors import JobFileError, OutputError, UnfitStepError
from batchscore.job import Explain, Job
from batchscore.messages.wording import nearest
from batchscore.models.backends.registry import backend_of
from batchscore.models.features import entry_columns
from batchscore.models.loadable import Model
from batchscore.plan.declared_scores import declared_types, may_hold_numbers, output_names
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.preprocess import InputColumns
from batchscore.stages.reasons import REASONS, Explaining, compared_score
from batchscore.stages.typeless import Types


def find_reasons(
    job: Job, model: Model, inputs: Sequence[InputColumns], schema: pa.Schema
) -> Explaining | None:
    """Returns what is explained of each row; None where the job asks for no reasons.

    Args:
        inputs: The model's inputs, where the model has no features of its own.
        schema: The columns that are read; empty if they are not known yet.

    Raises:
        JobFileError: The model has no reasons, or nothing that they may name.
        OutputError: Another column has their name.
    """
    asked = job.explain
    if asked is None:
        return None
    if not backend_of(model.format).explains:
        raise JobFileError(
            f"explain: models of format {model.format!r} do not tell what each column contributed; "
            "expected trees of XGBoost, LightGBM or CatBoost, or a linear model of scikit-learn: "
            "leave explain out"
        )
    _require_free(job, model, schema)
    _require_score(job, asked, model)
    columns = _entries(model, inputs)
    return Explaining(
        asked.top, asked.above, asked.score, columns, _named(job, asked, columns, schema)
    )


def _entries(model: Model, inputs: Sequence[InputColumns]) -> tuple[str, ...]:
    """Returns the column of each number of the inputs, in the model's order."""
    if model.features is not None:
        return entry_columns(model.features)
    found: list[str] = []
    for each in inputs:
        found += each.columns if len(each.columns) == each.width else each.columns * each.width
    return tuple(found)


def _named(
    job: Job, asked: Explain, columns: tuple[str, ...], schema: pa.Schema
) -> tuple[str, ...]:
    """Returns the columns that reasons may name, in the model's order."""
    read = tuple(dict.fromkeys(columns))
    if asked.columns is not None:
        for name in asked.columns:
            if name not in read:
                raise JobFileError(
                    f"explain.columns: the model reads no column {name!r}; {nearest(name, read)}"
                )
        return tuple(name for name in read if name in asked.columns)
    kept = job.output.columns
    published = {*(schema.names or read if kept is None else kept), *job.output.partition_by}
    named = tuple(name for name in read if name in published)
    if not named:
        raise JobFileError(
            "explain: reasons name only columns that are published, and output.columns has none "
            f"that the model reads ({', '.join(read[:10])}{', …' if len(read) > 10 else ''}); add "
            "some there, or list those that reasons may name as explain.columns"
        )
    return named


def _require_free(job: Job, model: Model, schema: pa.Schema) -> None:
    scores = score_kinds(output_names(model), job.postprocess) or {}
    if REASONS in schema.names or REASONS in scores:
        what = "a score" if REASONS in scores else "a column of the input"
        raise OutputError(
            f"explain: the column of reasons is named {REASONS!r}, and so is {what}; rename that, "
            "take it out of what is read (output.columns), or leave explain out"
        )


def _require_score(job: Job, asked: Explain, model: Model) -> None:
    types = declared_types(job, model)
    if types is not None:
        require_compared(asked, types)


def require_compared(asked: Explain | None, types: Types) -> None:
    """Requires a score that `above` is compared with.

    Args:
        asked: The job's section.
        types: Types of all scores; of Arrow's null type nothing is known.

    Raises:
        JobFileError: There is none, or it is not clear which one.
    """
    if asked is None or asked.above is None:
        return
    try:
        compared_score(
            [name for name, kind in types.items() if may_hold_numbers(kind)], asked.score
        )
    except UnfitStepError as error:
        raise JobFileError(str(error)) from error
