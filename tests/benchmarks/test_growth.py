"""Tables of what runs of more rows took."""

from __future__ import annotations

from benchmarks.growth import Cost, Costs, growth, table
from benchmarks.limits import Way

AUTO, TWO = Way(2, "auto"), Way(2, "2")
COSTS: Costs = {
    (AUTO, 2): Cost(seconds=4.0, cpu_s=6.0, peak=900 << 20, workers=1),
    (TWO, 2): Cost(seconds=5.0, cpu_s=8.0, peak=0, workers=2),
    (AUTO, 10): Cost(seconds=12.0, cpu_s=20.0, peak=950 << 20, workers=2),
    (TWO, 10): Cost(seconds=10.0, cpu_s=20.0, peak=0, workers=2),
}


def test_auto_is_compared_with_the_quickest_of_its_size() -> None:
    """The last column is the seconds of `auto` over the least on as many cores and rows."""
    assert list(table(COSTS))[2:] == [
        "| 2 | auto: 1 | 2 | 4.00 | 6.00 | 900 MiB | 1.00 |",
        "| 2 | 2 | 2 | 5.00 | 8.00 |  |  |",
        "| 2 | auto: 2 | 10 | 12.00 | 20.00 | 950 MiB | 1.20 |",
        "| 2 | 2 | 10 | 10.00 | 20.00 |  |  |",
    ]


def test_a_million_more_rows_cost_the_difference_of_two_sizes() -> None:
    """What a run costs once cancels out."""
    assert list(growth(COSTS))[2:] == ["| 2 | 2 to 10 | 1.000 | 1.750 |"]
