"""Runs that are killed and started again, and what must hold of their output afterwards."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from tests.faults.victim import Order, Step, obey
from tests.faults.worlds import (
    UNIT_ROWS,
    Published,
    Rows,
    leftovers,
    read_published,
    read_records,
    read_rows,
    snapshot,
    write_shard,
    write_version,
    write_world,
)

_LIMIT_SECONDS = 180.0
_TRIES = 5
# The step that begins a phase of a run; what comes before all of them is start-up.
_PHASES = {
    "link lease": "lease",
    "write plan.json": "begin",
    "write staged file": "scoring",
    "write profile.parquet": "merge",
    "write journal.json": "publish",
    "remove _SUCCESS": "publish",
    "remove journal.json": "clean-up",
}
PHASES = ("start-up", "lease", "begin", "scoring", "merge", "publish", "clean-up")


@dataclass(frozen=True)
class Kill:
    """SIGKILL before a step or after some seconds, for all processes of a run or for one alone."""

    step: Step | None = None
    seconds: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class End:
    """How a command ended.

    Args:
        code: its exit code, or None if it was killed.
        steps: those that it came to, workers' among them.
        said: what it printed.
        seconds: that it took.
        group: its process group.
    """

    code: int | None
    steps: tuple[str, ...]
    said: str
    seconds: float
    group: int


def find_phase(steps: Sequence[str]) -> str:
    """Returns the phase of a run that has come so far."""
    found = [_PHASES[step] for step in steps if step in _PHASES]
    return found[-1] if found else PHASES[0]


def start_server() -> None:
    """Starts the server that victims are forked from; it imports all that they need once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.faults.victim"])
    forkserver.ensure_running()


def command(
    log: Path, output: Path, *arguments: object, workers: int = 1, kill: Kill | None = None
) -> End:
    """Runs a command in a process of its own, and kills it where that is asked for.

    Args:
        log: a folder for what it says and does.
        output: the folder whose changes are steps.
        arguments: of the command line.
        workers: processes that score.
        kill: when, or None.
    """
    log.mkdir(parents=True)
    words = tuple(map(str, arguments))
    step, alone = (kill.step, kill.alone) if kill else (None, False)
    order = Order(words, str(output), str(log), UNIT_ROWS, workers > 1, step, alone)
    process = multiprocessing.get_context("forkserver").Process(target=obey, args=(order,))
    started = time.monotonic()
    process.start()
    _wait(process, kill)
    seconds = time.monotonic() - started
    assert process.pid is not None
    # The process's own exitcode may be lost where several threads start processes.
    code = _read(log / "code.txt")
    steps = tuple(_read(log / "steps.txt").splitlines())
    said = _read(log / "said.txt")
    return End(int(code) if code else None, steps, said, seconds, process.pid)


def _wait(process: BaseProcess, kill: Kill | None) -> None:
    if kill is not None and kill.step is None:
        process.join(kill.seconds)
        if process.is_alive():
            _kill(process, kill.alone)
    process.join(_LIMIT_SECONDS)
    if process.is_alive():
        _kill(process, alone=False)
        process.join()
        raise AssertionError(f"a command did not end within {_LIMIT_SECONDS:.0f} s")


def _kill(process: BaseProcess, alone: bool) -> None:
    assert process.pid is not None
    try:
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet, or has just ended
        process.kill()


def end_strays(end: End) -> None:
    """Kills workers that outlived their launcher."""
    with suppress(ProcessLookupError):
        os.killpg(end.group, signal.SIGKILL)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class World:
    """A job whose state changed since its output was published, and what undisturbed runs make.

    Args:
        name: of the scenario.
        job: the job file.
        base: an output as it was published before the change, or None.
        before: the rows that readers saw then.
        after: what one run over the state after the change publishes in an output of its own.
        steps: of an undisturbed run on the base.
        seconds: that it took.
    """

    name: str
    job: Path
    base: Path | None
    before: Rows = field(repr=False)
    after: Published = field(repr=False)
    steps: tuple[str, ...] = field(repr=False)
    seconds: float


def _first(_folder: Path) -> None:
    """Nothing was published before."""


def _add(folder: Path) -> None:
    for number in range(8, 12):
        write_shard(folder, number)


def _rewrite(folder: Path) -> None:
    write_shard(folder, 3, version=1)


def _replace_model(folder: Path) -> None:
    write_version(folder, 2)


