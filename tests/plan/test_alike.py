"""Values are compared by what they are: floats to within a tolerance, all else exactly."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.plan.alike import describe_pair, differing_rows

NAN, INF = math.nan, math.inf
F32 = pa.float32()


def differs(known: Any, made: Any, tolerance: float = 1e-5) -> list[bool]:
    """Which rows of two columns, given as arrays or lists, differ."""
    return list(differing_rows(column(known), column(made), tolerance))


def column(values: Any) -> pa.Array:
    """The values as a column."""
    return values if isinstance(values, pa.Array) else pa.array(values)


@pytest.mark.parametrize(
    ("known", "made"),
    [
        ([0.5, 1.0], [0.5 + 9e-6, 1.0 - 9e-6]),
        ([NAN, INF, -INF], [NAN, INF, -INF]),
        ([0.0], [-0.0]),
        (pa.array([3000.0], F32), pa.array([np.nextafter(np.float32(3000), np.float32(9e9))], F32)),
        ([1, 2], [1.0, 2.0]),
        (pa.array([1, 2], pa.int8()), pa.array([1, 2], pa.int64())),
        ([True, False], pa.array([1, 0], pa.int32())),
        ([None, "a"], [None, "a"]),
        (pa.array([None, None], F32), pa.nulls(2)),
        (["a", "b"], pa.array(["a", "b"]).dictionary_encode()),
        (["a", "b"], pa.array(["a", "b"], pa.large_string())),
        ([[0.5, 1.0], [2.0]], [[0.5 + 9e-6, 1.0], [2.0]]),
        ([[0.5, None], None], [[0.5, None], None]),
        (pa.array([[1, 2]], pa.list_(F32, 2)), pa.array([[1, 2]], pa.list_(pa.float64()))),
        ([{"a": 0.5}], [{"a": 0.5 + 9e-6}]),
        ([datetime(2024, 1, 1)], [datetime(2024, 1, 1)]),
        ([], []),
    ],
)
def test_values_that_are_alike(known: Any, made: Any) -> None:
    """Rounding, NaN in both, another type and the sign of zero are no difference."""
    assert not any(differs(known, made))
    assert not any(differs(made, known))


@pytest.mark.parametrize(
    ("known", "made"),
    [
        (0.5, 0.5 + 2e-5),
        (NAN, 0.5),
        (INF, 1e300),
        (INF, -INF),
        (1e300, -1e300),
        (2**53, 2**53 + 1),
        (1, 2),
        (True, False),
        ("a", "b"),
        ("a", None),
        (1.0, None),
        ([1.0, 2.0], [1.0, 2.0, 2.0]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([[1.0]], [[NAN]]),
        ({"a": 0.5}, {"a": 0.6}),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 1)),
        (1732900000.0, 1732900000.01),
        (b"a", b"b"),
    ],
)
def test_values_that_differ(known: Any, made: Any) -> None:
    """More than the tolerance, another integer, text or length is a difference, in its row only."""
    before, after = pa.array([known, known]), pa.array([known, made])
    assert differs(before, after) == [False, True]
    assert differs(after, before) == [False, True]


def test_vectors_differ_by_element() -> None:
    """Of a vector that differs, the first element that does is shown with its place."""
    known, made = (pa.array([[1, 2, 3]] * 2, pa.list_(F32, 3)) for _ in range(2))
    made = pa.array([[1, 2, 3], [1, 2, 4]], pa.list_(F32, 3))
    assert differs(known, made) == [False, True]
    assert describe_pair(known, made, 1, 1e-5) == (2, "3", "4")
    assert describe_pair(pa.array(["a"]), pa.array(["b"]), 0, 1e-5) == (None, "'a'", "'b'")


@pytest.mark.parametrize(
    ("known", "made", "shown"),
    [
        (1.0, 1.5, ("1", "1.5")),
        (1796007711.25, 1796007711.5, ("1796007711.25", "1796007711.5")),
        (f"{'a' * 90}b", f"{'a' * 90}c", (f"…{'a' * 30}b'", f"…{'a' * 30}c'")),
        ([*range(40)], [*range(39), 0], ("…, 32, 33, 34, 35, 36, 37, 38, 39]", None)),
    ],
)
def test_values_that_differ_are_shown_so(known: Any, made: Any, shown: tuple[str, ...]) -> None:
    """Large floats are shown with all digits, long texts and lists from where they differ."""
    _, *texts = describe_pair(pa.array([known]), pa.array([made]), 0, 1e-5)
    assert texts[0] == shown[0]
    assert texts[1] == (shown[1] or texts[1]) != texts[0]


NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e-5, NAN, INF])


@pytest.mark.slow
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1), st.sampled_from([0.0, 1e-5, 0.1]))
def test_arrays_and_lists_agree(pairs: list[tuple[float, float]], tolerance: float) -> None:
    """A column of numbers is compared as the same numbers in lists are, in either direction."""
    known, made = ([pair[i] for pair in pairs] for i in (0, 1))
    flat = differs(known, made, tolerance)
    kind = pa.list_(pa.float64())
    lists = [pa.array([[value] for value in values], kind) for values in (known, made)]
    assert differs(lists[0], lists[1], tolerance) == flat == differs(made, known, tolerance)
    for one, other, apart in zip(known, made, flat, strict=True):
        same = one == other or (math.isnan(one) and math.isnan(other))
        far = (
            not math.isfinite(one - other) or abs(one - other) > 1.001 * tolerance + abs(one) / 1e9
        )
        assert not (same and apart)
        assert same or apart or not far
