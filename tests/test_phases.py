"""Test how a command's time is reported: from the process's start, and by phase."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchscore.cli.app import command_start
from batchscore.commands.run import begin
from batchscore.commands.tidy import close_killed
from batchscore.job import load_job
from batchscore.phases import (
    FRAMEWORK,
    PHASES,
    STEPS,
    Stopwatch,
    Units,
    by_phase,
    rounded,
    split,
    start_up_steps,
)
from batchscore.plan import make_plan, settle
from batchscore.runs import layout
from batchscore.runs.history import read_manifest
from batchscore.system.processes import started_at
from tests import factory

pytestmark = pytest.mark.slow

SECONDS = st.floats(0, 1e6)
SPENT = st.dictionaries(st.sampled_from(["start_up", "planning", "loading"]), SECONDS)
STEPS_SPENT = st.dictionaries(st.sampled_from([*STEPS]), SECONDS)
BEFORE_SCORING = ("start_up", "planning", "loading")
MOMENTS = st.none() | st.builds(Units, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))


@given(SECONDS, SPENT, MOMENTS)
@example(262243.95350065216, {"start_up": 41.86092993346392, "planning": 543949.0}, None)
def test_phases_add_up_to_the_whole(
    seconds: float, spent: dict[str, float], units: Units | None
) -> None:
    """Whatever clocks say, no phase is negative, and they add up, also when rounded."""
    found = split(seconds, spent, units)
    assert tuple(found) == tuple(PHASES)
    assert sum(found.values()) == pytest.approx(seconds)
    assert min(found.values()) >= 0
    # The same phases are reported for another length, if a clock was set back in the meantime.
    for length in (seconds, seconds / 2):
        reported = rounded(found, round(length, 3))
        assert min(reported.values()) >= 0
        assert sum(reported.values()) == pytest.approx(round(length, 3), abs=1e-6)


@given(SECONDS, STEPS_SPENT, MOMENTS)
def test_steps_add_up_to_their_phases(
    seconds: float, spent: dict[str, float], units: Units | None
) -> None:
    """No step is negative; what a phase has in addition belongs to one of its steps."""
    phases = rounded(split(seconds, by_phase(spent), units), round(seconds, 3))
    steps = start_up_steps(spent, phases)
    assert tuple(steps) == (tuple(STEPS) if spent else ())
    assert min(steps.values(), default=0) >= 0
    for phase in BEFORE_SCORING if spent else ():
        mine = sum(each for step, each in steps.items() if STEPS[step].phase == phase)
        assert mine == pytest.approx(phases[phase], abs=1e-6)


def test_what_is_unknown_of_loading_is_the_pipelines() -> None:
    """Between the launcher's last measurement and the first row, workers start."""
    spent = {"process": 0.1, "beam": 1.9004, "job": 0.5, "sample": 0.5}
    phases = rounded(split(10, by_phase(spent), Units(4, 9)), 10)
    steps = {step: each for step, each in start_up_steps(spent, phases).items() if each}
    assert steps == {"process": 0.1, "beam": 1.9, "job": 0.5, "sample": 0.5, "pipeline": 0.999}


def test_phases_of_earlier_versions_have_no_steps() -> None:
    """A plan that such a version wrote holds phases, which are reported as they are."""
    spent = {"start_up": 4.0, "planning": 1.0, "loading": 0.5, "scoring": 0.0}
    assert by_phase(spent) == {**spent, "publishing": 0.0}
    assert start_up_steps(spent, rounded(by_phase(spent), 6.0)) == {}


def test_units_lie_between_loading_and_publishing() -> None:
    """Loading ends with the first unit's start, publishing starts with the last one's end."""
    spent = {"start_up": 4.0, "planning": 1.0, "loading": 0.5}
    assert split(20, spent, Units(7, 18)) == {
        "start_up": 4,
        "planning": 1,
        "loading": 2,
        "scoring": 11,
        "publishing": 2,
    }
    assert list(split(20, spent, Units(0, 0)).values()) == [4, 1, 0.5, 0, 14.5]
    assert list(split(20, spent, None).values()) == [4, 1, 0.5, 14.5, 0]


