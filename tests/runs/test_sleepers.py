"""Test that a process which slept past its lease inside a publication changes nothing."""

from __future__ import annotations

import os
from itertools import cycle, islice
from pathlib import Path

import pytest

from batchscore.errors import FailedError, RetryError
from batchscore.storage import local_locks as locks
from tests.faults.sleepers import (
    SLEEPERS,
    TAKERS,
    LockedStore,
    World,
    check_next,
    check_world,
    copy_world,
    count_steps,
    expire,
    interleave,
    make_world,
)

# `make faults` stops before every operation, with everyone who may take the slice over.
STRIDE = 5


@pytest.mark.slow
@pytest.mark.parametrize("sleeper", SLEEPERS)
def test_a_sleeper_that_wakes_up_leaves_the_slice_to_its_taker(
    tmp_path: Path, sleeper: str
) -> None:
    """Stopped before a change, it says that it lost the slice, and state and rows are right."""
    world = make_world(tmp_path, str(tmp_path / "before"), sleeper)
    steps = count_steps(copy_world(world, tmp_path / "whole"), sleeper, reads=False)
    assert steps > 8
    takers = islice(cycle(TAKERS), list(SLEEPERS).index(sleeper), None)
    for at in range(0, steps, STRIDE):
        taker = next(takers)
        found = interleave(copy_world(world, tmp_path / f"out{at}"), sleeper, taker, at, False)
        assert found == [], f"{sleeper} stopped before change {at}, and another that {taker}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sleeper", "name"),
    [
        ("rescoring", "current.txt"),
        ("release", "current.txt"),
        ("release", "manifest.json"),
        ("rollback", "current.txt"),
        ("rollback", "manifest.json"),
    ],
)
def test_a_sleeper_inside_a_lock_keeps_others_out_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: str, name: str
) -> None:
    """Another run's error names file, process and remedy; once it woke up, all is in order."""
    monkeypatch.setattr(locks, "_SECONDS", 0.1)
    world = make_world(tmp_path, str(tmp_path / "out"), sleeper)
    codes: list[int] = []

    def sleep() -> None:
        expire(world.store)
        with pytest.raises(RetryError, match=rf"{name}\.lock: process {os.getpid()} ") as reported:
            TAKERS["rescores"](world, world.store)
        codes.append(reported.value.exit_code)

    with pytest.raises(FailedError, match="does not hold slice"):
        SLEEPERS[sleeper][1](world, LockedStore(world.address, name, sleep))
    assert codes == [4]
    assert check_world(world) == []
    assert check_next(world) == []


@pytest.mark.slow
def test_a_late_copy_of_a_store_of_objects_is_removed(tmp_path: Path) -> None:
    """A rollback that copies a file again after it was taken back leaves nothing in `data/`."""

    def world(name: str) -> World:
        return make_world(tmp_path / name, f"memory://{tmp_path.name}/{name}", "rollback")

    for at in range(count_steps(world("whole"), "rollback", reads=False)):
        assert interleave(world(f"out{at}"), "rollback", "undoes", at, reads=False) == [], at
