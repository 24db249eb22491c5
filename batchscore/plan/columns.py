"""The columns of a run: those that are read, and those that are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from batchscore.errors import InputError, JobFileError, OutputError
from batchscore.job import ColumnCheck, Job, column_checks
from batchscore.messages.wording import nearest, one_line
from batchscore.models.backends.registry import backend_of
from batchscore.models.column_values import plain_type
from batchscore.models.loadable import Model
from batchscore.models.text_features import Verbatim
from batchscore.models.tree_features import Coded
from batchscore.plan.declared_scores import output_names
from batchscore.plan.footers import Footer
from batchscore.plan.schemas import check_plain, lacking, unify_schemas
from batchscore.stages.filters import filter_expression
from batchscore.stages.postprocess import score_kinds
from batchscore.stages.tally import check_type
from batchscore.stages.write import Target

_INPUTS = "model.inputs"
_HINTS = {
    _INPUTS: "; model.inputs gives an input the columns that it takes, such as {x: [a, b]}",
    "output.columns": "; it lists columns of the input, and scores are written in any case",
}


def read_filters(job: Job) -> list[list[tuple[Any, ...]]] | None:
    """Returns the job's filters in pyarrow's own form, or None."""
    groups = job.input.filters
    return [
        [(c, op, list(v) if isinstance(v, tuple) else v) for c, op, v in g] for g in groups
    ] or None


def read_schema(job: Job, footers: Sequence[Footer], model: Model) -> pa.Schema:
    """Returns the columns to read: all, or those that something needs.

    Raises:
        InputError: A column is missing, or has types that do not fit.
    """
    if not footers:
        return pa.schema([])
    if job.preprocess is not None:
        scored: Sequence[str] | None = job.preprocess.columns
    else:
        scored = [column for each in model.inputs for column in each.columns]
    groups: dict[str, Sequence[str] | None] = {
        "output.columns": job.output.columns,
        _scored_key(job, model): scored,
        "output.partition_by": job.output.partition_by,
        "input.filters": [c for group in job.input.filters for c, _, _ in group],
    }
    for key, names in groups.items():
        _check_known(key, names or (), footers, model)
    every = any(names is None for names in groups.values())
    wanted = None if every else [name for names in groups.values() for name in names or ()]
    schema = unify_schemas(footers, wanted)
    if job.input.on_bad_shard != "quarantine":
        check_plain(footers, schema.names)
    if job.input.filters:
        filter_expression(job.input.filters, schema)
    return schema


def checked_schema(
    job: Job, footers: Sequence[Footer], model: Model, schema: pa.Schema
) -> pa.Schema:
    """Returns the columns to read for checks of columns alone, which nothing else needs.

    Raises:
        JobFileError: There is no such column.
        InputError: A check and a column's type do not fit.
    """
    scores = score_kinds(output_names(model), job.postprocess)
    checks = column_checks(job.checks) if footers else ()
    there = footers[0].schema.names if footers else []
    for check in checks:
        if scores is not None and check.column not in (*there, *scores):
            raise JobFileError(
                f"checks.{check.kind}: there is no column {check.column!r} in the input or among "
                f"the scores; {nearest(check.column, [*there, *scores])}"
            )
    of_input = [c for c in checks if c.column in there and c.column not in (scores or ())]
    more = [c.column for c in of_input if c.column not in schema.names]
    hidden = unify_schemas(footers, more) if more else pa.schema([])
    if job.input.on_bad_shard != "quarantine":
        check_plain(footers, hidden.names)
    for check in of_input:
        known = schema if check.column in schema.names else hidden
        check_type(check, known.field(check.column).type)
    return hidden


def _scored_key(job: Job, model: Model) -> str:
    if job.preprocess is not None:
        return "preprocess.columns"
    return model.names_inputs


def _check_known(key: str, names: Iterable[str], footers: Sequence[Footer], model: Model) -> None:
    known = footers[0].schema.names
    for name in names:
        if name not in known:
            raise InputError(
                f"{key}: column {name!r} is not in {lacking(footers, name)}; {nearest(name, known)}"
                + (_naming(model, name) if key.startswith("model ") else _HINTS.get(key, ""))
            )


def _naming(model: Model, column: str) -> str:
    """Returns how a job names other columns than those that the model names itself."""
    fed = next((each for each in model.inputs if column in each.columns), None)
    if fed is None or len(fed.columns) > 1:
        name = fed.name if fed else "features"
        return f"; model.inputs may name the columns, in the order of training: {{{name}: [a, b]}}"
    return f"; model.inputs may name another column: {{{fed.name}: a}}"


def unseen_checks(job: Job, model: Model, schema: pa.Schema) -> tuple[ColumnCheck, ...]:
    """Returns what counts the categories that training never saw and that score."""
    if model.features is None or not schema.names:
        return ()
    members = [each for found in model.features.inputs.values() for each in found]
    coded = [each for each in members if isinstance(each, Coded) and each.unseen != "reject"]
    texts = [each for each in members if isinstance(each, Verbatim) and each.vocabulary]
    is_made = job.preprocess is not None
    return tuple(
        ColumnCheck("unseen", each.column, each.vocabulary, is_made)
        for each in dict.fromkeys(coded)
        if is_made or not pa.types.is_boolean(plain_type(schema.field(each.column).type))
    ) + tuple(
        ColumnCheck("unseen", each.column, each.sampled, is_made, of_sample=True)
        for each in dict.fromkeys(texts)
    )


def uncounted(model: Model) -> dict[str, str]:
    """Returns what to say of categories whose unseen values cannot be counted, if any."""
    if model.features is None or not backend_of(model.format).names_columns:
        return {}
    members = [each for found in model.features.inputs.values() for each in found]
    unknown = [
        each.column for each in members if isinstance(each, Verbatim) and not each.vocabulary
    ]
    if not unknown:
        return {}
    names = one_line(", ".join(unknown), 200)
    return {
        "unseen": f"not counted for {names}, since the model's file does not list their "
        "categories; a folder of bs.save_model, or batchscore model save, has those of its sample"
    }


def model_columns(job: Job, model: Model, schema: pa.Schema) -> tuple[str, ...]:
    """Returns the input columns that the model reads, by itself or by the user's function."""
    if job.preprocess is not None:
        return tuple(schema.names if job.preprocess.columns is None else job.preprocess.columns)
    return tuple(dict.fromkeys(column for each in model.inputs for column in each.columns))


