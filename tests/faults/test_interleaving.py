"""Test that whatever runs, kills and changes of the input came before, the latest state counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.harness import Course, Kill, World, conclude, run, start_server
from tests.faults.victim import Step
from tests.faults.worlds import (
    Published,
    Rows,
    read_published,
    read_rows,
    shard_path,
    snapshot,
    write_shard,
    write_version,
    write_world,
)

SHARDS = 3
CHANGES = 90
"""About as many as a run makes; a kill that would come later does not come."""


@dataclass
class State:
    """A job in a folder, its shards by number, and the course of its runs."""

    folder: Path
    course: Course
    shards: list[int] = field(default_factory=lambda: list(range(SHARDS)))

    @staticmethod
    def begin(folder: Path) -> State:
        job = write_world(folder / "world", SHARDS, rest_s=0.0)
        unknown = Published(Rows(), Rows(), b"", {})
        world = World("interleaving", job, None, Rows(), unknown, (), 0.0)
        (folder / "course").mkdir()
        return State(folder / "world", Course(world, folder / "course", 1))

    def run(self, _: int) -> None:
        """A run that nobody disturbs."""
        end = self.course.run()
        assert end.code == 0, end.said

    def kill(self, number: int) -> None:
        """A run that is killed before one of its changes of the output."""
        end = self.course.run(Kill(step=Step("", 1 + number % CHANGES)))
        assert end.code in (None, 0), end.said

    def add(self, _: int) -> None:
        """A new shard."""
        self.shards.append(max(self.shards) + 1)
        write_shard(self.folder, self.shards[-1])

    def rewrite(self, number: int) -> None:
        """Other rows in one shard."""
        write_shard(self.folder, self.shards[number % len(self.shards)], 1 + number % 9)

    def remove(self, number: int) -> None:
        """One shard less, unless it is the last."""
        if len(self.shards) > 1:
            shard_path(self.folder, self.shards.pop(number % len(self.shards))).unlink()

    def replace_model(self, number: int) -> None:
        """Other weights; it may be those of before."""
        write_version(self.folder, 1 + number % 3)


ACTIONS: tuple[Callable[[State, int], None], ...] = (
    State.run,
    State.kill,
    State.kill,
    State.add,
    State.rewrite,
    State.remove,
    State.replace_model,
)


def check_reader(state: State) -> None:
    """A reader of current.txt finds every file, and no row twice."""
    rows = read_rows(snapshot(state.course.output))
    ids: list[Any] = [row[ID] for row in rows.elements()]
    assert len(ids) == len(set(ids))


ID = 2
"""Where the column id is in a row, its columns sorted by name: a, b, id, …"""


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 999)), max_size=7))
def test_the_latest_state_is_published_whatever_came_before(
    actions: list[tuple[Callable[[State, int], None], int]],
) -> None:
    """Runs, kills and changes in any order end as one run over what there is in the end."""
    start_server()
    with tempfile.TemporaryDirectory() as folder:
        state = State.begin(Path(folder))
        for action, number in actions:
            action(state, number)
            check_reader(state)
        fresh = Path(folder) / "fresh"
        end = run(Path(folder) / "log", state.course.world.job, fresh)
        assert end.code == 0, end.said
        state.course.world = World(
            "interleaving", state.course.world.job, None, Rows(), read_published(fresh), (), 0.0
        )
        trial = conclude(state.course, set())
        assert trial.passed, trial
