"""Lines of the table of limits."""

from __future__ import annotations

import pytest

from benchmarks.limits import Row


@pytest.mark.parametrize(
    ("figures", "compared", "goal", "ratio", "met"),
    [
        ((2.0, 9.0, 2.2), (2.0, 2.0, 1.0), 1.15, "1.100", "yes"),
        ((2.4,), (2.0,), 1.15, "1.200", "no"),
        ((2.4,), (2.0,), None, "1.200", ""),
        ((0.29,), (), 0.3, "", "yes"),
        ((0.31,), (), 0.3, "", "no"),
    ],
)
def test_a_goal_is_met_by_medians(
    figures: tuple[float, ...],
    compared: tuple[float, ...],
    goal: float | None,
    ratio: str,
    met: str,
) -> None:
    """A goal is compared with the median's ratio, or with the median without a comparison."""
    cells = Row("limit", figures, compared, "s", goal).cells()
    assert (cells[3], cells[5]) == (ratio, met)
