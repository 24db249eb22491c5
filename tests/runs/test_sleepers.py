"""Test that a process which slept past its lease inside a publication changes nothing."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from tests.faults.sleepers import (
    SLEEPERS,
    TAKERS,
    copy_world,
    count_steps,
    interleave,
    make_world,
)


@pytest.mark.parametrize("sleeper", SLEEPERS)
def test_a_sleeper_that_wakes_up_anywhere_leaves_the_slice_to_its_taker(
    tmp_path: Path, sleeper: str
) -> None:
    """Stopped before any operation, it says that it lost the slice, whose state is right."""
    world = make_world(tmp_path, str(tmp_path / "before"), sleeper)
    steps = count_steps(copy_world(world, tmp_path / "whole"), sleeper)
    assert steps > 20
    takers = cycle(TAKERS)
    for at in range(steps):
        taker = next(takers)
        found = interleave(copy_world(world, tmp_path / f"out{at}"), sleeper, taker, at)
        assert found == [], f"{sleeper} stopped before operation {at}, and one who {taker}"
