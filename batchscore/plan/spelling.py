"""What decides scores as plain JSON values, chosen field by field, so that they never change.

Hashes of them name the ledgers of published outputs. A dataclass that is renamed, or another
version of pyarrow or pydantic, may not alter what is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from batchscore.job import AnyStep, Preprocess
from batchscore.job.field_types import Filters, Scalar
from batchscore.stages.preprocess import InputColumns

_PLAIN: Mapping[pa.DataType, str] = MappingProxyType(
    {
        pa.null(): "null",
        pa.bool_(): "bool",
        pa.int8(): "int8",
        pa.int16(): "int16",
        pa.int32(): "int32",
        pa.int64(): "int64",
        pa.uint8(): "uint8",
        pa.uint16(): "uint16",
        pa.uint32(): "uint32",
        pa.uint64(): "uint64",
        pa.float16(): "float16",
        pa.float32(): "float32",
        pa.float64(): "float64",
        pa.date32(): "date32",
        pa.date64(): "date64",
        pa.string(): "string",
        pa.large_string(): "large_string",
        pa.string_view(): "string_view",
        pa.binary(): "binary",
        pa.large_binary(): "large_binary",
        pa.binary_view(): "binary_view",
    }
)
_Parts = Callable[[Any], list[Any]]
_COMPOSED: tuple[tuple[Callable[[pa.DataType], bool], str, _Parts], ...] = (
    (pa.types.is_timestamp, "timestamp", lambda t: [t.unit, t.tz]),
    (pa.types.is_time32, "time32", lambda t: [t.unit]),
    (pa.types.is_time64, "time64", lambda t: [t.unit]),
    (pa.types.is_duration, "duration", lambda t: [t.unit]),
    (pa.types.is_decimal, "decimal", lambda t: [t.bit_width, t.precision, t.scale]),
    (pa.types.is_fixed_size_binary, "fixed_size_binary", lambda t: [t.byte_width]),
    (pa.types.is_list, "list", lambda t: _item(t.value_field)),
    (pa.types.is_large_list, "large_list", lambda t: _item(t.value_field)),
    (
        pa.types.is_fixed_size_list,
        "fixed_size_list",
        lambda t: [t.list_size, *_item(t.value_field)],
    ),
    (pa.types.is_struct, "struct", lambda t: [_field(field) for field in t]),
    (pa.types.is_map, "map", lambda t: [spell_type(t.key_type), *_item(t.item_field)]),
    (
        pa.types.is_dictionary,
        "dictionary",
        lambda t: [spell_type(t.index_type), spell_type(t.value_type), t.ordered],
    ),
)


def spell_schema(schema: pa.Schema) -> list[Any]:
    """Returns the columns in order: name, type, and whether they may hold nulls."""
    return [_field(field) for field in schema]


def _field(field: pa.Field) -> list[Any]:
    return [field.name, *_item(field)]


def _item(field: pa.Field) -> list[Any]:
    return [spell_type(field.type), field.nullable]


def spell_type(kind: pa.DataType) -> Any:
    """Returns a type as a name, or as a list of its family and what tells it from its siblings."""
    if isinstance(kind, pa.BaseExtensionType):
        return ["extension", kind.extension_name, spell_type(kind.storage_type)]
    if kind in _PLAIN:
        return _PLAIN[kind]
    for matches, family, parts in _COMPOSED:
        if matches(kind):
            return [family, *parts(kind)]
    # Types that no Parquet file of today holds: only here does pyarrow choose the words.
    return ["other", str(kind)]


def spell_inputs(inputs: Iterable[InputColumns]) -> list[Any]:
    """Returns the model inputs in order: name, type, shape, columns, and how lengths vary."""
    return [_spell_input(each) for each in inputs]


def _spell_input(each: InputColumns) -> list[Any]:
    spelled = [each.name, each.dtype, list(each.shape), list(each.columns), _varying(each)]
    return spelled if each.missing is None else [*spelled, each.missing]


def _varying(each: InputColumns) -> list[Any] | None:
    varying = each.varying
    return [varying.max_length, varying.pad, varying.truncate] if varying else None


def spell_filters(filters: Filters) -> list[Any]:
    """Returns the job's filters, in which a date differs from a text of its digits."""
    return [[[name, operator, _value(value)] for name, operator, value in g] for g in filters]


def _value(value: Scalar | tuple[Scalar, ...]) -> Any:
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return value


def spell_preprocess(section: Preprocess | None) -> dict[str, Any] | None:
    """Returns what a job says of its function before the model."""
    if section is None:
        return None
    columns = None if section.columns is None else list(section.columns)
    return {"function": section.function, "batch": section.batch, "columns": columns}


def spell_steps(steps: Iterable[AnyStep]) -> list[Any]:
    """Returns the steps after the model, in order, each under its name in the job file."""
    return [{step.key: step.spell()} for step in steps]
