"""What profiling columns of texts costs, next to DuckDB's SUMMARIZE: cells per CPU-second.

    python -m benchmarks.text_cost [--rows 1000000]

Both work on one thread, on the same table in memory; each figure is the best of three. DuckDB reads
a table of its own, so that neither side pays for a conversion.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa

from batchscore.drift.column import new_column

BLOCKS = (8_192, 65_536)
TIMES = 3
WORDS = 5_000


@dataclass(frozen=True)
class Cost:
    """Cells per CPU-second of a column: ours by rows of a block, and DuckDB's."""

    name: str
    ours: dict[int, float]
    duckdb: float


def columns(rows: int) -> dict[str, pa.Array]:
    """Returns columns of texts: first those of many distinct values, then those of few."""
    random = np.random.default_rng(0)
    order = random.permutation(rows)
    high, low = (random.integers(0, 2**63, rows).tolist() for _ in range(2))
    words = np.array([f"w{number}" for number in range(WORDS)])
    return {
        "ids": pa.array([f"user-{number:09d}" for number in order]),
        "hexadecimal, 32 signs": pa.array(
            [f"{a:016x}{b:016x}" for a, b in zip(high, low, strict=True)]
        ),
        "eight words": pa.array(map(" ".join, words[random.integers(0, WORDS, (rows, 8))])),
        "240 signs": pa.array([f"x{number:06d} " * 30 for number in order]),
        "skewed, up to 100,000 values": pa.array(
            [f"sku-{number}" for number in random.zipf(1.3, rows) % 100_000]
        ),
        "300 values": pa.array([f"city {number}" for number in random.integers(0, 300, rows)]),
        "two values": pa.array(np.array(["no", "yes"])[random.integers(0, 2, rows)]),
    }


def measure(name: str, column: pa.Array) -> Cost:
    """Returns the cost of a column on both sides."""
    ours = {block: _speed(len(column), partial(_profile, column, block)) for block in BLOCKS}
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        table = pa.table({"x": column})
        connection.register("given", table)
        connection.execute("create table kept as select * from given")
        theirs = _speed(len(column), lambda: connection.sql("summarize kept").fetchall())
    return Cost(name, ours, theirs)


def _profile(column: pa.Array, block: int) -> None:
    made = new_column(column.type)
    for first in range(0, len(column), block):
        made.update(column.slice(first, block))


def _speed(cells: int, work: Callable[[], object]) -> float:
    spent = []
    for _ in range(TIMES):
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return cells / min(spent)


def main() -> None:
    """Prints a line for each column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows: int = parser.parse_args().rows
    heads = [f"blocks of {block:,}" for block in BLOCKS]
    print(f"| million cells per CPU-second | {' | '.join(heads)} | DuckDB SUMMARIZE |")
    print(f"|---|{'---:|' * (len(BLOCKS) + 1)}")
    for name, column in columns(rows).items():
        cost = measure(name, column)
        figures = [f"{speed / 1e6:.1f}" for speed in (*cost.ours.values(), cost.duckdb)]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
