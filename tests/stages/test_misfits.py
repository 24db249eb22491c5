"""A rejected row's detail names the column, the value that was found, and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.columnar.ragged import Varying
from batchscore.errors import StepError
from batchscore.stages.bisect import bisect
from batchscore.stages.block import Block, decode_block, encode_block, reject_non_finite
from batchscore.stages.misfits import given_texts
from batchscore.stages.preprocess import InputColumns, stack_columns
from batchscore.stages.scored_files import reject_unnamed
from batchscore.stages.trial import Trial
from batchscore.stages.write import reject_table
from tests.factory import make_batch, make_block

FLOAT = pa.float32()


def _details(block: Block) -> dict[int, tuple[str, str]]:
    return {
        row: (each.message, detail)
        for each in block.rejects
        for row, detail in zip(each.rows_r.to_pylist(), each.texts.to_pylist(), strict=True)
    }


def _stacked(inputs: Sequence[InputColumns], **columns: Any) -> dict[int, tuple[str, str]]:
    done = stack_columns(make_block(make_batch(**columns)), inputs)
    assert done.values is not None
    left = set(range(done.unit.rows)) - set(done.rows_b.to_pylist())
    assert done.values.num_rows == len(done)
    assert left == set(_details(done))
    return _details(done)


def test_a_null_and_an_integer_out_of_range_are_named() -> None:
    """Each has its own cause, and the detail has the value and the type's range."""
    inputs = [InputColumns("x", "int8", (2,), ("n", "m"))]
    n = pa.array([1, None, 300, None, 5], pa.int64())
    m = pa.array([1, 2, 3, None, -129], pa.int16())
    expected = "an integer from -128 to 127 (int8)"
    assert _stacked(inputs, n=n, m=m) == {
        1: ("column 'n' is null", "column 'n': null, expected a number (int8)"),
        2: ("column 'n' is out of the range of int8", f"column 'n': 300, expected {expected}"),
        3: ("column 'n' is null", "column 'n': null, expected a number (int8)"),
        4: ("column 'm' is out of the range of int8", f"column 'm': -129, expected {expected}"),
    }


def test_a_dictionary_of_numbers_is_refused_with_nulls_too() -> None:
    """It is not made of numbers, whether a value is null or not."""
    inputs = [InputColumns("x", "float32", (), ("n",))]
    for values in ([1, 2], [1, None]):
        with pytest.raises(StepError, match=r"dictionary.* is not made of numbers"):
            _stacked(inputs, n=pa.array(values).dictionary_encode())


def test_the_largest_uint64_is_shown_exactly() -> None:
    """An integer beyond 2**53 is not rounded."""
    inputs = [InputColumns("x", "int64", (1,), ("n",))]
    found = _stacked(inputs, n=pa.array([2**64 - 1, 1], pa.uint64()))
    assert "column 'n': 18446744073709551615, expected" in found[0][1]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda of: pa.list_(of, 2)])
def test_a_list_is_shown_by_its_length_or_its_item(kind: Any) -> None:
    """A list of another length, a null list, and a null or too large item have their own words."""
    lists = [[1, 2], [1, None], None, [400, 2]]
    if not pa.types.is_fixed_size_list(kind(pa.int64())):
        lists.append([1])
    found = _stacked([InputColumns("x", "int8", (2,), ("v",))], v=pa.array(lists, kind(pa.int64())))
    details = {row: detail for row, (_, detail) in found.items()}
    assert details[1] == "column 'v': null at place 1, expected a number (int8)"
    assert details[2] == "column 'v': null, expected a list of numbers"
    assert details[3].startswith("column 'v': 400 at place 0, expected an integer from -128")
    assert details.get(4) in (None, "column 'v': a list of 1, expected a list of 2 numbers")


def test_sequences_are_shown_by_their_steps() -> None:
    """Uneven and too long inputs have their steps, and a null step its place, also in vectors."""
    ids = InputColumns("ids", "int64", (), ("tokens",), Varying(2))
    mask = InputColumns("mask", "int64", (), ("mask",), Varying(2))
    vectors = InputColumns("x", "float32", (2,), ("v",), Varying(9))
    tokens = pa.array([[1], [1, 2], [1, 2, 3], [None]])
    found = _stacked([ids, mask], tokens=tokens, mask=pa.array([[1], [1], [1, 1, 1], [1]]))
    details = {row: detail for row, (_, detail) in found.items()}
    assert details == {
        1: "ids has 2, mask has 1 steps, expected as many of each",
        2: "column 'tokens': 3 steps, expected 2 steps at most",
        3: "column 'tokens': null at place 0, expected a number (int64)",
    }
    found = _stacked([vectors], v=pa.array([[[1.0, 2.0]], [[1.0, 2.0], [1.0, None]], [[1.0]]]))
    assert found[1][1] == "column 'v': null at place 1 at place 1, expected a number (float32)"
    assert found[2][1] == "column 'v': a list of 1 at place 0, expected a list of 2 numbers"


def test_one_step_is_one_step() -> None:
    """A limit of one has its right plural."""
    ids = InputColumns("ids", "int64", (), ("tokens",), Varying(1))
    ((message, detail),) = _stacked([ids], tokens=pa.array([[1, 2]])).values()
    assert "longer than 1 step, the model's" in message
    assert detail == "column 'tokens': 2 steps, expected 1 step at most"


