"""Scoring and its peers, on the same files with the same model: time, memory, bytes.

    python -m benchmarks.scoring_peers [--work mlp,wide] [--peers batchscore,daft] [--rounds 3]

Tables of a key, a category, 32 standard normal float32 columns and, where the work is of strings,
wide texts are scored by a network of random weights; every column and `score` are written.
batchscore runs as its users run it, with all checks, the drift gate and publishing on. Peers take
turns, every time in a process of its own; one more turn each is for memory, which is sampled.
Environments are made in `.bench/`; a peer that cannot be had or run is printed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from benchmarks.commands import ROOT, Done, PeerError, run
from benchmarks.environments import environment
from benchmarks.scorers.harness import KEY, SCORE, Task
from benchmarks.scorers.work import FEATURES, WORKS, Work, known_scores, write_work

TOLERANCE = 1e-5
ARRAYS = ("numpy==2.4.6", "pyarrow==25.0.1")
FRAMEWORKS = {
    "torch": ("torch==2.15.0", "safetensors==0.8.0"),
    "onnx": ("onnxruntime==1.32.0",),
    "trees": ("xgboost-cpu==3.2.0", "lightgbm==4.7.0"),
}
"""By kind of model, what a peer's environment has next to the peer."""
OURS, ENCODED = "batchscore", ("--encoding=batchscore",)
QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Peer:
    """A way to score, as it is run.

    Args:
        name: The name to ask for it by.
        title: Its name in tables.
        module: Its module in `benchmarks.scorers`, and the name of its environment.
        requirements: What to install for it, next to the model's framework; nothing: it runs
            where batchscore is installed.
        options: Options of the module.
        goal: How many times faster batchscore shall be on the work `mlp`.
        few: Whether it scores only the first rows, and is scaled to all.
        slow: Whether it scores the work `slow`, too.
        kinds: Kinds of models that it scores.
    """

    name: str
    title: str
    module: str
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    goal: float | None = None
    few: bool = False
    slow: bool = False
    kinds: tuple[str, ...] = ("torch",)


ALL = ("torch", "onnx", "trees")
PEERS = (
    Peer(OURS, OURS, OURS, slow=True, kinds=ALL),
    Peer(
        "hand",
        "hand, default encoding",
        "hand",
        options=("--encoding=default",),
        goal=2.0,
        slow=True,
        kinds=ALL,
    ),
    Peer("hand-encoded", "hand, batchscore's encoding", "hand", (), ENCODED, 1.3, kinds=ALL),
    Peer("hand-processes", "hand, a process a core", "hand", (), (*ENCODED, "--processes")),
    Peer("daft", "Daft", "daft", ("daft==0.7.26",), goal=2.5, kinds=ALL),
    Peer("ray", "Ray Data", "ray", ("ray[data]==2.60.0",), goal=7.0),
    Peer(
        *("spark", "Spark", "spark", ("pyspark[sql]==4.3.0", "pandas==2.3.3")),
        goal=7.0,
        kinds=("torch", "trees"),
    ),
    Peer("beam", "Beam rows", "beam", goal=70.0, few=True),
)


@dataclass(frozen=True)
class Turn:
    """What one turn of a peer came to; seconds and CPU-seconds are of all rows, scaled or not.

    Args:
        version: Version of the peer's package.
        scoring_s: Seconds without imports and without what is started before.
        process_s: Seconds of the whole process.
        cpu_s: CPU seconds of all its processes.
        written: Bytes of the Parquet files.
        peak: The most memory of its processes, in bytes; 0 where it was not sampled.
    """

    version: str
    scoring_s: float
    process_s: float
    cpu_s: float
    written: int
    peak: int


@dataclass(frozen=True)
class Result:
    """The turns of a peer on a work that ended well; those with a peak are for memory alone."""

    peer: Peer
    turns: tuple[Turn, ...]

    @property
    def timed(self) -> list[Turn]:
        """The turns that nothing was sampled in."""
        return [turn for turn in self.turns if not turn.peak]

    @property
    def peak(self) -> str:
        """The most memory, if it was seen."""
        peak = max(turn.peak for turn in self.turns)
        return f"{peak / 2**20:,.0f} MiB" if peak else "-"

    def middle(self, field: str) -> float:
        """Returns the median of the timed turns."""
        return float(median(getattr(turn, field) for turn in self.timed))

    def spread(self, field: str) -> str:
        """Returns the median with the least and the most."""
        values = [getattr(turn, field) for turn in self.timed]
        return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def can_score(peer: Peer, work: Work) -> bool:
    """Tells whether a peer takes part in a work."""
    return (peer.slow or work.name != "slow") and _kind(work) in peer.kinds


