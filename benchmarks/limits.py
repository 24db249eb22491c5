"""How close batchscore comes to the machine's limit: floor, memory, start-up, overhead, cores.

    python -m benchmarks.limits [--only floor,cores,startup,help,overhead,memory] [--rounds 3]
                                [--gigabytes 1,10] [--home /tmp]

Each is measured on runs of `batchscore run` in processes of their own, alternating with what they
are compared with, and is in one table with its goal. The figure is the median, with its spread.
Scoring seconds are those of the manifest, from the first unit's being opened to the publication;
CPU-seconds are of all processes in that time, sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar

from benchmarks.observe import Ran, RunError, run_job
from benchmarks.workload import write_job, write_model, write_shards

ROWS = 2_000_000
SHARD_ROWS = 500_000
BLOCK_ROWS = 1_024
SLEEPS = 10
ROW_BYTES = 127
KEPT = ["id", "part", "f00", "f01"]
IMPORTS = "import apache_beam, torch"
STARTED = ("Mlp", "Embedded")
"""Networks whose start-up is measured: one without and one with an embedding."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, compared with what, and the largest allowed ratio.

    Args:
        limit: What it is.
        figures: One figure per round.
        compared: What these are compared with, one per round, or a single one.
        unit: Unit of both.
        goal: The most that the ratio may be, or the figure itself without a comparison.
        note: A remark.
    """

    limit: str
    figures: tuple[float, ...]
    compared: tuple[float, ...]
    unit: str
    goal: float | None
    note: str = ""

    @property
    def ratio(self) -> float:
        """The median over the median of what it is compared with; alone, the median."""
        return median(self.figures) / (median(self.compared) if self.compared else 1.0)

    def cells(self) -> tuple[str, ...]:
        """Returns the row as it is printed."""
        goal, met = ("", "") if self.goal is None else (f"≤ {self.goal}", "no")
        met = "yes" if self.goal is not None and self.ratio <= self.goal else met
        ratio = f"{self.ratio:.3f}" if self.compared else ""
        against = spread(self.compared, self.unit) if self.compared else ""
        return (self.limit, spread(self.figures, self.unit), against, ratio, goal, met, self.note)


def spread(figures: Sequence[float], unit: str) -> str:
    """Returns the median, with the least and the most of several."""
    text = f"{median(figures):,.2f} {unit}"
    return f"{text} ({min(figures):,.2f} to {max(figures):,.2f})" if len(figures) > 1 else text


@dataclass(frozen=True)
class Way:
    """How a job is run: on how many cores, and with how many workers, as in a job file."""

    cores: int
    workers: str

    @property
    def title(self) -> str:
        """The way in words."""
        cores = f"{self.cores} core" if self.cores == 1 else f"{self.cores} cores"
        return f"{cores}, workers {self.workers}"


@dataclass(frozen=True)
class Spent:
    """What scoring took: seconds, CPU-seconds of all processes, and threads at the most."""

    seconds: float
    cpu_s: float
    threads: int


@dataclass(frozen=True)
class Scoring:
    """What scoring took, by way and round, and CPU-seconds by piece of the work, by round."""

    pieces: tuple[dict[str, float], ...]
    spent: dict[Way, tuple[Spent, ...]]

    @property
    def rows(self) -> list[Row]:
        """Returns the lines of the table; on all cores a goal is set."""
        most = max(way.cores for way in self.spent)
        return [self._row(way, 1.15 if way.cores == most else None) for way in self.spent]

    @property
    def note(self) -> str:
        """Says what the floor is made of."""
        medians = {name: median(p[name] for p in self.pieces) for name in self.pieces[0]}
        shares = ", ".join(f"{name} {each:.2f}" for name, each in medians.items())
        return f"{self._floor:.2f} CPU-seconds ({shares}) over the cores are the floor"

    @property
    def _floor(self) -> float:
        return median(sum(each.values()) for each in self.pieces)

    def _row(self, way: Way, goal: float | None) -> Row:
        floors = tuple(sum(each.values()) / way.cores for each in self.pieces)
        seconds = tuple(each.seconds for each in self.spent[way])
        cpu_s = median(each.cpu_s for each in self.spent[way])
        words = [f"{cpu_s:.2f} CPU-s, {cpu_s / self._floor:.2f} of the floor's"]
        words.append(f"{max(each.threads for each in self.spent[way])} threads")
        one = self.spent.get(Way(1, "1"), ())
        if one:
            times = median(each.seconds for each in one) / median(seconds)
            words.append(f"{times:.2f} times as fast as one core")
        return Row(f"scoring, {way.title}", seconds, floors, "s", goal, "; ".join(words))


def measure_floor(home: Path, rounds: int) -> Scoring:
    """Scores 2,000,000 rows with 1, 2, 4 and `auto` workers on all cores."""
    usable = len(os.sched_getaffinity(0))
    ways = [Way(usable, workers) for workers in ("1", "2", "4", "auto")]
    return measure_scoring(home, rounds, ways)


def measure_cores(home: Path, rounds: int) -> Scoring:
    """Scores 2,000,000 rows on 1, 2, 4 and 16 cores, if there are so many."""
    counts = [cores for cores in (1, 2, 4, 16) if cores <= len(os.sched_getaffinity(0))]
    ways = [Way(cores, str(workers)) for cores in counts for workers in sorted({1, cores})]
    return measure_scoring(home, rounds, ways)


def measure_scoring(home: Path, rounds: int, ways: Sequence[Way]) -> Scoring:
    """Scores 2,000,000 rows each way alternately, and adds up the pieces of the work."""
    job = write_mlp_job(home, ROWS)
    pieces, spent = [], {way: list[Spent]() for way in ways}
    for _ in range(rounds):
        pieces.append(json.loads(_output([sys.executable, "-m", "benchmarks.floor", str(job)])))
        for way, found in spent.items():
            ran = run_job(job, [f"runtime.workers={way.workers}"], way.cores)
            found.append(Spent(ran.scoring, ran.scoring_cpu, ran.watcher.peaks.threads))
    return Scoring(tuple(pieces), {way: tuple(found) for way, found in spent.items()})


def write_mlp_job(home: Path, rows: int, network: str = "Mlp") -> Path:
    """Writes a job of an MLP over shards of half a million rows, compared with their profile."""
    write_shards(home / "in", rows, SHARD_ROWS, SHARD_ROWS)
    write_model(home / "model", network)
    reference = home / "reference.parquet"
    shard = next((home / "in").iterdir())
    _output([sys.executable, "-m", "batchscore", "profile", str(shard), "-o", str(reference)])
    checks = {"score_range": [0, 1]}
    return write_job(home, {"checks": checks, "drift": {"reference": str(reference)}})


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Layout:
    """How an input is cut, and with how many workers it is read.

    Args:
        title: Its name in words.
        shard_rows: Rows of a shard, or None for a single one.
        group_rows: Rows of a row group.
        workers: As `runtime.workers` of a job file.
    """

    title: str
    shard_rows: int | None
    group_rows: int
    workers: str


LAYOUTS = (
    Layout("one shard, row groups of 1 GB, 1 worker", None, 10**9 // ROW_BYTES, "1"),
    Layout("shards of 1,000,000 rows, auto workers", 1_000_000, 1_000_000, "auto"),
)


@dataclass(frozen=True)
class Memory:
    """Peak memory of the process tree in bytes, by layout, for each size of input in bytes."""

    peaks: dict[str, dict[int, int]]

    note: ClassVar[str] = (
        "proportional set size of the whole process tree at its peak, sampled every 50 ms; "
        "columns id, part, f00 and f01 are passed through"
    )

    @property
    def rows(self) -> list[Row]:
        """Returns the lines of the table."""
        return [self._row(title, peaks) for title, peaks in self.peaks.items()]

    def _row(self, title: str, peaks: dict[int, int]) -> Row:
        (small, base), (large, peak) = min(peaks.items()), max(peaks.items())
        note = f"PSS for {large / 1e9:.1f} GB next to {small / 1e9:.1f} GB"
        return Row(f"memory, {title}", (peak / 2**20,), (base / 2**20,), "MiB", 1.1, note)


def measure_memory(home: Path, gigabytes: Sequence[float]) -> Memory:
    """Scores inputs of each size in each layout, one at a time on disk."""
    peaks: dict[str, dict[int, int]] = {}
    write_model(home / "model")
    for layout in LAYOUTS:
        peaks[layout.title] = {}
        for size in gigabytes:
            rows = int(size * 10**9 / ROW_BYTES)
            write_shards(home / "in", rows, layout.shard_rows or rows, layout.group_rows)
            job = write_job(home, {"output": {"path": "out", "columns": KEPT}})
            ran = run_job(job, [f"runtime.workers={layout.workers}"], memory=True)
            bytes_in = sum(path.stat().st_size for path in (home / "in").iterdir())
            peaks[layout.title][bytes_in] = ran.watcher.peaks.pss
            shutil.rmtree(home / "in")
    return Memory(peaks)


@dataclass(frozen=True)
class StartUp:
    """Seconds and CPU-seconds to the first scores, by network, and of the imports, by round."""

    scored: dict[str, tuple[Taken, ...]]
    imports: tuple[Taken, ...]

    note: ClassVar[str] = "from the process's start to the first 1,024 scores"

    @property
    def rows(self) -> list[Row]:
        """Returns the lines of the table: what a user waits for, and the same by CPU."""
        return [row for network in self.scored for row in self._rows(network)]

    def _rows(self, network: str) -> list[Row]:
        scored, imports = self.scored[network], self.imports
        ours, theirs = (tuple(each.seconds for each in taken) for taken in (scored, imports))
        our_cpu, their_cpu = (tuple(each.cpu_s for each in taken) for taken in (scored, imports))
        return [
            Row(f"start-up to the first scores, {network}", ours, theirs, "s", 1.2, IMPORTS),
            Row("the same in CPU", our_cpu, their_cpu, "CPU-s", None),
        ]


@dataclass(frozen=True)
class Taken:
    """Seconds and CPU-seconds of a process and all below it."""

    seconds: float
    cpu_s: float


def measure_start_up(home: Path, rounds: int) -> StartUp:
    """Scores a table with each network, alternating with imports of Beam and torch."""
    jobs = {network: write_mlp_job(home / network, ROWS, network) for network in STARTED}
    for job in jobs.values():
        run_job(job)
    scored, imports = {network: list[Taken]() for network in jobs}, []
    for _ in range(max(rounds, 5)):
        imports.append(_taken([sys.executable, "-c", IMPORTS]))
        for network, job in jobs.items():
            ran = run_job(job)
            scored[network].append(Taken(ran.first_scored, ran.first_scored_cpu))
    return StartUp({name: tuple(found) for name, found in scored.items()}, tuple(imports))


def _taken(command: Sequence[str]) -> Taken:
    start, before = time.perf_counter(), _children_cpu()
    _output(command)
    return Taken(time.perf_counter() - start, _children_cpu() - before)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Help:
    """Seconds of `batchscore --help`, and of a Python that does nothing, by round."""

    help: tuple[float, ...]
    nothing: tuple[float, ...]

    note: ClassVar[str] = "processes alternating with `python -c pass`"

    @property
    def rows(self) -> list[Row]:
        """Returns the line of the table."""
        nothing = f"python -c pass: {spread(self.nothing, 's')}"
        return [Row("batchscore --help", self.help, (), "s", 0.3, nothing)]


def measure_help() -> Help:
    """Asks for help ten times, alternating with doing nothing."""
    program = str(Path(sys.executable).with_name("batchscore"))
    found = [
        (_taken([program, "--help"]).seconds, _taken([sys.executable, "-c", "pass"]).seconds)
        for _ in range(10)
    ]
    return Help(tuple(each for each, _ in found), tuple(each for _, each in found))


@dataclass(frozen=True)
class Overhead:
    """Seconds of scoring batches of a second each, and of those from the first to the last."""

    scoring: tuple[float, ...]
    between: tuple[float, ...]

    note: ClassVar[str] = "blocks of 1,024 rows, and a network that sleeps a second at each call"

    @property
    def rows(self) -> list[Row]:
        """Returns the lines of the table."""
        asleep = (float(SLEEPS),)
        return [
            Row("10 batches of 1 s, scoring", self.scoring, asleep, "s", 1.03),
            Row("10 batches of 1 s, first to last", self.between, asleep, "s", 1.03),
        ]


def measure_overhead(home: Path, rounds: int) -> Overhead:
    """Scores ten blocks with a model that takes a second for each."""
    write_shards(home / "in", SLEEPS * BLOCK_ROWS, SLEEPS * BLOCK_ROWS, SLEEPS * BLOCK_ROWS)
    write_model(home / "model", "Sleeper", seconds=1.0)
    job = write_job(home, {"runtime": {"batch_rows": BLOCK_ROWS, "workers": 1}})
    found = [run_job(job) for _ in range(rounds)]
    return Overhead(tuple(_slept(r)[0] for r in found), tuple(_slept(r)[1] for r in found))


def _slept(ran: Ran) -> tuple[float, float]:
    """Returns seconds of scoring, and from the first batch's start to the last one's end."""
    asleep, awake = ran.times("asleep"), ran.times("awake")
    if len(awake) != SLEEPS:
        raise RunError(f"the model slept {len(awake)} times; {SLEEPS} were expected")
    return ran.scoring, awake[-1] - asleep[0]


def print_table(rows: Sequence[Row]) -> None:
    """Prints lines as a table in Markdown."""
    head = ("limit", "measured", "compared with", "ratio", "goal", "met", "")
    for cells in (head, ("---",) * len(head), *(row.cells() for row in rows)):
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measures what is asked for, and prints a table of all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabytes", type=_numbers, default=(1.0, 10.0))
    parser.add_argument("--home", type=Path)
    args = parser.parse_args()
    measures: dict[str, Callable[[Path], Scoring | Memory | StartUp | Help | Overhead]] = {
        "floor": lambda home: measure_floor(home, args.rounds),
        "cores": lambda home: measure_cores(home, args.rounds),
        "startup": lambda home: measure_start_up(home, args.rounds),
        "help": lambda _: measure_help(),
        "overhead": lambda home: measure_overhead(home, args.rounds),
        "memory": lambda home: measure_memory(home, args.gigabytes),
    }
    rows, notes = list[Row](), list[str]()
    for name in args.only or measures:
        with tempfile.TemporaryDirectory(dir=args.home) as home:
            found = measures[name](Path(home))
        rows += found.rows
        load = " ".join(f"{each:.1f}" for each in os.getloadavg())
        notes.append(f"{name}: {found.note}; load at its end {load}")
        print(notes[-1], file=sys.stderr, flush=True)
    print_table(rows)
    print("\n" + "\n".join(f"- {note}" for note in notes))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


if __name__ == "__main__":
    main()
