"""Types of training's columns: how a card names them, and which columns are of them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batchscore.models.trained_types import is_as_trained, trained_columns, trained_type

NAMES = {
    "int8": pa.int8(),
    "uint64": pa.uint64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "decimal": pa.decimal128(9, 2),
    "bool": pa.bool_(),
    "text": pa.dictionary(pa.int8(), pa.string_view()),
    "list of float32": pa.list_(pa.list_(pa.float32(), 2), 3),
    "date32[day]": pa.date32(),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_type_has_a_name_of_its_own(name: str) -> None:
    """A card names numbers as it does for inputs, and lists of lists by their numbers."""
    assert trained_type(NAMES[name]) == name
    assert is_as_trained(NAMES[name], name)


def test_columns_are_recorded_in_their_order() -> None:
    """The order is that of the input, not of the table."""
    schema = pa.schema({"b": pa.int64(), "a": pa.large_string()})
    assert trained_columns(schema, ["a", "b"]) == {
        "columns": ["a", "b"],
        "types": ["text", "int64"],
    }


@pytest.mark.parametrize(
    ("kind", "trained", "fits"),
    [
        (pa.float64(), "int64", True),
        (pa.bool_(), "float32", True),
        (pa.decimal64(9, 2), "float64", True),
        (pa.list_(pa.int8(), 4), "list of float64", True),
        (pa.string(), "int64", False),
        (pa.int64(), "text", False),
        (pa.list_(pa.float32()), "float32", False),
        (pa.list_(pa.string()), "list of float32", False),
        (pa.timestamp("us"), "int64", False),
    ],
    ids=str,
)
def test_a_number_is_as_good_as_another(kind: pa.DataType, trained: str, fits: bool) -> None:
    """Numbers go for numbers, and lists of them for such lists; nothing else for another type."""
    assert is_as_trained(kind, trained) is fits
