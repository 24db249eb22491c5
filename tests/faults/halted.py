"""Stops runs with SIGSTOP while they publish, lets others take over, and lets them go on."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.faults.harness import (
    SCENARIOS,
    World,
    command,
    make_world,
    publish_steps,
    run,
    start_server,
)
from tests.faults.victim import Order, Step, obey
from tests.faults.worlds import UNIT_ROWS, leftovers, read_published, snapshot
from tests.waiting import wait_until

_LIMIT_SECONDS = 600.0
_LOCKED = "has held this lock"
_LOST = "does not hold slice"


def main() -> int:
    """Runs the rounds; 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.halted", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="each n-th step (default 1)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    names = [*SCENARIOS]
    parser.add_argument("--only", choices=names, nargs="*", default=names, help="scenarios")
    asked = parser.parse_args()
    start_server()
    done = wrong = 0
    for name in asked.only:
        with tempfile.TemporaryDirectory(prefix="halted-") as folder:
            world = make_world(Path(folder, "world"), name)
            steps = publish_steps(world)[asked.first :: asked.every]
            for number, step in enumerate(steps):
                found = stop_and_go_on(world, Path(folder, str(number)), step)
                print(f"{name}, stopped before {step.name} {step.count}: {found}", flush=True)
                done, wrong = done + 1, wrong + bool(found)
    print(f"{done} rounds, {wrong} wrong")
    return int(wrong > 0)


def stop_and_go_on(world: World, folder: Path, step: Step) -> list[str]:
    """Stops a run before a step, scores all in another one, and lets the first go on.

    Returns what does not hold afterwards.
    """
    output = folder / "out"
    folder.mkdir()
    if world.base is not None:
        shutil.copytree(world.base, output)
    sleeper = _start(folder / "sleeper", world, output, step)
    if not _stops(sleeper):
        return ["the run never came to the step"]
    _expire(output)
    taker = run(folder / "taker", world.job, output, "--rescore")
    assert sleeper.pid is not None
    os.kill(sleeper.pid, signal.SIGCONT)
    sleeper.join(_LIMIT_SECONDS)
    # Who was stopped while it kept a lock lets nobody publish until it goes on.
    fine = taker.code == 0 or (taker.code == 4 and _LOCKED in taker.said)
    wrong = [] if fine else [f"the taker ends {taker.code}: {taker.said[-600:]}"]
    return [*wrong, *_check_sleeper(folder / "sleeper"), *_check_output(world, folder, output)]


def _start(log: Path, world: World, output: Path, step: Step) -> BaseProcess:
    log.mkdir()
    words = ("run", str(world.job), "--set", f"output.path={output}")
    order = Order(words, str(output), str(log), UNIT_ROWS, end=step, stops=True)
    process = multiprocessing.get_context("forkserver").Process(target=obey, args=(order,))
    process.start()
    return process


def _stops(process: BaseProcess) -> bool:
    """Waits until a process is stopped; False if it ends before."""
    wait_until(lambda: not process.is_alive() or _is_stopped(process), _LIMIT_SECONDS)
    return process.is_alive()


def _is_stopped(process: BaseProcess) -> bool:
    status = Path(f"/proc/{process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


def _expire(output: Path) -> None:
    """Makes the newest lease look as if its process were dead: nobody waits for it."""
    lease = max((output / "_batchscore/slices").glob("*/lease/*.json"))
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "started": "0"}))


def _check_sleeper(log: Path) -> list[str]:
    code, said = (log / "code.txt").read_text(), (log / "said.txt").read_text()
    steps = (log / "steps.txt").read_text().splitlines()
    # Once its journal is gone, its publication is over.
    lost, over = code == "1" and _LOST in said, "remove journal.json" in steps
    if lost or (over and code == "0"):
        return []
    return [f"the sleeper ends {code}: {said[-600:]}"]


def _check_output(world: World, folder: Path, output: Path) -> list[str]:
    """Returns what is wrong with the output, as it is and once another run has published."""
    wrong = _check_commands(folder, output, "verify", [output])
    rerun = ["--set", f"output.path={output}", "--rescore"]
    wrong += _check_commands(folder, output, "run", [world.job, *rerun])
    if read_published(output).rows != world.after.rows:
        wrong.append("the next run publishes other rows")
    if set((output / "data").rglob("*.parquet")) != set(snapshot(output)):
        wrong.append("data/ holds other files than current.txt lists")
    return [*wrong, *(f"{path} is left" for path in leftovers(output))]


def _check_commands(
    folder: Path, output: Path, verb: str, arguments: Sequence[object]
) -> list[str]:
    end = command(folder / verb, output, verb, *arguments)
    return [] if end.code == 0 else [f"{verb} ends {end.code}: {end.said[-600:]}"]


if __name__ == "__main__":
    sys.exit(main())
