"""Test that model inputs are the columns' numbers, and that rows which have none are rejected."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.columnar.arrays import to_arrow, to_numpy
from batchscore.errors import StepError
from batchscore.models.backends.torch.forward import Forward
from batchscore.stages.infer import infer
from batchscore.stages.preprocess import InputColumns, encode_features, stack_columns
from tests.factory import make_batch, make_block

AB = InputColumns("x", "float32", (2,), ("a", "b"))


def _values(block: Any, name: str = "x") -> Any:
    return to_numpy(block.values.column(name))


def _rejected(block: Any) -> list[int]:
    return [row for reject in block.rejects for row in reject.rows_r.to_pylist()]


@pytest.mark.parametrize(("rows", "columns"), [(1, 40), (4_096, 40), (4_097, 40), (70_000, 2)])
def test_many_columns_and_rows_are_stacked_side_by_side(rows: int, columns: int) -> None:
    """Each row of the input has the row's values in the order of the columns."""
    names = tuple(f"c{number}" for number in range(columns))
    values_bf = np.arange(rows * columns).reshape(rows, columns) % 10_007
    batch = make_batch(**{name: values_bf[:, place] for place, name in enumerate(names)})
    block = stack_columns(make_block(batch), [InputColumns("x", "float32", (columns,), names)])
    np.testing.assert_array_equal(_values(block), values_bf)


@pytest.mark.parametrize(
    "made",
    [
        {"a": [1.0, 2.0], "b": [3.0, 4.0]},
        {"x": [[1.0, 3.0], [2.0, 4.0]]},
        {"a": [0.0, 0.0], "b": [0.0, 0.0], "x": [[1.0, 3.0], [2.0, 4.0]]},
    ],
    ids=["columns", "input", "both"],
)
def test_a_function_makes_the_input_or_the_columns_that_the_card_names(
    made: dict[str, Any],
) -> None:
    """The input itself comes first, since only a function makes it."""
    wanted = InputColumns("x", "float32", (2,), ("x",), made_of=("a", "b"))
    block = stack_columns(
        make_block(make_batch(t=[0, 0])), [wanted], lambda _: pa.record_batch(made)
    )
    assert _values(block).tolist() == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize("rows", [1, 4095, 4096, 4097, 9000])
def test_columns_are_stacked_side_by_side(rows: int) -> None:
    """Row by row the input holds the columns' numbers in the declared order and type."""
    a, b = np.arange(rows, dtype=np.int16) % 99, np.linspace(0, 1, rows)
    block = stack_columns(make_block(make_batch(b=b, a=a)), [AB])
    expected = np.stack([a.astype(np.float32), b.astype(np.float32)], axis=1)
    assert _values(block).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, False]), [1, 0]),
        (pa.array([1, 2], pa.uint8()), [1, 2]),
        (pa.array([1.5, 2.5], pa.float16()), [1.5, 2.5]),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal("-3")]), [1.25, -3]),
    ],
    ids=["bool", "uint8", "float16", "decimal"],
)
def test_any_numbers_become_the_declared_type(column: pa.Array, expected: list[float]) -> None:
    """Booleans, integers, floats and decimals are cast, alone and with another column."""
    batch = make_batch(a=column, b=[0.0, 0.0])
    alone = stack_columns(make_block(batch), [InputColumns("x", "float32", (), ("a",))])
    assert _values(alone).dtype == np.float32
    assert _values(alone).tolist() == expected
    assert _values(stack_columns(make_block(batch), [AB]))[:, 0].tolist() == expected


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 4)],
    ids=str,
)
def test_a_list_column_is_reshaped(kind: pa.DataType) -> None:
    """A list of four numbers a row is an input of shape 2 by 2, also from a slice."""
    whole = pa.array([[float(4 * r + c) for c in range(4)] for r in range(6)], kind)
    block = make_block(make_batch(v=whole)[2:5])
    done = stack_columns(block, [InputColumns("x", "float32", (2, 2), ("v",))])
    assert _values(done).tolist() == np.arange(8, 20).reshape(3, 2, 2).tolist()


def test_lists_among_several_columns_reject_their_rows() -> None:
    """A list and a number cannot be stacked; where no row is left, none is."""
    lists = pa.array([[1.0, 2.0, 3.0]] * 2, pa.list_(pa.float64(), 3))
    done = stack_columns(make_block(pa.record_batch({"a": pa.array([1.0, 2.0]), "b": lists})), [AB])
    assert _rejected(done) == [0, 1]
    assert _values(done).shape == (0, 2)


