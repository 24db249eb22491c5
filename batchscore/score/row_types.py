"""What Beam knows of elements, and of what becomes of them: batches, rows with a schema, others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_type_hints

import pyarrow as pa
from apache_beam.pvalue import Row
from apache_beam.typehints.arrow_type_compatibility import (
    arrow_schema_from_beam_schema,
    beam_schema_from_arrow_schema,
)
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schemas import (
    named_fields_from_schema,
    named_fields_to_schema,
)
from apache_beam.typehints.typehints import DictConstraint, TupleConstraint

from batchscore.columnar.arrays import leaf_numbers
from batchscore.errors import InvalidError
from batchscore.job import column_checks
from batchscore.score.elementwise import ElementPlan
from batchscore.score.python_rows import taken
from batchscore.score.shape import UNTYPED, needed_columns, needs_schema, passed_names
from batchscore.stages.reasons import REASONS
from batchscore.stages.write import MODEL_VERSION

_BATCHES = (pa.RecordBatch, pa.Table)
_PLAIN = (int, float, bool, str, bytes)
_UNKNOWN = (TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
"""What Beam raises for a type that has no schema."""


def is_mapping(element: Any) -> bool:
    """Tells whether elements are known to be dictionaries."""
    return isinstance(element, DictConstraint) or element is dict


def schema_of(element: Any) -> pa.Schema:
    """Returns Arrow's types of a row type's fields, as far as Beam and Arrow know them."""
    found = []
    for field in _typed_fields(element):
        try:
            (known,) = arrow_schema_from_beam_schema(named_fields_to_schema([field]))
        except _UNKNOWN:
            continue
        found.append(pa.field(field[0], known.type))
    return pa.schema(found)


def _typed_fields(element: Any) -> list[tuple[str, Any]]:
    """Returns the fields of a row type with their types; none of what is no row type."""
    if isinstance(element, RowTypeConstraint):
        return [(name, _spelled(kind)) for name, kind in element._fields]
    if not _is_row_class(element):
        return []
    try:
        # Beam reads annotations as they are, which may be texts.
        hints = get_type_hints(element)
    except (NameError, TypeError):
        return []
    names = getattr(element, "_fields", None) or [each.name for each in _dataclass_fields(element)]
    return [(name, _spelled(hints[name])) for name in names if name in hints]


def _spelled(kind: Any) -> Any:
    """Returns `X | None` as `Optional[X]`, which is all that Beam's schemas know."""
    return Union[get_args(kind)] if isinstance(kind, UnionType) else kind  # noqa: UP007


def _dataclass_fields(element: type) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(element) if dataclasses.is_dataclass(element) else ()


def _is_row_class(element: Any) -> bool:
    rows = isinstance(element, type) and issubclass(element, (tuple, Row))
    return rows or (isinstance(element, type) and dataclasses.is_dataclass(element))


def require_types(element: Any, declared: pa.Schema, planned: ElementPlan) -> None:
    """Refuses elements without the types that a job needs, and those that are no rows at all.

    Args:
        declared: What `schema_of` knows of them.

    Raises:
        InvalidError: They are known to be so; where Beam knows nothing, a worker will.
    """
    if element in _PLAIN or isinstance(element, TupleConstraint):
        raise InvalidError(
            f"bs.Score: the elements are {element}; expected record batches, tables, dictionaries, "
            "named tuples or beam.Row: convert them with beam.Map"
        )
    job, model = planned.plan.loaded.job, planned.plan.spec.scoring.model
    fields = dict(_typed_fields(element))
    unknown = [name for name in fields if name not in declared.names]
    if job.preprocess is None or job.preprocess.columns is not None:
        checked = {check.column for check in column_checks(job.checks)}
        unknown = [name for name in unknown if name in checked | {*needed_columns(job, model)}]
    if unknown:
        kind = getattr(fields[unknown[0]], "__name__", fields[unknown[0]])
        why = f"field {unknown[0]!r} is a {kind}, which does not say its type in a table"
        raise needs_schema(job, model, why)
    if is_mapping(element) or (not declared.names and _is_row_type(element)):
        raise needs_schema(job, model, UNTYPED)


def _is_row_type(element: Any) -> bool:
    return isinstance(element, RowTypeConstraint) or _is_row_class(element)


def require_free(element: Any, planned: ElementPlan) -> None:
    """Refuses rows of which a field has the name of a score; InvalidError."""
    kept = passed_names(planned.plan.loaded.job)
    names = {name for name, _ in _typed_fields(element) if kept is None or name in kept}
    made = (*(planned.scores or ()), MODEL_VERSION)
    made += (REASONS,) if planned.plan.loaded.job.explain is not None else ()
    clash = next((name for name in made if name in names), None)
    if clash is not None:
        raise taken(clash)


def outcome_types(element: Any, planned: ElementPlan) -> tuple[Any, Any]:
    """Returns the types of what is scored and of what is rejected, as far as they are known."""
    if element in _BATCHES:
        return pa.RecordBatch, pa.RecordBatch
    if is_mapping(element):
        return dict[str, Any], dict[str, Any]
    try:
        fields = named_fields_from_schema(named_fields_to_schema(_typed_fields(element)))
    except _UNKNOWN:
        return Any, Any
    if not fields:
        return Any, Any
    # The names of reasons begin with an underscore, which Beam's schemas do not take.
    return _scored_rows(fields, planned), Any


def _scored_rows(fields: Sequence[tuple[str, Any]], planned: ElementPlan) -> Any:
    """Returns the type of scored rows; Any where a score's type is not known, or not Beam's."""
    kept, types = passed_names(planned.plan.loaded.job), planned.scores
    if types is None or planned.plan.loaded.job.explain is not None:
        return Any
    known = dict(fields)
    own = fields if kept is None else [(name, known[name]) for name in kept if name in known]
    try:
        # A text may be null; a row whose number is null is rejected.
        scores = pa.schema(
            [
                pa.field(name, kind, nullable=leaf_numbers(pa.nulls(0, kind)) is None)
                for name, kind in types.items()
            ]
        )
        found = named_fields_from_schema(beam_schema_from_arrow_schema(scores))
        return RowTypeConstraint.from_fields([*own, *found, (MODEL_VERSION, str)])
    except _UNKNOWN:
        return Any
