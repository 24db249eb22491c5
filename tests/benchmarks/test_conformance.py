"""Tests of how scores are compared with a framework's own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.conformance import compared


@pytest.mark.parametrize(
    ("found", "other", "largest", "missing"),
    [
        ([0.5, 1.5, np.nan], 0, 0.0, False),
        ([0.5, 1.75, np.nan], 1, 0.25, False),
        ([0.5, 1.5], 0, 0.0, True),
        ([0.5, 1.5, 2.0], 1, np.nan, False),
    ],
)
def test_other_scores_are_counted(
    found: list[float], other: int, largest: float, missing: bool
) -> None:
    """A gap equals a gap, the largest difference is of the rows that differ, and none may lack."""
    own = {"score": np.array([[0.5], [1.5], [np.nan]])}
    counts = compared({"score": np.array(found)}, own)
    facts = {"rows": len(found), "other": other, "missing": missing}
    assert {key: counts[key] for key in facts} == facts
    np.testing.assert_equal(counts["largest"], largest)
