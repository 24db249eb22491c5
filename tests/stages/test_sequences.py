"""Test that lists of varying length become model inputs, and which rows have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.ragged import Varying
from batchscore.errors import StepError
from batchscore.stages.block import Block, decode_block, encode_block
from batchscore.stages.preprocess import InputColumns, stack_columns
from tests.factory import make_batch, make_block

LONGEST = 5
IDS = InputColumns("ids", "int64", (), ("tokens",), Varying(LONGEST))
MASK = InputColumns("mask", "int64", (), ("mask",), Varying(LONGEST))
VECTORS = InputColumns("x", "float32", (2,), ("v",), Varying(LONGEST))


def _stack(inputs: Sequence[InputColumns] = (IDS,), **columns: pa.Array) -> Block:
    return stack_columns(make_block(make_batch(**columns)), inputs)


def _values(block: Block, name: str = "ids") -> list[Any]:
    assert block.values is not None
    values: list[Any] = block.values.column(name).to_pylist()
    return values


def _rejected(block: Block) -> dict[int, str]:
    return {row: each.message for each in block.rejects for row in each.rows_r.to_pylist()}


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.list_(pa.int32()),
        pa.large_list(pa.uint8()),
        pa.list_(pa.int16(), 2),
        pa.list_(pa.bool_()),
    ],
    ids=str,
)
def test_lists_of_any_kind_are_taken(kind: pa.DataType) -> None:
    """Lists of integers become lists of the input's own type, also from a slice."""
    tokens = pa.array([[0, 1], [1, 1], [1, 0], [0, 0]]).cast(kind)[1:3]
    done = _stack(tokens=tokens)
    assert done.values is not None
    assert done.values.column("ids").type == pa.large_list(pa.int64())
    assert _values(done) == [[1, 1], [1, 0]]


def test_an_empty_list_is_a_row() -> None:
    """A row without a step is scored: what it means is for the model to say."""
    assert _values(_stack(tokens=pa.array([[], [3], []], pa.list_(pa.int64())))) == [[], [3], []]


def test_tokens_are_not_copied() -> None:
    """Where the column has the input's type, the input shares its memory."""
    tokens = pa.array([[1, 2], [3]], pa.list_(pa.int64()))
    done = _stack(tokens=tokens)
    assert done.values is not None
    buffers = [pc.list_flatten(c).buffers()[1] for c in (done.values.column("ids"), tokens)]
    assert len({buffer.address for buffer in buffers if buffer is not None}) == 1


def test_what_is_hidden_under_a_null_is_no_rows() -> None:
    """A null list may have numbers in the column's memory; other rows keep their own fate."""
    offsets = pa.array([0, 2, 4, 6], pa.int32())
    numbers = pa.array([1, 2, None, 4, 5, None], pa.int64())
    tokens = pa.ListArray.from_arrays(offsets, numbers, mask=pa.array([False, True, False]))
    for column, good in ((tokens, [0]), (tokens[1:], []), (tokens[:2], [0])):
        done = _stack(tokens=column)
        assert done.rows_b.to_pylist() == good
        assert len(_rejected(done)) == len(column) - len(good)


@pytest.mark.parametrize("wanted", [IDS, replace(IDS, dtype="float32"), VECTORS], ids=str)
@pytest.mark.parametrize(
    ("column", "good"),
    [
        (pa.nulls(2), []),
        (pa.array([[], None, []]), [0, 2]),
        (pa.array([[], [None]]), [0]),
        (pa.array([[], None], pa.large_list(pa.null())), [0]),
        (pa.array([[None], None], pa.list_(pa.null(), 1)), []),
        (pa.array([[], [[]], [[None]]]), [0]),
    ],
    ids=lambda given: str(getattr(given, "type", "")),
)
def test_a_batch_without_any_number_is_taken(
    wanted: InputColumns, column: pa.Array, good: list[int]
) -> None:
    """Lists that are all empty or null have no type: they are rows as in any other batch."""
    if wanted is not VECTORS and column.type == pa.list_(pa.list_(pa.null())):
        pytest.skip("vectors are no tokens in any batch")
    done = _stack([wanted], **{wanted.columns[0]: column})
    assert done.rows_b.to_pylist() == good
    assert _values(done, wanted.name) == [[]] * len(good)
    assert done.values is not None
    step = pa.from_numpy_dtype(wanted.dtype)
    for width in wanted.shape:
        step = pa.list_(step, width)
    assert done.values.column(0).type == pa.large_list(step)