def test_an_output_that_is_not_finite_is_named_with_its_value() -> None:
    """Of several outputs the first that is spoiled is named, a list's too; the message is one."""
    nan, inf = float("nan"), float("inf")
    values = make_batch(
        a=pa.array([1.0, nan, 1.0, 1.0, None]),
        b=pa.array([[1.0], [inf], [-inf], None, [2.0]], pa.list_(pa.float32())),
        text=pa.array([None] * 5, pa.string()),
    )
    block = make_block(make_batch(id=list(range(5))), values=values)
    done = reject_non_finite(block, "infer", "the model returned NaN or infinity")
    assert done.rows_b.to_pylist() == [0]
    assert {row: detail for row, (_, detail) in _details(done).items()} == {
        1: "output 'a': nan, expected a finite number",
        2: "output 'b': -inf, expected a finite number",
        3: "output 'b': null, expected a finite number",
        4: "output 'a': null, expected a finite number",
    }
    assert len(done.rejects) == 1


def test_an_input_that_is_not_finite_is_named_with_its_column() -> None:
    """The detail says which number spoiled the output: of a column, of a list, or of an input."""
    nan, inf = float("nan"), float("inf")
    stacked = pa.array([[1.0, nan], [inf, nan], [1.0, 2.0]], pa.list_(pa.float32(), 2))
    steps = pa.array([[[1.0]], [[1.0], [nan]], [[-inf], [nan]]], pa.large_list(pa.list_(FLOAT, 1)))
    inputs = pa.record_batch([stacked, steps], names=["x", "s"])
    reported = given_texts(inputs, {"x": ("a", "b"), "s": ("tokens",)}).to_pylist()
    assert reported == [
        "; the model was given nan for column 'b'",
        "; the model was given inf for column 'a'",
        "; the model was given -inf at place 0 of column 'tokens'",
    ]
    assert given_texts(inputs.slice(0, 1), {})[0].as_py() == (
        "; the model was given nan at place 1 of input 'x'"
    )
    fine = make_batch(x=[1.0, 2.0], n=[1, None])
    assert given_texts(fine, {"x": ("a",)}).to_pylist() == [
        "",
        "; the model was given null for input 'n'",
    ]


def test_a_functions_failure_is_shown_in_its_words() -> None:
    """The detail has the function and the error; it is bounded, and a key in it does not show."""

    def step(block: Block) -> Block:
        if 7 not in block.batch.column("id").to_pylist():
            return block
        cause = ValueError("no value at s3://key:hush@bucket/x " + "y" * 1000)
        raise StepError(f"function f.py:g raised ValueError: {cause}") from cause

    ids = make_batch(id=list(range(9)))
    block = make_block(ids, values=ids)
    ((message, detail),) = _details(
        bisect(block, "postprocess", step, 9, Trial(passed=True))
    ).values()
    assert message.startswith("no value")
    assert detail.startswith("function f.py:g raised ValueError")
    assert len(detail) <= 300
    assert "hush" not in detail + message


def test_a_text_that_is_not_utf8_is_shown_by_its_bytes() -> None:
    """What cannot be decoded is written as its bytes."""
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"a\xffb")]
    )
    block = make_block(make_batch(part=bad), values=make_batch(score=[0.0, 1.0]))
    done = reject_unnamed(block, ("part",))
    assert _details(done)[1][1] == "column 'part': \\xffb, expected valid UTF-8"


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([0, 2932897, None], pa.int32()).view(pa.date32()), {1: "10000-01-01"}),
        (pa.array([0, 2**60, None]).view(pa.timestamp("us")), {1: "38504-08-17T21:30:06.846976"}),
        # The afternoon in UTC is the next day in Tokyo, of a year that Python does not have.
        (
            pa.array([253402300799 - 28_800, 0, -62135596800]).view(
                pa.timestamp("s", "Asia/Tokyo")
            ),
            {0: "9999-12-31T15:59:59Z"},
        ),
        (pa.array([2**62, None, 0]).view(pa.timestamp("ns")), {}),
        (pa.nulls(3, pa.date32()), {}),
    ],
    ids=lambda each: str(getattr(each, "type", "")),
)
def test_a_date_that_no_folder_is_named_by_rejects_its_row(
    column: pa.Array, texts: dict[int, str]
) -> None:
    """One bad date does not fail the run: readers of folders know years from 1 to 9999."""
    block = make_block(make_batch(day=column), values=make_batch(score=[0.0] * 3))
    found = _details(reject_unnamed(block, ("day",)))
    expected = ", expected a year from 1 to 9999"
    assert {row: detail for row, (_, detail) in found.items()} == {
        row: f"column 'day': {text}{expected}" for row, text in texts.items()
    }


def test_details_travel_with_a_block() -> None:
    """A block that an engine encodes comes back with its rejects' details."""
    inputs = [InputColumns("x", "int8", (1,), ("n",))]
    done = stack_columns(make_block(make_batch(n=pa.array([1, None, 300]))), inputs)
    assert _details(decode_block(encode_block(done))) == _details(done)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_rejects_come_in_the_order_of_their_rows(size: int) -> None:
    """However many rows a block has, and whatever their causes, each keeps its own detail."""
    inputs = [InputColumns("x", "int8", (2,), ("n", "m"))]
    n, m = [1, 300, None, 400, None, 5], [None, 1, 1, 1, None, 500]
    rows = make_batch(id=list(range(6)), n=pa.array(n), m=pa.array(m))
    whole, found = make_block(rows), list[dict[str, Any]]()
    for start in range(0, 6, size):
        rows_b = whole.rows_b.slice(start, size)
        part = replace(whole, rows_b=rows_b, batch=whole.batch.slice(start, size))
        found += reject_table(stack_columns(part, inputs).rejects, whole.unit).to_pylist()
    reported = [each["_detail"].partition(", expected")[0] for each in found]
    assert [each["id"] for each in found] == [each["_row"] for each in found] == list(range(6))
    assert reported == [
        f"column {name!r}: {value}"
        for name, value in zip("mnnnnm", ("null", 300, "null", 400, "null", 500), strict=True)
    ]