def _kind(work: Work) -> str:
    return "trees" if work.is_trees else work.form


def take_turn(peer: Peer, work: Work, folder: Path, known_r: Any, sampled: bool) -> Turn:
    """Runs a peer once on a written work, checks what it wrote, and removes that.

    Raises:
        PeerError: It could not be installed or run, or its rows, columns or scores are wrong.
    """
    target = folder / "target"
    target.mkdir()
    try:
        done = run(_command(peer, work, folder, target), QUIET | _path(), sampled)
        files = sorted(target.rglob("*.parquet")) if peer.name != OURS else _published(target)
        rows = work.few_rows if peer.few else work.rows
        check(files, known_r[:rows], {KEY, "group", *FEATURES, SCORE})
        return _turn(peer, done, work.rows / rows, sum(file.stat().st_size for file in files))
    finally:
        shutil.rmtree(target)


def _command(peer: Peer, work: Work, folder: Path, target: Path) -> list[str]:
    python = str(_environment(peer, _kind(work)))
    if peer.name == OURS:
        job, output = str(folder / "job.json"), f"--set=output.path={target}"
        return [python, "-m", "batchscore", "run", "--json", job, output]
    source = folder / ("few" if peer.few else "in")
    weights, cores = str(folder / "model" / work.weights), len(os.sched_getaffinity(0))
    threads, rows = cores if work.heavy else 1, work.batch_rows
    task = Task(str(source), weights, work.network, str(target), FEATURES, rows, cores, threads)
    module = f"benchmarks.scorers.{peer.module}"
    return [python, "-m", module, json.dumps(asdict(task)), *peer.options]


def _environment(peer: Peer, kind: str) -> Path:
    """Returns the Python of a peer that scores models of a kind."""
    if not peer.requirements:
        return environment(peer.module, ())
    return environment(f"{peer.module}-{kind}", (*peer.requirements, *FRAMEWORKS[kind], *ARRAYS))


def _published(target: Path) -> list[Path]:
    return sorted((target / "data").rglob("*.parquet"))


def _turn(peer: Peer, done: Done, scale: float, written: int) -> Turn:
    said = json.loads(done.out if peer.name == OURS else done.out.splitlines()[-1])
    if peer.name == OURS:
        said = {"version": version(OURS), "seconds": said["timings"]["scoring_s"]}
    return Turn(
        said["version"],
        said["seconds"] * scale,
        done.seconds + said["seconds"] * (scale - 1),
        done.cpu_s * scale,
        int(written * scale),
        done.peak,
    )


def check(files: Sequence[Path], known_r: Any, columns: set[str]) -> None:
    """Makes sure that files hold the columns, each key once, and its known score.

    Raises:
        PeerError: They do not; says what is wrong.
    """
    found = ds.dataset([str(file) for file in files])
    missing = columns - {*found.schema.names}
    if missing:
        raise PeerError(f"wrote no column {sorted(missing)}")
    table = found.to_table([KEY, SCORE]).sort_by(KEY)
    keys_r = table[KEY].to_numpy()
    if len(keys_r) != len(known_r) or (keys_r != np.arange(len(known_r))).any():
        raise PeerError(f"wrote {len(keys_r):,} rows; expected each of {len(known_r):,} once")
    worst = float(np.abs(table[SCORE].to_numpy() - known_r).max())
    if not worst <= TOLERANCE:
        raise PeerError(f"a score is off by {worst:.2g}; at most {TOLERANCE:g} may be")


def measure(work: Work, peers: Sequence[Peer], rounds: int, folder: Path) -> list[Result]:
    """Returns the results of all peers that could be run; prints what failed.

    A peer whose first turn fails has no more turns.
    """
    write_work(folder, work)
    known_r = known_scores(folder, work)
    turns: dict[Peer, list[Turn]] = {peer: [] for peer in peers}
    for number in range(rounds + 1):
        for peer in [*turns]:
            try:
                turn = take_turn(peer, work, folder, known_r, number == rounds)
                line = f"{work.name}, turn {number + 1}: {peer.title} {turn.scoring_s:.2f} s"
                print(line, file=sys.stderr)
                turns[peer].append(turn)
            except PeerError as error:
                print(f"{peer.title} failed in turn {number + 1} of {rounds + 1}: {error}\n")
                if not turns[peer]:
                    del turns[peer]
    return [Result(peer, tuple(found)) for peer, found in turns.items()]