# Shards before the change, and the change.
SCENARIOS: dict[str, tuple[int, Callable[[Path], None]]] = {
    "first run": (10, _first),
    "added shards": (8, _add),
    "rewritten shard": (8, _rewrite),
    "changed model": (6, _replace_model),
}


def make_world(folder: Path, name: str) -> World:
    """Builds a scenario and runs it undisturbed."""
    shards, change = SCENARIOS[name]
    job = write_world(folder, shards)
    base = None if change is _first else folder / "base"
    before = Rows()
    if base is not None:
        _succeed(folder / "logs/base", base, job)
        before = read_published(base).rows
    change(folder)
    fresh, trial = folder / "fresh", folder / "undisturbed"
    _succeed(folder / "logs/fresh", fresh, job)
    if base is not None:
        shutil.copytree(base, trial)
    end = _succeed(folder / "logs/undisturbed", trial, job)
    return World(name, job, base, before, read_published(fresh), end.steps, end.seconds)


def run(
    log: Path, job: Path, output: Path, *words: str, workers: int = 1, kill: Kill | None = None
) -> End:
    """Runs the job into an output, to the run's end or to a kill."""
    sets = ("--set", f"output.path={output}", "--set", f"runtime.workers={workers}")
    return command(log, output, "run", job, *sets, *words, workers=workers, kill=kill)


def _succeed(log: Path, output: Path, job: Path) -> End:
    end = run(log, job, output)
    assert end.code == 0, end.said
    return end


@dataclass(frozen=True)
class Trial:
    """What came of a run that was killed and started again until it reached its end.

    Args:
        world: the scenario's name.
        kills: phase and last step of each kill.
        finished: units that were scored to their end before the last kill.
        resumed: those of them that the published run did not score again.
        lost: rows that are not published as often as they should be.
        twice: rows that are published too often, or should not be.
        complaints: whatever else does not hold.
    """

    world: str
    kills: tuple[tuple[str, str], ...] = ()
    finished: int = 0
    resumed: int = 0
    lost: int = 0
    twice: int = 0
    complaints: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        whole = self.finished == self.resumed
        return whole and not (self.lost or self.twice or self.complaints)


