"""Tests of what is known of rows that a process died of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchscore.columnar.ragged import make_ragged
from batchscore.models.process.deadly import DeadlyRows
from batchscore.models.process.memory import parts_of

SMALL = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6)


@given(SMALL, SMALL)
def test_a_call_is_deadly_if_it_holds_a_deadly_row(
    deadly: list[tuple[int, int]], batch: list[tuple[int, int]]
) -> None:
    """The row is known by all of its inputs, and at any place."""

    def parts(rows: list[tuple[int, int]]) -> list[tuple[str, str, np.ndarray]]:
        x_bf = np.array(rows, np.float32).reshape(-1, 2)
        return parts_of({"x": x_bf[:, :1], "y": x_bf[:, 1]})

    known = DeadlyRows()
    for row in deadly:
        known.note(parts([row]), 1, f"died of {row}")
    found = known.find(parts(batch), len(batch))
    assert (found is not None) == bool({*deadly} & {*batch})


def test_a_call_that_is_repeated_as_it_was_is_deadly_again() -> None:
    """Of other calls nothing is known: one of its rows, or all together, may be at fault."""
    x_bf = np.arange(6, dtype=np.float32).reshape(3, 2)
    known = DeadlyRows()
    known.note(parts_of({"x": x_bf}), 3, "died of all")
    assert known.find(parts_of({"x": x_bf.copy()}), 3) == "died of all"
    assert known.find(parts_of({"x": x_bf[:2]}), 2) is None
    assert known.find(parts_of({"x": x_bf.astype(np.float64)}), 3) is None


def test_rows_of_varying_length_are_known_alone() -> None:
    """A call of several rows is made, since their bytes do not tell where a row is."""
    one = parts_of({"x": make_ragged(np.arange(3), np.array([3]))})
    two = parts_of({"x": make_ragged(np.arange(4), np.array([3, 1]))})
    known = DeadlyRows()
    known.note(one, 1, "died")
    assert known.find(one, 1) == "died"
    assert known.find(two, 2) is None
