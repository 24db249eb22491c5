"""Drift profiling and its peers on the same data: speed, memory, splits, findings.

    python -m benchmarks.drift_peers [--rows 200000]

A table of reference, one of which four columns changed, and one of the same distribution, each of
34 standard normal float32 columns and two of categories, are in memory as pandas frames (as Arrow
for batchscore) before the clock starts. Timed is what a user waits for: both tables profiled and
compared, with each library's defaults. Libraries take turns, every time in a process of its own.
Their environments are made in `.bench/`; one that cannot be had is printed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.commands import PeerError, run
from benchmarks.environments import environment
from benchmarks.peers.harness import PAIR_ROWS, PAIRS, PIECES

ROUNDS = 3
NUMBERS, CATEGORIES = 34, 2
COLUMNS = NUMBERS + CATEGORIES
CHANGED = {
    "f01": "f01 +0.25 sigma",
    "f02": "f02 +0.5 sigma, one 1e6",
    "f03": "f03 nulls 0 to 5 %",
    "c1": "c1 one value 0.30 to 0.35",
}
QUIET = {"WHYLOGS_NO_ANALYTICS": "True", "DO_NOT_TRACK": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Entry:
    """A library as it is run: its module in `benchmarks.peers`, and what to install for it."""

    title: str
    module: str
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


ENTRIES = (
    Entry("batchscore", "ours"),
    Entry("batchscore, one core", "ours", options=("--one-core",)),
    # Later pandas lacks what this Evidently imports; TFDV does not name dill, which it imports.
    Entry("Evidently", "evidently", ("evidently==0.7.23", "pandas<3", "pyarrow")),
    Entry("whylogs", "whylogs", ("whylogs[viz]==1.6.4", "pandas<3", "pyarrow")),
    Entry("TFDV", "tfdv", ("tensorflow-data-validation==1.16.1", "dill")),
)


@dataclass(frozen=True)
class Result:
    """What a library came to: a judgement a round, and its answers, if it was asked for them."""

    title: str
    rounds: list[dict[str, Any]]
    answers: dict[str, Any]

    def middle(self, field: str) -> float:
        """Returns the median of the rounds."""
        return float(median(each[field] for each in self.rounds))


def write_tables(folder: Path, rows: int) -> None:
    """Writes reference, current and same; the first row of the current f02 is the outlier."""
    for seed, name in enumerate(("reference", "current", "same")):
        chance = np.random.default_rng(seed)
        values = chance.standard_normal((NUMBERS, rows), np.float32)
        shares = [0.3, 0.25, 0.2, 0.15, 0.1]
        missing_r = np.zeros(rows, bool)
        if name == "current":
            values[1] += np.float32(0.25)
            values[2] += np.float32(0.5)
            values[2, 0] = 1e6
            shares = [0.35, 0.25, 0.2, 0.1, 0.1]
            missing_r = chance.random(rows) < 0.05
        columns = {f"f{index:02d}": pa.array(each) for index, each in enumerate(values)}
        columns["f03"] = pa.array(values[3], mask=missing_r)
        columns["c0"] = _texts(chance.integers(0, 50, rows))
        columns["c1"] = _texts(chance.choice(5, rows, p=shares))
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def ask(entry: Entry, task: str, folder: Path) -> dict[str, Any]:
    """Returns what a library's process answers to a task."""
    result = folder / "result.json"
    module = f"benchmarks.peers.{entry.module}"
    python = str(environment(entry.module, entry.requirements))
    words = [python, "-W", "ignore", "-m", module, task, str(folder), str(result)]
    run([*words, *entry.options], QUIET)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def measure(folder: Path) -> list[Result]:
    """Returns the results of all libraries that could be run; prints why others could not."""
    rounds: dict[Entry, list[dict[str, Any]]] = {entry: [] for entry in ENTRIES}
    answers: dict[Entry, dict[str, Any]] = {}
    for task in ["judge"] * ROUNDS + ["answer"]:
        for entry in [*rounds]:
            if task == "answer" and entry.options:
                continue
            try:
                found = ask(entry, task, folder)
            except PeerError as error:
                print(f"{entry.title} is left out: {error}\n")
                del rounds[entry]
                continue
            if task == "judge":
                rounds[entry].append(found)
            else:
                answers[entry] = found
    return [Result(entry.title, rounds[entry], answers.get(entry, {})) for entry in rounds]