@dataclass
class Course:
    """A trial under way, and all that was found until then.

    Args:
        world: what is run, and what is to come of it.
        folder: holds the output, as `out`, and what runs say.
        workers: processes of each run.
        ends: of all runs so far.
        kills: phase and last step of each kill.
        complaints: what did not hold.
        strays: runs of which only one process was killed.
    """

    world: World
    folder: Path
    workers: int
    ends: list[End] = field(default_factory=list)
    kills: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    strays: list[End] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where all of its runs publish."""
        return self.folder / "out"

    def run(self, kill: Kill | None = None, *words: str) -> End:
        """Runs the job once more."""
        log, job = self.folder / f"log{len(self.ends)}", self.world.job
        end = run(log, job, self.output, *words, workers=self.workers, kill=kill)
        self.ends.append(end)
        if kill is not None and kill.alone:
            self.strays.append(end)
        return end

    def complain(self, what: str) -> None:
        """Notes what does not hold."""
        self.complaints.append(what)


def disturb(world: World, folder: Path, kills: list[Kill], workers: int = 1) -> Trial:
    """Kills a run, starts it again, and so on; then lets one reach its end, and judges the output.

    After each kill a reader must see what was published before or what is to be, never a mix.
    """
    course = Course(world, folder, workers)
    folder.mkdir(parents=True)
    if world.base is not None:
        shutil.copytree(world.base, course.output)
    known = read_records(course.output)
    finished: set[tuple[str, str]] = set()
    for kill in kills:
        end = course.run(kill)
        _check_reader(course)
        if end.code == 0:
            break
        if end.code is None or kill.alone:
            course.kills.append(_place(kill, end))
            finished = read_records(course.output) - known
        elif not course.strays:
            course.complain(f"a run fails before it is killed: {end.said[-600:]}")
    return conclude(course, finished)


def conclude(course: Course, finished: set[tuple[str, str]]) -> Trial:
    """Lets a run reach its end, and compares what it leaves with an undisturbed one.

    Args:
        course: the trial under way.
        finished: unit and attempt of what the run must not score again.
    """
    _settle(course)
    trial = _judge(course, finished)
    if trial.passed:
        shutil.rmtree(course.folder)
    return trial


def _place(kill: Kill, end: End) -> tuple[str, str]:
    """Returns the phase and the step that a kill came in; workers may have gone on after it."""
    steps = end.steps
    if kill.step is not None and kill.step.name in steps:
        last = len(steps) - steps[::-1].index(kill.step.name)
        steps = steps[:last]
    return find_phase(steps), steps[-1] if steps else "none"


def _check_reader(course: Course) -> None:
    files = snapshot(course.output)
    gone = [file for file in files if not file.exists()]
    if gone:
        course.complain(f"current.txt lists {gone[0].name}, which is not there")
        return
    if read_rows(files) not in (course.world.before, course.world.after.rows):
        course.complain("current.txt lists neither the rows of before nor those of after")


def _settle(course: Course) -> None:
    """Runs until a run reaches its end; one that strays of an earlier overtook is run again."""
    for _ in range(_TRIES):
        if course.run().code == 0:
            return
        if not course.strays:
            break
        time.sleep(1.0)
    course.complain(f"a run that nobody killed fails: {course.ends[-1].said[-600:]}")


def _judge(course: Course, finished: set[tuple[str, str]]) -> Trial:
    trial = Trial(course.world.name, tuple(course.kills), len(finished))
    try:
        found = read_published(course.output)
    except (StopIteration, OSError) as error:
        course.complain(f"nothing is published: {error!r}")
        return replace(trial, complaints=tuple(course.complaints))
    _compare(course, found)
    units = {(unit["unit"], unit["attempt"]) for unit in found.manifest["units"]}
    _check_rest(course)
    expected = course.world.after.rows
    return replace(
        trial,
        resumed=len(finished & units),
        lost=(expected - found.rows).total(),
        twice=(found.rows - expected).total(),
        complaints=tuple(course.complaints),
    )


def _compare(course: Course, found: Published) -> None:
    """Compares all but the rows themselves with an undisturbed run."""
    after = course.world.after
    if found.profile != after.profile:
        course.complain("the profile differs from an undisturbed run's")
    if found.rejects != after.rejects:
        course.complain("the rejected rows differ from an undisturbed run's")
    counts = ("input", "filtered", "scored", "rejected")
    if any(found.manifest["rows"][name] != after.manifest["rows"][name] for name in counts):
        course.complain(f"the manifest counts {found.manifest['rows']}")
    data = set((course.output / "data").rglob("*.parquet"))
    if data != set(snapshot(course.output)):
        course.complain("data/ holds other files than current.txt lists")


def _check_rest(course: Course) -> None:
    """Nothing is left of the kills, at the latest once another run has published."""
    for end in course.strays:
        end_strays(end)
    if leftovers(course.output) and _wrote_nothing(course):
        course.run(None, "--rescore")
        if read_published(course.output).rows != course.world.after.rows:
            course.complain("scoring once more published other rows")
    left = leftovers(course.output)
    if left:
        course.complain(f"{len(left)} leftovers, among them {left[0]}")
    verified = command(course.folder / "verify", course.output, "verify", course.output)
    if verified.code != 0:
        course.complain(f"verify ends {verified.code}: {verified.said[-600:]}")


def _wrote_nothing(course: Course) -> bool:
    """Tells whether the last run found all done, or strays may have left something after it."""
    return bool(course.strays) or "write plan.json" not in course.ends[-1].steps


def draw_kills(world: World, random: Random, alone: bool) -> list[Kill]:
    """Returns one to three kills: each at a moment, or before a step, of an undisturbed run."""
    return [_draw_kill(world, random, alone) for _ in range(random.choice((1, 1, 1, 2, 3)))]


def _draw_kill(world: World, random: Random, alone: bool) -> Kill:
    alone = alone and random.random() < 0.5
    if random.random() < 0.5:
        return Kill(seconds=random.uniform(0.0, world.seconds), alone=alone)
    return Kill(step=random.choice(count_steps(world.steps)), alone=alone)


def count_steps(steps: tuple[str, ...]) -> list[Step]:
    """Returns each step with how often the same was done until then."""
    return [Step(name, steps[: at + 1].count(name)) for at, name in enumerate(steps)]


def publish_steps(world: World) -> list[Step]:
    """Returns the steps from the journal to the run's end, each kind's first and last."""
    counted = count_steps(world.steps)
    tail = counted[world.steps.index("write journal.json") :]
    first = {step.name: step for step in reversed(tail)}
    last = {step.name: step for step in tail}
    return list(dict.fromkeys([*first.values(), *last.values()]))