def test_each_moment_counts_for_one_phase() -> None:
    """What is done during another phase counts for that one alone, also where it fails."""
    clock = Stopwatch(time.time() - 5)
    clock.enter("planning")
    with pytest.raises(KeyError), clock.during("loading"):
        raise KeyError
    clock.enter("publishing")
    spent = clock.spent()
    assert spent["start_up"] >= 5
    assert spent["start_up"] < sum(spent.values()) <= time.time() - clock.started
    assert spent["scoring"] == 0


def test_a_process_knows_when_it_was_started() -> None:
    """The system's own answer agrees with the parent that started the process."""
    program = "from batchscore.system.processes import started_at; print(started_at())"
    before = time.time()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    # The system counts in hundredths of a second.
    assert before - 0.02 <= float(done.stdout) <= time.time()
    assert started_at() is not None


@pytest.mark.parametrize(
    ("process", "start"), [(99.0, 99.0), (None, 100.0), (101.0, 100.0), (50.0, 100.0)]
)
def test_a_shell_that_became_the_command_does_not_count(
    process: float | None, start: float
) -> None:
    """Of a process that waited before it became the command only the command's time counts."""
    assert command_start(process, 100.0) == start


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, str, dict[str, float]]:
    """A job that a process of its own ran: the wall time, what it printed, and its phases."""
    folder = tmp_path_factory.mktemp("timed")
    job = factory.write_job(folder)
    before = time.time()
    args = [sys.executable, "-m", "batchscore", "run", "--json", str(job)]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    return job, time.time() - before, done.stdout, json.loads(done.stdout)["phases"]


def test_a_run_takes_what_a_person_waits(
    timed: tuple[Path, float, str, dict[str, float]],
) -> None:
    """Imports count: most of the wall time is reported, and never more than all of it."""
    _, wall, printed, phases = timed
    seconds = json.loads(printed)["seconds"]
    assert 0.5 * wall <= seconds <= wall
    assert sum(phases.values()) == pytest.approx(seconds, abs=1e-6)
    assert max(phases, key=phases.__getitem__) == "start_up"
    steps = json.loads(printed)["start_up_seconds"]
    assert sum(steps.values()) == pytest.approx(sum(phases[p] for p in BEFORE_SCORING), abs=1e-6)
    # The framework may be there before anybody waits for it.
    assert all(steps[step] > 0 for step in STEPS if step != FRAMEWORK)


def test_all_that_tell_times_agree(timed: tuple[Path, float, str, dict[str, float]]) -> None:
    """The run's JSON, its manifest, `show` and `runs` report the same seconds and phases."""
    job, _, printed, phases = timed
    reported, keys = json.loads(printed), ("started", "finished", "seconds", "phases")
    (listed,) = json.loads(factory.run_cli("runs", "--json", job).stdout)
    shown_run = factory.run_json("show", job)
    for found in (shown_run, listed):
        assert [found[key] for key in keys] == [reported[key] for key in keys]
    assert shown_run["start_up_seconds"] == reported["start_up_seconds"]
    shown = ", ".join(f"{n.replace('_', '-')} {s:.3f} s" for n, s in phases.items())
    steps = ", ".join(f"{n} {s:.3f}" for n, s in reported["start_up_seconds"].items() if s)
    lines = f"phases of {reported['seconds']:.3f} s: {shown}\nbefore scoring: {steps}\n"
    assert lines in factory.run_cli("show", job).stdout
    assert f" {reported['seconds']:.1f} " in factory.run_cli("runs", job).stdout


