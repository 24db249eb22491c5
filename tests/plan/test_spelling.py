"""Test that what is hashed is spelled in words of our own, which never change."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest

from batchscore.columnar.ragged import Varying
from batchscore.job import (
    AnyStep,
    Labels,
    Preprocess,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
    UserFunction,
)
from batchscore.plan.spelling import (
    spell_filters,
    spell_inputs,
    spell_preprocess,
    spell_schema,
    spell_steps,
    spell_type,
)
from batchscore.stages.preprocess import InputColumns

PLAIN = [
    "null",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "date32",
    "date64",
    "string",
    "large_string",
    "string_view",
    "binary",
    "large_binary",
    "binary_view",
]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_type_is_spelled_as_its_constructor(name: str) -> None:
    """`float64`, where Arrow's own text says double."""
    assert spell_type(getattr(pa, name)()) == name


@pytest.mark.parametrize(
    ("kind", "spelled"),
    [
        (pa.bool_(), "bool"),
        (pa.timestamp("us", "UTC"), ["timestamp", "us", "UTC"]),
        (pa.timestamp("ns"), ["timestamp", "ns", None]),
        (pa.time32("ms"), ["time32", "ms"]),
        (pa.time64("us"), ["time64", "us"]),
        (pa.duration("s"), ["duration", "s"]),
        (pa.decimal128(20, 6), ["decimal", 128, 20, 6]),
        (pa.decimal256(40, 6), ["decimal", 256, 40, 6]),
        (pa.binary(16), ["fixed_size_binary", 16]),
        (pa.list_(pa.int8()), ["list", "int8", True]),
        (pa.list_(pa.field("element", pa.int8(), False)), ["list", "int8", False]),
        (pa.large_list(pa.string()), ["large_list", "string", True]),
        (pa.list_(pa.float32(), 3), ["fixed_size_list", 3, "float32", True]),
        (
            pa.struct([pa.field("a", pa.int8()), pa.field("b", pa.list_(pa.bool_()), False)]),
            ["struct", ["a", "int8", True], ["b", ["list", "bool", True], False]],
        ),
        (pa.map_(pa.string(), pa.int8()), ["map", "string", "int8", True]),
        (pa.dictionary(pa.int8(), pa.string()), ["dictionary", "int8", "string", False]),
        (pa.uuid(), ["extension", "arrow.uuid", ["fixed_size_binary", 16]]),
        (pa.json_(), ["extension", "arrow.json", "string"]),
    ],
)
def test_a_composed_type_is_a_list(kind: pa.DataType, spelled: Any) -> None:
    """Its family comes first, then what tells it from its siblings."""
    assert spell_type(kind) == spelled


def test_types_that_differ_are_spelled_differently() -> None:
    """Names of items, which one writer calls item and another element, are no difference."""
    kinds = [pa.list_(pa.int8()), pa.list_(pa.int16()), pa.large_list(pa.int8()), pa.int8()]
    assert len({json.dumps(spell_type(kind)) for kind in kinds}) == 4
    assert spell_type(pa.list_(pa.field("element", pa.int8()))) == spell_type(kinds[0])


def test_a_schema_is_its_columns_in_order() -> None:
    """Each with its name, its type, and whether it may be null; metadata is left out."""
    schema = pa.schema(
        [pa.field("a", pa.int8(), False, {"k": "v"}), ("b", pa.string())], {"m": "n"}
    )
    assert spell_schema(schema) == [["a", "int8", False], ["b", "string", True]]


def test_inputs_are_spelled_by_position() -> None:
    """Name, type, shape, columns; then what holds for a length of each row's own."""
    plain = InputColumns("x", "float32", (2,), ("a", "b"))
    varying = InputColumns("ids", "int64", (), ("tokens",), Varying(4, 0, True))
    assert spell_inputs([plain, varying]) == [
        ["x", "float32", [2], ["a", "b"], None],
        ["ids", "int64", [], ["tokens"], [4, 0, True]],
    ]


def test_values_of_filters_keep_their_kind() -> None:
    """A date is no text, and 1 is neither 1.0 nor true."""
    moment = datetime(2026, 1, 2, 3, 4, 5)
    filters = (
        (("on", ">=", date(2026, 1, 2)), ("at", "<", moment)),
        (("a", "in", (1, 1.0, True, "2026-01-02")),),
    )
    assert json.dumps(spell_filters(filters)) == (
        '[[["on", ">=", {"date": "2026-01-02"}], ["at", "<", {"datetime": "2026-01-02T03:04:05"}]],'
        ' [["a", "in", [1, 1.0, true, "2026-01-02"]]]]'
    )
    assert spell_filters(()) == []


def test_the_function_before_the_model_is_spelled_with_what_it_takes() -> None:
    """Without one there is nothing."""
    section = Preprocess(function="f.py:f", batch="pandas", columns=("a",))
    spelled = {"function": "f.py:f", "batch": "pandas", "columns": ["a"]}
    assert (spell_preprocess(section), spell_preprocess(None)) == (spelled, None)


def test_steps_are_spelled_under_their_names() -> None:
    """A sigmoid and a softmax of the same output are two."""
    steps: list[AnyStep] = [
        Sigmoid(output="a", name="b"),
        Softmax(),
        TopK(k=2, labels=("x", "y")),
        Threshold(at=1),
        Labels(labels=("no", "yes")),
        UserFunction(function="f.py:f", batch="arrow"),
    ]
    assert spell_steps(steps) == [
        {"sigmoid": {"output": "a", "name": "b"}},
        {"softmax": {"output": None, "name": None}},
        {"top_k": {"output": None, "k": 2, "labels": ["x", "y"], "name": "top"}},
        {"threshold": {"output": None, "at": 1.0, "name": "decision"}},
        {"labels": {"output": None, "labels": ["no", "yes"], "name": "label"}},
        {"function": {"function": "f.py:f", "batch": "arrow"}},
    ]