def test_a_column_of_single_numbers_is_named() -> None:
    """A number per row cannot fill an input of two, such as where a function makes no lists."""
    block, wanted = make_block(make_batch(a=[1.0, 2.0])), InputColumns("x", "float32", (2,), ("a",))
    with pytest.raises(StepError, match="takes 2 values per row, and column 'a' has one"):
        stack_columns(block, [wanted])


def test_several_columns_of_lists_are_named() -> None:
    """Lists as long as the columns are many are refused: they would make one more dimension."""
    lists = pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64(), 2))
    with pytest.raises(StepError, match="column 'a' holds lists"):
        stack_columns(make_block(pa.record_batch({"a": lists, "b": lists})), [AB])


def test_a_single_column_shares_its_memory() -> None:
    """Numbers of the input's own type are not copied."""
    block = make_block(make_batch(v=to_arrow(np.arange(12, dtype=np.float32).reshape(3, 4))))
    wanted = InputColumns("x", "float32", (2, 2), ("v",))
    done = _values(stack_columns(block, [wanted]))
    assert done.tolist() == np.arange(12).reshape(3, 2, 2).tolist()
    assert np.shares_memory(done, to_numpy(block.batch.column("v")))


def test_columns_make_an_input_of_any_shape() -> None:
    """Four columns fill an input of shape 2 by 2 row by row."""
    batch = make_batch(**{name: [float(i)] for i, name in enumerate("abcd")})
    done = stack_columns(make_block(batch), [InputColumns("x", "float64", (2, 2), tuple("abcd"))])
    assert _values(done).tolist() == [[[0, 1], [2, 3]]]


def test_a_network_that_writes_to_its_inputs_reaches_no_source_column() -> None:
    """What it sees is a copy, also where the input shares the column's memory."""
    numbers = np.zeros(3_000, np.float32)
    block = make_block(make_batch(a=to_arrow(numbers)))
    inputs = stack_columns(block, [InputColumns("x", "float32", (), ("a",))])
    assert np.shares_memory(_values(inputs), numbers)
    done = infer(inputs, Forward(lambda tensors: tensors["x"].add_(1), (), "cpu", 2))
    assert _values(done, "score").tolist() == [1.0] * 3_000
    assert not numbers.any()


LISTS = st.one_of(
    st.none(),
    st.lists(st.none() | st.floats(-9, 9), min_size=2, max_size=2),
    st.lists(st.floats(-9, 9), max_size=3),
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 9), LISTS), max_size=12), st.integers(0, 3))
def test_rows_without_all_numbers_are_rejected_and_no_others(
    rows: list[tuple[int | None, list[float | None] | None]], skip: int
) -> None:
    """A null, a null list, a list of another length or with a null rejects its own row only."""
    batch = make_batch(
        a=pa.array([a for a, _ in rows], pa.int64()),
        v=pa.array([v for _, v in rows], pa.list_(pa.float64())),
    )[skip:]
    rows = rows[skip:]
    inputs = [InputColumns("x", "float32", (), ("a",)), InputColumns("y", "float64", (2,), ("v",))]
    done = stack_columns(make_block(batch), inputs)
    good = [
        number
        for number, (a, v) in enumerate(rows)
        if a is not None and v is not None and len(v) == 2 and None not in v
    ]
    assert done.rows_b.to_pylist() == good
    assert sorted(_rejected(done)) == [n for n in range(len(rows)) if n not in good]
    assert _values(done, "x").tolist() == [rows[n][0] for n in good]
    assert _values(done, "y").tolist() == [rows[n][1] for n in good]


@pytest.mark.parametrize(
    "lists",
    [[None, [1.0, 2.0]], [[None, 1.0], [1.0, 2.0]], [None, [1.0, None], [3.0, 4.0]]],
    ids=str,
)
def test_nulls_in_fixed_lists_reject_their_rows(lists: list[Any]) -> None:
    """A fixed-size list that is null, or holds a null, is rejected; the others keep their place."""
    batch = make_batch(v=pa.array(lists, pa.list_(pa.float32(), 2)))
    done = stack_columns(make_block(batch), [InputColumns("x", "float32", (2,), ("v",))])
    assert _values(done).tolist() == lists[-1:]
    assert _rejected(done) == list(range(len(lists) - 1))