def test_a_run_with_nothing_to_do_tells_its_own_time(
    timed: tuple[Path, float, str, dict[str, float]],
) -> None:
    """Seconds and start are those of the command that looked; the publication keeps its own."""
    job, _, printed, _ = timed
    first, again = json.loads(printed), factory.run_json("run", job)
    assert (again["status"], again["published_at"]) == ("unchanged", first["finished"])
    assert again["started"] > first["finished"]
    assert sum(again["phases"].values()) == pytest.approx(again["seconds"], abs=1e-6)
    assert set(again["phases"]) == set(PHASES)
    assert (again["phases"]["scoring"], again["stage_seconds"]) == (0, {})
    steps = again["start_up_seconds"]
    # What is published may be compared in less than the millisecond that a step is rounded to.
    spent = {step for step in STEPS if steps[step]}
    assert spent & {"job", "input", "published"}
    assert not spent & {"beam", "framework", "model", "sample"}
    line = factory.run_cli("run", job).stdout.splitlines()[2]
    assert "planning" in line
    assert "rows/s" not in line


def test_held_failed_and_resumed_runs_tell_phases(tmp_path: Path) -> None:
    """Held before or after scoring, failed, or published from what another run finished."""
    job = factory.write_job(tmp_path, {"checks.score_range": [0.99, 1.0]})
    held = factory.run_json("run", job)
    factory.change_job(tmp_path, {"checks.score_range": None})
    resumed = factory.run_json("run", job)
    factory.write_model(tmp_path / "model", version="1.1")
    factory.change_job(tmp_path, {"on_change": {"model": "hold"}})
    early = factory.run_json("run", job)
    factory.change_job(tmp_path, {"on_change": None, "rejects": {"max_ratio": 0}})
    rows = factory.make_rows(200, 300).to_pydict()
    rows["a"][7] = None
    factory.write_shard(tmp_path / "in/2.parquet", pa.table(rows))
    failed = factory.run_json("run", job)
    statuses = [run["status"] for run in (held, resumed, early, failed)]
    assert statuses == ["held", "published", "held", "failed"]
    for run in (held, resumed, early, failed):
        assert sum(run["phases"].values()) == pytest.approx(run["seconds"], abs=1e-6)
        assert run["phases"]["planning"] > 0
    assert held["phases"]["scoring"] > 0
    assert [run["phases"]["scoring"] for run in (resumed, early)] == [0, 0]


@pytest.mark.parametrize(
    ("planned", "counted", "seconds"),
    [(5, [9, 7], 9), (5, [], 5), (-30, [-20], 0), (5, [7200], 3600)],
    ids=["counts", "no counts", "the store's clock is behind", "and ahead"],
)
def test_a_killed_run_ends_with_what_it_wrote_last(
    planned: float, counted: list[float], seconds: float, tmp_path: Path
) -> None:
    """Killed an hour before a later run closes it, it took no hour; nor less than no time."""
    plan = make_plan(load_job(str(factory.write_job(tmp_path))))
    clock = Stopwatch(time.time() - 3600)
    run = "20261120-aaaa"
    begin(plan, settle(plan), run, 1, clock)
    store, slice_ = plan.spec.output, plan.spec.slice
    paths = {f"{layout.progress(run)}/{at}.json": at for at in counted}
    for path, at in {layout.plan_file(run): planned, **paths}.items():
        if path in paths:
            store.write(path, b"{}")
        os.utime(store.path(path), (clock.started + at,) * 2)
    close_killed(store, slice_, run)
    closed = read_manifest(store, run)
    assert closed.seconds == pytest.approx(seconds, abs=60 if seconds == 3600 else 0.01)
    assert sum((closed.phases or {}).values()) == pytest.approx(closed.seconds, abs=1e-6)
    assert str(closed.finished) >= closed.started


def test_a_rollback_tells_how_long_it_took(tmp_path: Path) -> None:
    """It ends after it started, and says by how much."""
    job = factory.write_job(tmp_path)
    run = factory.run_json("run", job)["run"]
    made = factory.run_json("rollback", job, "--undo", run)
    assert made["seconds"] > 0
    assert made["started"] < made["finished"]
