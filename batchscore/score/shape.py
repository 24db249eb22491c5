"""What the columns of a batch come to for a job: those that are read, scored and passed through."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import InputError
from batchscore.job import Job
from batchscore.messages.wording import nearest
from batchscore.models.features import Calendar
from batchscore.models.loadable import Model
from batchscore.models.text_features import Verbatim
from batchscore.models.vocabulary import HasVocabulary
from batchscore.plan.columns import (
    checked_schema,
    model_columns,
    read_filters,
    read_schema,
    written_columns,
)
from batchscore.plan.explained import find_reasons
from batchscore.plan.footers import Footer
from batchscore.plan.model import model_inputs
from batchscore.stages.casting import check_castable, plain_type
from batchscore.stages.filters import filter_expression
from batchscore.units.unit import Piece, Shard, Unit
from batchscore.worker.spec import Scoring

ELEMENT = "<element of bs.Score>"
"""What messages show in place of a shard's path."""


@dataclass(frozen=True)
class Shape:
    """How batches of one schema are scored.

    Args:
        scoring: What is scored, for these columns; `source.schema` has those that are read.
        condition: Holds for the rows that the job's filter keeps; None: it keeps all.
    """

    scoring: Scoring
    condition: pc.Expression | None


def element_unit(rows: int) -> Unit:
    """Returns the unit that the rows of one element count as."""
    return Unit("element", (Piece(Shard(ELEMENT, 0, "", rows), (0,), (0,), (rows,)),))


def shape_of(job: Job, scoring: Scoring, declared: pa.Schema, given: pa.Schema) -> Shape:
    """Returns how a batch is scored that has a schema.

    Args:
        job: What is asked for.
        scoring: What is known of it without a schema.
        declared: Types that columns are cast to, by name.
        given: The batch's own schema.

    Raises:
        InputError: A column is missing or duplicate, or has a type that does not fit.
    """
    known = _cast_schema(declared, given)
    _require_columns(job, scoring.model, known)
    footers = [Footer(Shard(ELEMENT, 0, "", 0), known, (), (), 0)]
    schema = read_schema(job, footers, scoring.model)
    hidden = checked_schema(job, footers, scoring.model, schema)
    marked = tuple((f.name, f.type) for f in given if isinstance(f.type, pa.BaseExtensionType))
    target = written_columns(job, schema, scoring.model.version)
    kept = tuple((name, kind) for name, kind in marked if name in target.columns)
    inputs = model_inputs(job, scoring.model, schema, footers)
    made = replace(
        scoring,
        source=replace(scoring.source, schema=pa.schema([*schema, *hidden])),
        inputs=inputs,
        reasons=find_reasons(job, scoring.model, inputs, schema),
        target=replace(target, marked=kept, hidden=tuple(hidden.names)),
        model_columns=model_columns(job, scoring.model, schema),
    )
    filters = read_filters(job)
    return Shape(made, filter_expression(filters, schema) if filters else None)


def _cast_schema(declared: pa.Schema, given: pa.Schema) -> pa.Schema:
    """Returns a batch's columns in the types that stages see."""
    twice = [name for name, count in Counter(given.names).items() if count > 1]
    if twice:
        raise InputError(f"a batch of bs.Score has column {twice[0]!r} twice; rename one")
    missing = [name for name in declared.names if name not in given.names]
    if missing:
        raise InputError(
            f"a batch of bs.Score has no column {missing[0]!r}, which is declared in schema; "
            f"{nearest(missing[0], given.names)}"
        )
    fields = []
    for field in given:
        kind = plain_type(field.type)
        if field.name in declared.names:
            wanted = plain_type(declared.field(field.name).type)
            check_castable(field.name, kind, wanted)
            kind = wanted
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def passed_names(job: Job) -> tuple[str, ...] | None:
    """Returns the columns that are passed through; None: all."""
    kept = job.output.columns
    return None if kept is None else tuple(dict.fromkeys([*kept, *job.output.partition_by]))


def needed_columns(job: Job, model: Model) -> dict[str, str]:
    """Returns each column that a job must have, and what needs it; any that a function may read."""
    needed = dict.fromkeys(job.output.columns or (), "output.columns")
    needed |= dict.fromkeys(job.output.partition_by, "output.partition_by")
    needed |= {name: "input.filters" for group in job.input.filters for name, _, _ in group}
    if job.preprocess is None:
        why = model.names_inputs
        return {name: why for each in model.inputs for name in each.columns} | needed
    return dict.fromkeys(job.preprocess.columns or (), "preprocess.columns") | needed


def needs_schema(job: Job, model: Model, why: str) -> InputError:
    """Returns the error of rows whose fields have no types; it shows a schema that has them."""
    names = [*needed_columns(job, model)] or ["a"]
    pairs = ", ".join(f'("{name}", {_example_type(model, name)})' for name in names[:3])
    more = ", …" if len(names) > 3 else ""
    return InputError(
        f"bs.Score: {why}; give schema, with the types of what the job reads: "
        f"schema=pa.schema([{pairs}{more}])"
    )


UNTYPED = "dictionaries and untyped rows do not say the types of their fields"


_ARROW_NAMES = {"bool": "bool_", "text": "string"}


def _example_type(model: Model, name: str) -> str:
    """Returns a type, in pyarrow's words, that the model takes for a column."""
    lists = model.features.inputs.values() if model.features else ()
    for feature in (each for features in lists for each in features if each.column == name):
        if isinstance(feature, Verbatim):
            return "pa.string()"
        if isinstance(feature, HasVocabulary):
            return "pa.string()" if feature.is_text else "pa.int64()"
        zone = ', "UTC"' if isinstance(feature, Calendar) and feature.timezone else ""
        return f'pa.timestamp("us"{zone})' if isinstance(feature, Calendar) else "pa.float64()"
    for given in model.inputs:
        if model.features is None and name in given.columns:
            kind = f"pa.{_ARROW_NAMES.get(given.dtype, given.dtype)}()"
            is_list = given.varying or (given.shape and len(given.columns) == 1)
            return f"pa.list_({kind})" if is_list else kind
    return "pa.string()"


def _require_columns(job: Job, model: Model, known: pa.Schema) -> None:
    for name, why in needed_columns(job, model).items():
        if name not in known.names:
            raise InputError(
                f"the rows of bs.Score have no column {name!r}, which {why} needs; "
                f"{nearest(name, known.names)}"
            )
        if why == "model.inputs" and pa.types.is_null(known.field(name).type):
            raise InputError(
                f"column {name!r} of a batch has no type, since it is null in all rows; give "
                "bs.Score schema, with the types of what the job reads"
            )