TOKENS = st.none() | st.lists(st.none() | st.integers(-(2**40), 2**40), max_size=LONGEST + 2)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(TOKENS, max_size=12), st.integers(0, 3), st.booleans())
def test_rows_without_a_proper_list_are_rejected_and_no_others(
    rows: list[list[int | None] | None], skip: int, cut: bool
) -> None:
    """A null, a null inside, a number too large, and too many steps unless these are cut off."""
    wanted = replace(IDS, dtype="int32", varying=Varying(LONGEST, truncate=cut))
    done = _stack([wanted], tokens=pa.array(rows, pa.list_(pa.int64()))[skip:])
    rows = rows[skip:]
    good = [
        number
        for number, row in enumerate(rows)
        if row is not None
        and all(each is not None and -(2**31) <= each < 2**31 for each in row)
        and (cut or len(row) <= LONGEST)
    ]
    assert done.rows_b.to_pylist() == good
    assert sorted(_rejected(done)) == [n for n in range(len(rows)) if n not in good]
    assert _values(done) == [(rows[n] or [])[:LONGEST] for n in good]


VECTOR = st.none() | st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=3)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.none() | st.lists(VECTOR, max_size=3), max_size=8))
def test_steps_may_be_vectors(rows: list[Any]) -> None:
    """Each step must have all of its numbers, or its row is rejected."""
    done = _stack([VECTORS], v=pa.array(rows, pa.list_(pa.list_(pa.float64()))))
    good = [
        number
        for number, row in enumerate(rows)
        if row is not None and all(step and len(step) == 2 and None not in step for step in row)
    ]
    assert done.rows_b.to_pylist() == good
    assert _values(done, "x") == [rows[n] for n in good]
    assert done.values is not None
    assert done.values.column("x").type == pa.large_list(pa.list_(pa.float32(), 2))


def test_inputs_that_differ_in_length_are_rejected() -> None:
    """Tokens and mask of one row are equally long, or the row is rejected for its own reason."""
    done = _stack(
        [IDS, MASK],
        tokens=pa.array([[1], [1, 2], [], list(range(6)), None], pa.list_(pa.int64())),
        mask=pa.array([[1], [1], [1], [1] * 6, [1]], pa.list_(pa.int8())),
    )
    assert done.rows_b.to_pylist() == [0]
    found = _rejected(done)
    uneven = "the model inputs ids and mask are not equally long in this row"
    assert [found[1], found[2]] == [uneven, uneven]
    assert "longer than 5 steps, the model's max_length" in found[3]
    assert found[4] == "column 'tokens' is null"


def test_a_row_that_differs_is_not_made_even_by_cutting() -> None:
    """Two lists that are both too long still have to be equally long."""
    inputs = [replace(each, varying=Varying(2, truncate=True)) for each in (IDS, MASK)]
    kind = pa.list_(pa.int64())
    done = _stack(
        inputs, tokens=pa.array([[1] * 3, [1] * 3], kind), mask=pa.array([[1] * 4, [1] * 3], kind)
    )
    assert done.rows_b.to_pylist() == [1]
    assert _values(done, "mask") == [[1, 1]]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (
            pa.array([1]),
            "'tokens' is int64, and the input takes one list per row, of varying length",
        ),
        (pa.array(["a b"]), "takes one list per row"),
        (pa.array([[0.5]]), "takes int64; cast it"),
        (pa.array([["a"]]), "takes int64; cast it"),
    ],
    ids=["number", "text", "fractions", "texts"],
)
def test_a_column_without_lists_of_such_numbers_is_reported(tokens: pa.Array, words: str) -> None:
    """What a function returned in another form is a StepError with the column's name."""
    with pytest.raises(StepError, match=words):
        _stack(tokens=tokens)


def test_lists_survive_a_blocks_packing() -> None:
    """Should an engine cut the stage apart, a slice of the inputs is packed and read again."""
    done = _stack(tokens=pa.array([[1], [2, 3], [], [4]], pa.list_(pa.int64())))
    assert done.values is not None
    part = make_block(done.batch[1:3], values=done.values[1:3])
    back = decode_block(encode_block(part))
    assert _values(back) == [[2, 3], []]
