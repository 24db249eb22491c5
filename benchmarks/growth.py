"""Whether a run grows as its rows do: seconds, CPU-seconds and memory, on some of the cores.

    python -m benchmarks.growth [--millions 2,10,50] [--rounds 2] [--home /tmp]

A job with unique keys, a score range and the drift gate is run on 1, 2 and 4 cores, as far as there
are so many, with `auto` and with each number of workers. Seconds and CPU-seconds are those from the
process's start to the publication; memory is sampled in a round of its own, with `auto` alone. What
a million more rows cost is the difference of two sizes, free of what a run costs once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.limits import Way, write_mlp_job
from benchmarks.observe import Ran, run_job
from benchmarks.workload import write_job

MILLION = 1_000_000
AUTO = "auto"


@dataclass(frozen=True)
class Cost:
    """What the runs of one size took one way; medians.

    Args:
        seconds: From the process's start to the publication.
        cpu_s: CPU-seconds of all processes in that time.
        peak: The most memory of the process tree in bytes; 0 where it was not sampled.
        workers: How many workers there were.
    """

    seconds: float
    cpu_s: float
    peak: int
    workers: int


Costs = dict[tuple[Way, int], Cost]
"""By way, and millions of rows."""


def measure(home: Path, millions: Sequence[int], rounds: int) -> Costs:
    """Runs each size each way, alternating; one input at a time is on disk."""
    costs: Costs = {}
    for size in millions:
        job = _write(home, size * MILLION)
        runs: dict[Way, list[Ran]] = {way: [] for way in _ways()}
        for _ in range(rounds):
            for way, found in runs.items():
                found.append(_run(job, way))
        costs |= {(way, size): _cost(found, _peak(job, way)) for way, found in runs.items()}
        shutil.rmtree(home / "in")
    return costs


def _ways() -> list[Way]:
    cores = [cores for cores in (1, 2, 4) if cores <= len(os.sched_getaffinity(0))]
    return [
        Way(each, workers)
        for each in cores
        for workers in (AUTO, *(str(number) for number in (1, 2, 4) if each > 1 and number <= each))
    ]


def _write(home: Path, rows: int) -> Path:
    write_mlp_job(home, rows)
    checks = {"unique": ["id"], "score_range": [0, 1]}
    drift = {"reference": str(home / "reference.parquet")}
    return write_job(home, {"checks": checks, "drift": drift})


def _run(job: Path, way: Way, memory: bool = False) -> Ran:
    return run_job(job, [f"runtime.workers={way.workers}"], way.cores, memory)


def _peak(job: Path, way: Way) -> int:
    return _run(job, way, memory=True).watcher.peaks.pss if way.workers == AUTO else 0


def _cost(runs: Sequence[Ran], peak: int) -> Cost:
    seconds = median(ran.published - ran.began for ran in runs)
    cpu_s = median(ran.watcher.cpu_until(ran.published) for ran in runs)
    return Cost(seconds, cpu_s, peak, int(runs[0].manifest["workers"]))


def table(costs: Costs) -> Iterator[str]:
    """Yields what each way and size took, as Markdown."""
    yield "| cores | workers | million rows | s | CPU-s | peak | auto over the best |"
    yield "|---|---|---|---|---|---|---|"
    for (way, size), cost in costs.items():
        auto = way.workers == AUTO
        workers = f"auto: {cost.workers}" if auto else way.workers
        peak = f"{cost.peak / 2**20:,.0f} MiB" if cost.peak else ""
        over = f"{_over_best(costs, way, size):.2f}" if auto else ""
        spent = f"{cost.seconds:.2f} | {cost.cpu_s:.2f}"
        yield f"| {way.cores} | {workers} | {size} | {spent} | {peak} | {over} |"


def _over_best(costs: Costs, way: Way, size: int) -> float:
    """Returns the seconds of a way over those of the quickest one on as many cores."""
    same = (cost for (each, rows), cost in costs.items() if (each.cores, rows) == (way.cores, size))
    return costs[way, size].seconds / min(cost.seconds for cost in same)


def growth(costs: Costs) -> Iterator[str]:
    """Yields what a million more rows took with `auto`, from size to size, as Markdown."""
    yield "| cores | million rows | s a million more | CPU-s a million more |"
    yield "|---|---|---|---|"
    for way in dict.fromkeys(way for way, _ in costs if way.workers == AUTO):
        sizes = sorted(size for each, size in costs if each == way)
        for small, large in pairwise(sizes):
            one, other, more = costs[way, small], costs[way, large], large - small
            seconds = f"{(other.seconds - one.seconds) / more:.3f}"
            cpu_s = f"{(other.cpu_s - one.cpu_s) / more:.3f}"
            yield f"| {way.cores} | {small} to {large} | {seconds} | {cpu_s} |"


def main() -> None:
    """Measures, and prints both tables."""
    parser = argparse.ArgumentParser(description="Whether a run grows as its rows do")
    parser.add_argument("--millions", default="2,10,50")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--home", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.home) as home:
        costs = measure(Path(home), [int(size) for size in args.millions.split(",")], args.rounds)
    print(*table(costs), "", *growth(costs), sep="\n")


if __name__ == "__main__":
    main()
