"""Tests of the sketch of frequent values: bounded, and as exact as it promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchscore.drift import frequent
from batchscore.drift.frequent import Frequent, Label

BLOCKS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=60), max_size=8)


def _add(sketch: Frequent, values: list[int]) -> None:
    counts = Counter(values)
    hashes_d = np.array(list(counts), np.uint64)
    labels = [f"value {each}" for each in counts]
    sketch.add(hashes_d, np.array(list(counts.values()), np.int64), _texts(labels))


def _texts(labels: list[str]) -> Label:
    texts_d = pa.array(labels, pa.large_binary())
    return lambda rows: texts_d.take(pa.array(rows))


def _labels(sketch: Frequent) -> dict[int, bytes]:
    return dict(zip(sketch.hashes_t.tolist(), sketch.labels_t.to_pylist(), strict=True))


def _assert_within_bounds(sketch: Frequent, values: list[int]) -> None:
    held = dict(zip(sketch.hashes_t.tolist(), sketch.counts_t.tolist(), strict=True))
    assert len(held) <= frequent.TABLE
    for value, exact in Counter(values).items():
        lost = exact - held.get(value, 0)
        assert 0 <= lost <= len(values) / (frequent.TABLE + 1)
    assert _labels(sketch) == {value: f"value {value}".encode() for value in held}
    assert all(sketch.label(value) == f"value {value}".encode() for value in held)
    assert sketch.label(99) is None


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(BLOCKS, BLOCKS)
@example([[0] * 6 + [1] * 6 + [2] * 6 + [3] * 5, [3] * 5], [])
def test_counts_are_low_by_no_more_than_their_share_of_the_table(
    first: list[list[int]], second: list[list[int]]
) -> None:
    """In sequence and merged, no count is too high, and none lower than promised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequent, "TABLE", 3)
        merged, other = Frequent(), Frequent()
        for sketch, blocks in ((merged, first), (other, second)):
            for values in blocks:
                _add(sketch, values)
        merged.merge(other)
        _assert_within_bounds(merged, [value for values in first + second for value in values])


def test_a_value_that_becomes_frequent_late_is_found() -> None:
    """Earlier values, all of the table, give way to one that comes often enough."""
    sketch = Frequent()
    earlier = np.arange(frequent.TABLE, dtype=np.uint64)
    sketch.add(earlier, np.full(earlier.size, 1000), _texts(["earlier"] * earlier.size))
    for _ in range(100):
        sketch.add(np.array([2**63], np.uint64), np.array([100]), _texts(["late"]))
    assert _labels(sketch) == {2**63: b"late"}
    assert sketch.counts_t.tolist() == [9000]
