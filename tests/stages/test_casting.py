"""Columns in declared types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchscore.errors import InputError
from batchscore.stages.casting import cast_block, check_castable, plain_type
from tests.factory import make_batch, make_block


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.uuid(), pa.binary(16)),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.list_(pa.string())),
        (pa.float32(), pa.float32()),
    ],
)
def test_stages_see_neither_dictionaries_nor_extensions(
    kind: pa.DataType, plain: pa.DataType
) -> None:
    """At any depth, as when a file is read."""
    assert plain_type(kind) == plain


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [
        (pa.int64(), pa.int8(), True),
        (pa.int32(), pa.float64(), True),
        (pa.float64(), pa.float32(), True),
        (pa.string(), pa.large_string(), True),
        (pa.timestamp("ns"), pa.timestamp("us"), True),
        (pa.null(), pa.string(), True),
        (pa.list_(pa.int64()), pa.large_list(pa.float32()), True),
        (pa.binary(), pa.large_binary(), True),
        (pa.decimal128(5, 2), pa.decimal128(7, 2), True),
        (pa.list_(pa.string()), pa.list_(pa.int64()), False),
        (pa.struct([("x", pa.int8())]), pa.struct([("x", pa.int16())]), False),
        (pa.timestamp("us"), pa.timestamp("us", tz="UTC"), False),
        (pa.float64(), pa.int64(), False),
        (pa.string(), pa.int64(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.int64(), pa.timestamp("s"), False),
        (pa.date32(), pa.timestamp("s"), False),
    ],
)
def test_only_values_of_one_kind_are_cast(
    found: pa.DataType, wanted: pa.DataType, fits: bool
) -> None:
    """A text is no number, a fraction no integer, and a number no instant, whatever Arrow casts."""
    if fits:
        check_castable("x", found, wanted)
        return
    with pytest.raises(InputError, match=r"column 'x' of a batch is .* declared in schema"):
        check_castable("x", found, wanted)


def test_each_row_leaves_once_with_its_first_value_that_does_not_fit() -> None:
    """Others keep their order; in the rejected row the value is null, and the reason shows it."""
    batch = make_batch(a=[1, 300, 3, 301], b=[2**40, 2, 3, 2**41], c=["w", "x", "y", "z"])
    schema = pa.schema([("b", pa.int32()), ("a", pa.int8()), ("c", pa.large_string())])
    done = cast_block(make_block(batch), schema)
    assert done.batch.to_pylist() == [{"b": 3, "a": 3, "c": "y"}]
    found = [
        (row, text, names)
        for each in done.rejects
        for row, text, names in zip(
            each.rows_r.to_pylist(), each.texts.to_pylist(), each.batch.to_pylist(), strict=True
        )
    ]
    assert found == [
        (0, "column 'b': 1099511627776, expected int32", {"b": None, "a": 1, "c": "w"}),
        (3, "column 'b': 2199023255552, expected int32", {"b": None, "a": None, "c": "z"}),
        (1, "column 'a': 300, expected int8", {"b": 2, "a": None, "c": "x"}),
    ]
    assert {each.stage for each in done.rejects} == {"cast"}


def test_a_float_that_is_too_large_is_rejected() -> None:
    """It would become infinite; others are rounded, and infinity itself stays."""
    batch = make_batch(a=pa.array([0.1, 1e300, None, float("-inf"), 70_000.0]))
    schema = pa.schema([("a", pa.float32())])
    done = cast_block(make_block(batch), schema)
    rounded = float(np.float32(0.1))
    assert done.batch.column("a").to_pylist() == [rounded, None, float("-inf"), 70_000.0]
    assert done.rejects[0].texts.to_pylist() == ["column 'a': 1e+300, expected float"]
    half = cast_block(make_block(batch), pa.schema([("a", pa.float16())]))
    assert half.rejects[0].rows_r.to_pylist() == [1, 4]


def test_a_list_leaves_with_its_row() -> None:
    """One of its values does not fit."""
    batch = make_batch(a=[[1], [2, 300], None])
    done = cast_block(make_block(batch), pa.schema([("a", pa.list_(pa.int8()))]))
    assert done.batch.to_pylist() == [{"a": [1]}, {"a": None}]
    assert done.rejects[0].batch.to_pylist() == [{"a": None}]


def test_a_batch_of_the_types_stays_as_it_is() -> None:
    """Nothing is copied."""
    block = make_block(make_batch(a=[1], b=["x"]))
    assert cast_block(block, block.batch.schema) is block