def test_nan_is_left_to_the_model() -> None:
    """A NaN is a number: what it does to a score is checked once there is one."""
    block = make_block(make_batch(a=[math.nan, 1.0], b=[0.0, 0.0]))
    done = stack_columns(block, [AB])
    assert len(done) == 2
    assert not done.rejects


def test_a_function_precedes_the_stacking() -> None:
    """Columns are taken from what the function returned, the block's own stay as they were."""

    def make(batch: pa.RecordBatch) -> pa.RecordBatch:
        return make_batch(a=[None, 2, 3], b=[1, 2, 3])

    block = make_block(make_batch(t=["u", "v", "w"]))
    done = stack_columns(block, [AB], make)
    assert _values(done).tolist() == [[2, 2], [3, 3]]
    assert done.batch.to_pydict() == {"t": ["v", "w"]}
    assert done.rejects[0].batch.to_pydict() == {"t": ["u"]}
    assert done.rejects[0].stage == "preprocess"


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"a": [1]}, "'b'"), ({"a": [1], "b": ["text"]}, "'b'.*expected numbers")],
    ids=["missing", "text"],
)
def test_what_a_function_left_out_or_made_of_text_is_named(
    columns: dict[str, list[Any]], words: str
) -> None:
    """A column that is missing, or not made of numbers, is a StepError with its name."""
    with pytest.raises(StepError, match=words):
        stack_columns(make_block(make_batch(t=["u"])), [AB], lambda _: make_batch(**columns))


def test_fitted_features_become_the_inputs() -> None:
    """What the encoder returns by name are the block's values; its rows stay."""
    block = make_block(make_batch(a=[1.0, 2.0]))
    done = encode_features(block, lambda batch: {"x": batch.column("a"), "y": pa.array([7, 8])})
    assert done.values.to_pydict() == {"x": [1.0, 2.0], "y": [7, 8]}  # type: ignore[union-attr]
    assert done.batch == block.batch


@pytest.mark.parametrize(
    ("values", "dtype", "kept"),
    [([1, 2**31, -(2**31), 2**40], "int32", [1, -(2**31)]), ([-1, 255, 256], "uint8", [255])],
)
def test_integers_that_the_input_cannot_hold_are_rejected(
    values: list[int], dtype: str, kept: list[int]
) -> None:
    """A number never wraps round into another: its row is rejected."""
    block = make_block(make_batch(a=pa.array(values, pa.int64())))
    done = stack_columns(block, [InputColumns("x", dtype, (), ("a",))])
    assert _values(done).tolist() == kept
    assert len(_rejected(done)) == len(values) - len(kept)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [([1.5], "int64"), ([1], "bool"), ([True], "int8")],
    ids=["float-int", "int-bool", "bool-int"],
)
def test_kinds_of_numbers(column: list[Any], dtype: str) -> None:
    """A fraction is no integer, and a number no boolean; a boolean is 0 or 1."""
    block, wanted = make_block(make_batch(a=column)), [InputColumns("x", dtype, (), ("a",))]
    if dtype == "int8":
        assert _values(stack_columns(block, wanted)).tolist() == [1]
        return
    with pytest.raises(StepError, match=f"takes {dtype}; cast it"):
        stack_columns(block, wanted)


@pytest.mark.parametrize(
    ("column", "dtype", "kept"),
    [
        (pa.array([2**63, 5], pa.uint64()), "int64", [5]),
        (pa.array([-1, 5], pa.int8()), "uint8", [5]),
        (pa.array([2**31, 5], pa.uint32()), "int32", [5]),
    ],
    ids=["uint64-int64", "int8-uint8", "uint32-int32"],
)
def test_a_sign_is_never_made_or_lost(column: pa.Array, dtype: str, kept: list[int]) -> None:
    """Of two types as wide, one may still not hold what the other does."""
    done = stack_columns(make_block(make_batch(a=column)), [InputColumns("x", dtype, (), ("a",))])
    assert _values(done).tolist() == kept


def test_integers_in_lists_are_held_to_the_type_as_well() -> None:
    """A list with a number that the input's type cannot hold is rejected."""
    batch = make_batch(v=pa.array([[1, 2**40], [3, 4]], pa.list_(pa.int64())))
    done = stack_columns(make_block(batch), [InputColumns("x", "int32", (2,), ("v",))])
    assert _values(done).tolist() == [[3, 4]]
    assert _rejected(done) == [0]