def print_table(work: Work, results: Sequence[Result]) -> None:
    """Prints the medians with their spread, and ratios to batchscore's."""
    ours = next((each for each in results if each.peer.name == OURS), None)
    _row("", "scoring s", "ratio", "process s", "ratio", "CPU-s", "memory", "written", "goal")
    _row(*["---"] * 9)
    for each in results:
        _row(
            f"{each.peer.title} {each.turns[0].version}" + (" (scaled)" if each.peer.few else ""),
            each.spread("scoring_s"),
            _ratio(each, ours, "scoring_s"),
            each.spread("process_s"),
            _ratio(each, ours, "process_s"),
            f"{each.middle('cpu_s'):.1f}",
            each.peak,
            f"{each.middle('written') / 2**20:,.0f} MiB",
            _goal(work, each, ours),
        )


def _ratio(each: Result, ours: Result | None, field: str) -> str:
    return f"{each.middle(field) / ours.middle(field):.2f}" if ours else ""


def _goal(work: Work, each: Result, ours: Result | None) -> str:
    """Returns whether the issue's goal for a peer is met, where it has one on this work."""
    if work.name == "slow" and each is ours:
        least = work.sleep_s * work.rows / (work.batch_rows or work.rows)
        over = each.middle("scoring_s") / least - 1
        return f"3 % over {least:.0f} s: {_met(over <= 0.03)} ({over:.1%})"
    if work.name != "mlp" or not ours or each.peer.goal is None:
        return ""
    met = each.middle("scoring_s") >= each.peer.goal * ours.middle("scoring_s")
    return f"{each.peer.goal:g} x: {_met(met)}"


def _met(met: bool) -> str:
    return "met" if met else "not met"


def main() -> None:
    """Measures the works that were asked for; prints a table of each."""
    given = _arguments()
    # As an exception it lets what was started be ended, and what was written be removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"{date.today()}, `{_asked()}`: {_machine()}\n")
    for work in (_resized(each, given.rows) for each in given.work):
        peers = [each for each in given.peers if can_score(each, work)]
        print(f"### {work.name}: {work.rows:,} rows, {work.title}\n")
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="scoring-") as home:
            results = measure(work, peers, given.rounds, Path(home))
            size = sum(file.stat().st_size for file in Path(home).glob("in/*"))
        print(f"{size / 2**20:,.0f} MiB read; load {before:.1f} to {os.getloadavg()[0]:.1f}.\n")
        print_table(work, results)
        print(flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=_choose(WORKS), default=WORKS)
    parser.add_argument("--peers", type=_choose(PEERS), default=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="of a work at most, to try things out")
    return parser.parse_args()


def _choose(known: Sequence[Any]) -> Callable[[str], list[Any]]:
    """Returns what takes names, with commas between them, to those that they name."""
    names = {str(each.name): each for each in known}

    def choose(text: str) -> list[Any]:
        asked = text.split(",")
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(names)}")
        return [names[name] for name in asked]

    return choose


def _resized(work: Work, rows: int | None) -> Work:
    """Returns a work with so many rows at most, in as many shards."""
    if rows is None or rows >= work.rows:
        return work
    shard_rows = max(work.shard_rows * rows // work.rows, 1)
    return replace(work, rows=rows, shard_rows=shard_rows, few_rows=min(rows, work.few_rows))


def _path() -> dict[str, str]:
    """Returns where processes that a peer starts find this package."""
    return {"PYTHONPATH": str(ROOT)}


def _asked() -> str:
    return " ".join(["python -m benchmarks.scoring_peers", *sys.argv[1:]])


def _machine() -> str:
    """Returns the machine and Python, in words."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((f.partition(": ")[2] for f in facts if f.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    return f"{name}, {cores} cores, {memory:.0f} GiB, {platform.system()}, Python {python}"


def _row(*cells: str) -> None:
    print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
