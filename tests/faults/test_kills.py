"""Test that runs killed with SIGKILL, at any moment and at any step, lose and repeat nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.faults.harness import (
    SCENARIOS,
    Kill,
    Trial,
    World,
    disturb,
    draw_kills,
    make_world,
    publish_steps,
    start_server,
)
from tests.faults.worlds import Rows

pytestmark = pytest.mark.slow
THREADS = 4
TRIALS = 12


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """Every scenario, run undisturbed."""
    start_server()
    folder = tmp_path_factory.mktemp("worlds")
    with ThreadPoolExecutor(THREADS) as pool:
        made = pool.map(
            lambda pair: make_world(folder / str(pair[0]), pair[1]), enumerate(SCENARIOS)
        )
        return {world.name: world for world in made}


def wrong(trials: list[Trial]) -> list[Trial]:
    """Those of which something does not hold."""
    return [trial for trial in trials if not trial.passed]


def test_runs_killed_at_random_end_as_if_nothing_had_happened(
    worlds: dict[str, World], tmp_path: Path
) -> None:
    """Of runs killed up to three times each, no finished unit is scored again, no row lost."""

    def attempt(seed: int) -> Trial:
        random, world = Random(seed), list(worlds.values())[seed % len(worlds)]
        workers = 2 if seed % 3 == 2 else 1
        return disturb(world, tmp_path / str(seed), draw_kills(world, random, workers > 1), workers)

    with ThreadPoolExecutor(THREADS) as pool:
        trials = list(pool.map(attempt, range(TRIALS)))
    assert wrong(trials) == []
    assert sum(len(trial.kills) for trial in trials) >= TRIALS // 2


def test_a_run_killed_at_any_step_of_publish_is_published_whole(
    worlds: dict[str, World], tmp_path: Path
) -> None:
    """Whatever step of publish is not done any more, readers see all of the old or of the new."""
    world = worlds["rewritten shard"]
    steps = publish_steps(world)
    names = {step.name for step in steps}
    assert {"put current.txt", "remove _SUCCESS", "move published file to retired file"} <= names

    def attempt(number: int) -> Trial:
        return disturb(world, tmp_path / str(number), [Kill(step=steps[number])])

    with ThreadPoolExecutor(THREADS) as pool:
        trials = list(pool.map(attempt, range(len(steps))))
    assert wrong(trials) == []
    assert [len(trial.kills) for trial in trials] == [1] * len(steps)


def test_a_row_too_many_and_one_too_few_are_seen(worlds: dict[str, World], tmp_path: Path) -> None:
    """The harness tells when published rows are not those that are expected."""
    world = worlds["first run"]
    row = next(iter(world.after.rows))
    for sign in (1, -1):
        rows = Rows(world.after.rows)
        rows[row] += sign
        other = replace(world, after=replace(world.after, rows=+rows))
        trial = disturb(other, tmp_path / str(sign), [])
        assert (trial.lost, trial.twice, trial.passed) == (sign > 0, sign < 0, False)
