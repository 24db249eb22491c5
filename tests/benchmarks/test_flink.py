"""Tables of what runs on a Flink cluster took."""

from __future__ import annotations

from benchmarks.flink import Cost, cpu_table, slots_table


def test_two_slots_are_compared_with_one() -> None:
    """The last column is one slot's seconds over those of so many slots."""
    costs = {1: [Cost(120.0, 9.0), Cost(124.0, 9.0)], 2: [Cost(61.0, 9.0)]}
    assert list(slots_table(costs))[2:] == ["| 1 | 122.0 | 1.00 |", "| 2 | 61.0 | 2.00 |"]


def test_rows_cost_the_difference_of_two_sizes() -> None:
    """What a run costs once cancels out."""
    costs = {
        ("direct", 1): [Cost(1.0, 5.0)],
        ("flink", 1): [Cost(1.0, 3.0, 2.5)],
        ("direct", 5): [Cost(3.0, 13.0)],
        ("flink", 5): [Cost(3.0, 13.0, 3.0)],
    }
    assert list(cpu_table(costs))[2:] == [
        "| direct | 1 | 5.00 |  |",
        "| direct | 5 | 13.00 |  |",
        "| flink | 1 | 3.00 | 2.50 |",
        "| flink | 5 | 13.00 | 3.00 |",
        "",
        "A million more rows take 2.00 CPU-seconds on direct, and 2.50 of the Python workers on "
        "Flink: 1.25 times as many.",
    ]