def check_drift_columns(job: Job, schema: pa.Schema, scores: Iterable[str]) -> None:
    """Raises JobFileError where the drift section names neither a column that is read nor a score.

    Args:
        schema: What is read; without a column, nothing is known.
        scores: Names of all scores.
    """
    if not schema.names:
        return
    known = [*schema.names, *scores]
    named = {
        "columns": job.drift.columns or (),
        "column_thresholds": job.drift.column_thresholds,
        "mute": [each.column for each in job.drift.mute],
    }
    for key, names in named.items():
        for name in names:
            if name not in known:
                raise JobFileError(
                    f"drift.{key}: there is no column {name!r} among what is read and the scores; "
                    f"{nearest(name, known)}"
                )


def written_columns(
    job: Job,
    schema: pa.Schema,
    version: str,
    plain_keys: tuple[str, ...] = (),
    more_checks: tuple[ColumnCheck, ...] = (),
) -> Target:
    """Returns what is passed through, and what lives in the path.

    Args:
        job: The job.
        schema: What is read.
        version: Version of the model.
        plain_keys: Columns in the path whose folders have their names as they are.
        more_checks: What is counted of columns in addition to the job's own checks.

    Raises:
        OutputError: A column is of a type that cannot be there.
    """
    output = job.output
    kept = schema.names if output.columns is None else output.columns
    for name in output.partition_by:
        if schema.names and not _partitions(schema.field(name).type):
            raise OutputError(
                f"output.partition_by: column {name!r} is {schema.field(name).type}; expected "
                "whole numbers, strings, booleans, dates or timestamps"
            )
    columns = tuple(dict.fromkeys([*kept, *output.partition_by])) if schema.names else ()
    for name in job.checks.unique if columns else ():
        if name not in columns:
            raise OutputError(
                f"checks.unique: column {name!r} is not written; {nearest(name, columns)}: add it "
                "to output.columns if it is a column of the input, or take it out of the key; a "
                "score cannot be part of one"
            )
        if _is_nested(schema.field(name).type):
            raise OutputError(
                f"checks.unique: column {name!r} is {schema.field(name).type}, which cannot be "
                "part of a key; name columns of numbers, texts, binaries, booleans, dates or times"
            )
    by, unique = tuple(output.partition_by), job.checks.unique
    checks = (*column_checks(job.checks), *more_checks)
    return Target(
        columns,
        by,
        version,
        unique=unique,
        plain_keys=plain_keys,
        checks=checks,
        codec=output.compression,
    )


def _is_nested(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_nested(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind))


def _partitions(kind: pa.DataType) -> bool:
    types = pa.types
    families = (types.is_integer, types.is_string, types.is_large_string, types.is_boolean)
    return any(family(kind) for family in (*families, types.is_date, types.is_timestamp))