def cost(results: list[Result], rows: int) -> None:
    """Prints the seconds, CPU-seconds and memory of both tables profiled and compared."""
    values = 2 * rows * COLUMNS
    _row("", "version", "values/s", "seconds", "of it comparing", "CPU-s", "memory added")
    _row(*["---"] * 7)
    for each in results:
        seconds = each.middle("seconds")
        _row(
            each.title,
            each.rounds[0]["version"],
            f"{values / seconds / 1e6:.1f}M",
            f"{seconds:.2f} ({_range(each.rounds)})",
            f"{each.middle('compare_s'):.2f}",
            f"{each.middle('cpu_s'):.2f}",
            f"{each.middle('added') / 2**20:,.0f} MiB",
        )


def splits(results: list[Result]) -> None:
    """Prints of how many columns the answer changed, and the largest change of a score."""
    _row("columns whose answer changed", "run again", "rows shuffled", "in pieces, merged")
    _row(*["---"] * 4)
    for each in results:
        first, *again = (one["said"] for one in each.rounds)
        whole = each.answers["whole"]
        repeated = max((_changes(first, other) for other in again), default=(0, 0.0))
        pieces = each.answers["pieces"]
        _row(
            each.title,
            _changed(repeated),
            _changed(_changes(whole, each.answers["shuffled"])),
            _changed(_changes(whole, pieces)) if pieces else "cannot merge",
        )


def findings(results: list[Result]) -> None:
    """Prints what is said of the changed columns, and how many others are flagged."""
    _row("", *CHANGED.values(), "unchanged, flagged", "same distribution, flagged")
    _row(*["---"] * (len(CHANGED) + 3))
    for each in results:
        whole, same = each.answers["whole"], each.answers["same"]
        others = {name: said for name, said in whole.items() if name not in CHANGED}
        most = max(said["score"] for name, said in others.items() if name.startswith("f"))
        _row(
            each.title,
            *(_words(whole[name]) for name in CHANGED),
            f"{_flagged(others)} of {len(others)} (largest score {most:.3f})",
            f"{_flagged(same)} of {len(same)}",
        )


def samples(results: list[Result]) -> None:
    """Prints in how many pairs of small samples each change, and no change, is flagged."""
    _row(f"of {PAIRS} pairs of {PAIR_ROWS} rows", "a false alarm", "columns", *CHANGED.values())
    _row(*["---"] * (len(CHANGED) + 3))
    for each in results:
        same, changed = each.answers["pairs_same"], each.answers["pairs_current"]
        _row(
            each.title,
            str(sum(_flagged(said) > 0 for said in same)),
            f"{sum(map(_flagged, same))} of {sum(map(len, same))}",
            *(str(sum(said[name]["flagged"] for said in changed)) for name in CHANGED),
        )


def main() -> None:
    """Measures all libraries and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    print(f"{rows:,} rows x {COLUMNS} columns a table, median of {ROUNDS} rounds; ", end="")
    print(f"{os.cpu_count()} cores, {platform.system()}; load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as home:
        write_tables(Path(home), rows)
        results = measure(Path(home))
    cost(results, rows)
    for table in (splits, findings, samples):
        print()
        table([each for each in results if each.answers])
    print(f"\nPieces: {PIECES}, of TFDV one a core; load {os.getloadavg()[0]:.1f} at the end")


def _texts(codes_r: Any) -> pa.Array:
    return pa.array(np.char.add("v", codes_r.astype(str)))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> tuple[int, float]:
    columns = sum(said != now.get(name) for name, said in before.items())
    return columns, max(abs(said["score"] - now[name]["score"]) for name, said in before.items())


def _changed(found: tuple[int, float]) -> str:
    columns, most = found
    scores = f"a score by up to {most:.2g}" if most else "statistics only"
    return f"{columns} of {COLUMNS}" + (f" ({scores})" if columns else "")


def _flagged(said: dict[str, Any]) -> int:
    return sum(each["flagged"] for each in said.values())


def _words(said: dict[str, Any]) -> str:
    return f"**{said['words']}**" if said["flagged"] else str(said["words"])


def _range(rounds: list[dict[str, Any]]) -> str:
    seconds = [each["seconds"] for each in rounds]
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


def _row(*cells: str) -> None:
    print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
