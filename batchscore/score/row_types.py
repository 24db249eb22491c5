"""What Beam knows of elements, and of what becomes of them: batches, rows with a schema, others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_type_hints

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
    schema_from_element_type,
)
from apache_beam.typehints.typehints import DictConstraint, TupleConstraint

from batchscore.columnar.arrays import leaf_numbers
from batchscore.errors import InvalidError
from batchscore.score.elementwise import ElementPlan
from batchscore.score.shape import needed_columns, needs_schema, passed_names
from batchscore.stages.write import MODEL_VERSION

_BATCHES = (pa.RecordBatch, pa.Table)
_PLAIN = (int, float, bool, str, bytes)
_UNKNOWN = (TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
"""What Beam raises for a type that has no schema."""


def is_mapping(element: Any) -> bool:
    """Tells whether elements are known to be dictionaries."""
    return isinstance(element, DictConstraint) or element is dict


def schema_of(element: Any) -> pa.Schema:
    """Returns Arrow's types of a row type's fields; empty if Beam does not know them all."""
    try:
        found = arrow_schema_from_beam_schema(_beam_schema(element))
    except _UNKNOWN:
        return pa.schema([])
    return pa.schema([pa.field(field.name, field.type) for field in found])


def _beam_schema(element: Any) -> Any:
    """Returns Beam's schema of a type; raises one of what Beam raises if it has none."""
    if _is_row_class(element) and issubclass(element, tuple):
        # Beam reads annotations as they are, which may be texts.
        return named_fields_to_schema([*get_type_hints(element).items()])
    return schema_from_element_type(element)


def _is_row_class(element: Any) -> bool:
    return isinstance(element, type) and issubclass(element, (tuple, Row))


def require_schema(element: Any, planned: ElementPlan) -> None:
    """Refuses elements that need a schema, and those that are no rows at all.

    Raises:
        InvalidError: They are known to be so; where Beam knows nothing, a worker will.
    """
    if element in _PLAIN or isinstance(element, TupleConstraint):
        raise InvalidError(
            f"bs.Score: the elements are {element}; expected record batches, tables, dictionaries, "
            "named tuples or beam.Row: convert them with beam.Map"
        )
    if is_mapping(element) or isinstance(element, RowTypeConstraint) or _is_row_class(element):
        plan = planned.plan
        raise needs_schema(needed_columns(plan.loaded.job, plan.spec.scoring.model))


def outcome_types(element: Any, planned: ElementPlan) -> tuple[Any, Any]:
    """Returns the types of what is scored and of what is rejected, as far as they are known."""
    if element in _BATCHES:
        return pa.RecordBatch, pa.RecordBatch
    if is_mapping(element):
        return dict[str, Any], dict[str, Any]
    try:
        fields = named_fields_from_schema(_beam_schema(element))
    except _UNKNOWN:
        return Any, Any
    # The names of reasons begin with an underscore, which Beam's schemas do not take.
    return _scored_rows(fields, planned), Any


def _scored_rows(fields: Sequence[tuple[str, Any]], planned: ElementPlan) -> Any:
    """Returns the type of scored rows; Any where a score's type is not known, or not Beam's."""
    kept, types = passed_names(planned.plan.loaded.job), planned.scores
    if types is None:
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
