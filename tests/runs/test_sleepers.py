"""Test that a process which slept past its lease inside a publication changes nothing."""

from __future__ import annotations

from itertools import cycle, islice
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

# `make faults` stops before every operation, with everyone who may take the slice over.
STRIDE = 2


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
