"""Runs on a Flink cluster of this machine: what a second slot brings, and what rows cost.

    python -m benchmarks.flink [--only slots,cpu] [--rounds 3] [--home /tmp]

It fetches the cluster's parts as `python -m tools.flink fetch` does, and ends what it starts.
`slots` scores four units with a model that sleeps, so that cores do not limit it, on one slot and
on two. `cpu` compares CPU-seconds of the Python workers, their pool included, with those of the
engine `direct` with one worker. Rows cost the difference of two sizes, free of what a run costs
once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.commands import run
from benchmarks.workload import write_job, write_model, write_shards
from tools.flink.__main__ import CACHE
from tools.flink.cluster import Cluster
from tools.flink.parts import fetch

MILLION = 1_000_000
UNITS = 4
"""As many millions of rows are slept over."""
NAP_SECONDS = 0.033
"""Of a tile of 1,024 rows."""
BATCH_ROWS = 65_536
SIZES = (1, 5)
"""Millions of rows of the two sizes."""
POOL = "worker-pool"


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Args:
        seconds: Of scoring, as its manifest says.
        python_s: CPU-seconds of Python workers, and on the engine `direct` of the launcher too.
        java_s: CPU-seconds of Flink and Beam's job server.
    """

    seconds: float
    python_s: float
    java_s: float = 0.0


@contextmanager
def started() -> Iterator[Cluster]:
    """Yields a cluster of two TaskManagers of one slot, and ends it."""
    fetch(CACHE)
    with tempfile.TemporaryDirectory(prefix="flink-") as folder:
        cluster = Cluster(CACHE, Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def run_direct(job: Path) -> Cost:
    """Runs a job with one worker; its model's process would hide what its worker costs."""
    done = _run(job, {"runtime.workers": 1, "runtime.model_process": "off"})
    return Cost(_scoring(done.out), done.cpu_s)


def run_on_flink(cluster: Cluster, job: Path, slots: int) -> Cost:
    """Runs a job on so many slots."""
    section = {f"runtime.flink.{key}": value for key, value in cluster.section().items()}
    before = cpu_seconds(cluster)
    done = _run(job, {**section, "runtime.engine": "flink", "runtime.flink.parallelism": slots})
    after = cpu_seconds(cluster)
    spent = {name: after[name] - seconds for name, seconds in before.items()}
    return Cost(_scoring(done.out), spent.pop(POOL), sum(spent.values()))


def cpu_seconds(cluster: Cluster) -> dict[str, float]:
    """Returns the CPU-seconds of each process of a cluster, and of all below it that ended."""
    return {member.name: _tree_seconds(member.pid) for member in cluster.members()}


def _tree_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))


def _run(job: Path, changes: Mapping[str, Any]) -> Any:
    command = [sys.executable, "-m", "batchscore", "run", "--json", str(job)]
    shutil.rmtree(job.parent / "out", ignore_errors=True)
    return run([*command, *(f"--set={key}={value}" for key, value in changes.items())])


def _scoring(out: str) -> float:
    return float(json.loads(out)["phases"]["scoring"])


def measure_slots(cluster: Cluster, home: Path, rounds: int) -> dict[int, list[Cost]]:
    """Runs a job whose model sleeps on one slot and on two, alternating."""
    write_shards(home / "in", UNITS * MILLION, MILLION, MILLION)
    write_model(home / "model", "Sleeper", seconds=NAP_SECONDS)
    job = write_job(home, {"runtime": {"batch_rows": BATCH_ROWS}})
    costs: dict[int, list[Cost]] = {1: [], 2: []}
    for _ in range(rounds):
        for slots, found in costs.items():
            found.append(run_on_flink(cluster, job, slots))
    return costs


def measure_cpu(cluster: Cluster, home: Path, rounds: int) -> dict[tuple[str, int], list[Cost]]:
    """Runs an MLP's job of two sizes on both engines, alternating."""
    write_model(home / "model")
    costs: dict[tuple[str, int], list[Cost]] = {}
    for size in SIZES:
        shutil.rmtree(home / "in", ignore_errors=True)
        write_shards(home / "in", size * MILLION, MILLION, MILLION)
        job = write_job(home, {})
        for _ in range(rounds):
            costs.setdefault(("direct", size), []).append(run_direct(job))
            costs.setdefault(("flink", size), []).append(run_on_flink(cluster, job, 1))
    return costs


def slots_table(costs: Mapping[int, Sequence[Cost]]) -> Iterator[str]:
    """Yields how long each number of slots took, as Markdown."""
    one = median(cost.seconds for cost in costs[1])
    yield "| slots | scoring s | times as fast |"
    yield "|---|---|---|"
    for slots, found in costs.items():
        seconds = median(cost.seconds for cost in found)
        yield f"| {slots} | {seconds:.1f} | {one / seconds:.2f} |"


def cpu_table(costs: Mapping[tuple[str, int], Sequence[Cost]]) -> Iterator[str]:
    """Yields what each run took, and what a million more rows cost, as Markdown."""
    yield "| engine | million rows | Python CPU-s | Java CPU-s |"
    yield "|---|---|---|---|"
    for (engine, size), found in sorted(costs.items()):
        java = f"{median(cost.java_s for cost in found):.2f}" if engine == "flink" else ""
        yield f"| {engine} | {size} | {_python(found):.2f} | {java} |"
    direct, flink = (_a_million(costs, engine) for engine in ("direct", "flink"))
    yield ""
    yield (
        f"A million more rows take {direct:.2f} CPU-seconds on direct, and {flink:.2f} of the "
        f"Python workers on Flink: {flink / direct:.2f} times as many."
    )


def _a_million(costs: Mapping[tuple[str, int], Sequence[Cost]], engine: str) -> float:
    small, large = SIZES
    more = _python(costs[engine, large]) - _python(costs[engine, small])
    return more / (large - small)


def _python(found: Sequence[Cost]) -> float:
    return median(cost.python_s for cost in found)


def main() -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flink", description=__doc__)
    parser.add_argument("--only", default="slots,cpu", help="slots, cpu, or both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="where inputs and outputs go")
    asked = parser.parse_args()
    with started() as cluster, tempfile.TemporaryDirectory(dir=asked.home) as folder:
        if "slots" in asked.only:
            slots = measure_slots(cluster, Path(folder) / "slots", asked.rounds)
            print("\n".join(slots_table(slots)), flush=True)
        if "cpu" in asked.only:
            cpu = measure_cpu(cluster, Path(folder) / "cpu", asked.rounds)
            print("\n".join(cpu_table(cpu)), flush=True)


if __name__ == "__main__":
    main()
