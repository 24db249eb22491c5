"""Test what vectors and class scores are also seen by."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

from batchscore.drift.column import Hint
from batchscore.drift.derived import margins, norms
from batchscore.drift.table import TableProfile

LARGEST = float(np.finfo(np.float64).max)


def test_norms_of_large_vectors_are_infinite() -> None:
    """A square beyond the largest float makes no warning, and leaves the other rows as they are."""
    with warnings.catch_warnings(action="error"):
        found = norms(np.array([[3.0, 4.0], [LARGEST, 1.0], [-LARGEST, LARGEST]]))
        best = margins(np.array([[-LARGEST, LARGEST], [1.0, 3.0]]))
    assert found.tolist() == [5.0, np.inf, np.inf]
    assert best.tolist() == [np.inf, 2.0]


@pytest.mark.parametrize("hint", [None, "classes"])
def test_large_vectors_are_profiled_without_a_warning(hint: Hint | None) -> None:
    """Vectors and class scores of the largest floats are counted as any other."""
    values = pa.array([LARGEST, -LARGEST, LARGEST, LARGEST, 1.0, 2.0])
    table = TableProfile(hints={"x": hint} if hint else {})
    with warnings.catch_warnings(action="error"):
        table.update(pa.record_batch({"x": pa.FixedSizeListArray.from_arrays(values, 2)}))
    column = table.columns["x"]
    assert column.count == 3
    assert {aspect.n for aspect in column.aspects.values()} == {3}
