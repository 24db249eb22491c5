"""Which rows of a sample become golden rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.models.golden_rows import GOLDEN_ROWS, golden_places


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 200), st.integers(0, 9))
def test_golden_rows_hold_extremes_and_are_the_same_each_time(
    rows: int, columns: int, seed: int
) -> None:
    """Ascending places, no more than fit, among them the first columns' extremes and gaps."""
    numbers_bf = np.random.default_rng(seed).normal(size=(rows, columns))
    numbers_bf[seed % rows, 0] = np.nan
    arrays = [pa.array(column, from_pandas=True) for column in numbers_bf.T]
    batch = pa.record_batch(arrays, names=[f"c{i}" for i in range(columns)])
    places_g = golden_places(batch)
    assert len(places_g) == min(rows, len(places_g), GOLDEN_ROWS)
    assert (np.diff(places_g) > 0).all()
    assert rows > GOLDEN_ROWS or len(places_g) == rows
    assert seed % rows in places_g
    if rows > 1:
        column_b = numbers_bf[:, 0]
        assert {int(np.nanargmin(column_b)), int(np.nanargmax(column_b))} <= {*places_g.tolist()}
    assert (golden_places(batch) == places_g).all()


def test_columns_without_an_order_are_left_to_the_spread() -> None:
    """Lists and views have no smallest value: rows spread over the sample remain."""
    lists = pa.array([[i] for i in range(1000)])
    views = pa.array(["a"] * 1000).cast(pa.string_view())
    places_g = golden_places(pa.record_batch([lists, views], names=["l", "v"]))
    assert (len(places_g), places_g[0], places_g[-1]) == (GOLDEN_ROWS, 0, 999)
