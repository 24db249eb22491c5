"""Kills runs by the hundred, several side by side, and prints what came of them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from random import Random, randrange

from tests.faults.harness import (
    PHASES,
    SCENARIOS,
    Trial,
    World,
    disturb,
    draw_kills,
    make_world,
    start_server,
)

_HEAD = ("last kill in", "kills", "units finished", "resumed", "rows lost", "rows twice", "wrong")
_WORKERS = 2
_UNKILLED = "no kill (came late)"


def main() -> int:
    """Runs trials until there were as many kills as asked for; 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at least so many (default 200)")
    parser.add_argument("--seed", type=int, default=randrange(2**32), help="of what is drawn")
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count(), help="trials at a time")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    start_server()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    trials = list(_run_trials(folder, asked.kills, Random(asked.seed), asked.side_by_side))
    print("\n".join(_table(trials)))
    if all(trial.passed for trial in trials):
        shutil.rmtree(folder)
        return 0
    print(f"what the wrong ones left lies in {folder}")
    return 1


def _run_trials(folder: Path, kills: int, random: Random, threads: int) -> Iterator[Trial]:
    with ThreadPoolExecutor(threads) as pool:
        names = list(SCENARIOS)
        worlds = list(pool.map(lambda n: make_world(folder / n.replace(" ", "-"), n), names))
        running: set[Future[Trial]] = set()
        started = done = 0
        while running or done < kills:
            while done < kills and len(running) < threads:
                world = worlds[started % len(worlds)]
                running.add(pool.submit(_try, world, folder / f"trial{started}", random.random()))
                started += 1
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for trial in (future.result() for future in ended):
                done += len(trial.kills)
                _tell(trial)
                yield trial


def _try(world: World, folder: Path, seed: float) -> Trial:
    random = Random(seed)
    workers = random.choice((1, 1, _WORKERS))
    return disturb(world, folder, draw_kills(world, random, workers > 1), workers)


def _tell(trial: Trial) -> None:
    if not trial.passed:
        places = ", ".join(f"{phase} ({step})" for phase, step in trial.kills)
        print(f"{trial.world}, killed in {places or 'no phase'}: {trial}", flush=True)


def _table(trials: list[Trial]) -> list[str]:
    """Returns a line for each phase, and one for all; a trial counts where its last kill fell."""
    lines = [_line(_HEAD)]
    last = [trial.kills[-1][0] if trial.kills else _UNKILLED for trial in trials]
    for phase in (*PHASES, _UNKILLED):
        some = [trial for trial, where in zip(trials, last, strict=True) if where == phase]
        kills = sum(where == phase for trial in trials for where, _ in trial.kills)
        lines.append(_line((phase, kills, *_sums(some))))
    total = sum(len(trial.kills) for trial in trials)
    return [*lines, _line(("all", total, *_sums(trials)))]


def _sums(trials: list[Trial]) -> tuple[int, ...]:
    return (
        sum(trial.finished for trial in trials),
        sum(trial.resumed for trial in trials),
        sum(trial.lost for trial in trials),
        sum(trial.twice for trial in trials),
        sum(not trial.passed for trial in trials),
    )


def _line(cells: tuple[object, ...]) -> str:
    first, *rest = map(str, cells)
    return f"{first:<20}" + "".join(f"{cell:>16}" for cell in rest)


if __name__ == "__main__":
    sys.exit(main())
