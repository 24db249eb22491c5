"""A bundle ends when its work does, not when Beam's sampler of states wakes."""

from __future__ import annotations

import time

import pytest
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory

from batchscore.engines.state_sampler import quick_sampling


def seconds_to_stop(work_s: float) -> float:
    """How long a sampler takes to stop that was started so many seconds before."""
    sampler = statesampler.StateSampler("", CounterFactory())
    sampler.start()
    time.sleep(work_s)
    began = time.perf_counter()
    sampler.stop()
    return time.perf_counter() - began


@pytest.mark.slow
def test_a_sampler_stops_soon_after_long_work() -> None:
    """The wait does not grow with the work; of Beam's own it does, up to 200 ms."""
    with quick_sampling():
        assert min(seconds_to_stop(0.7) for _ in range(3)) < 0.03


def test_states_are_timed_as_before() -> None:
    """The time that a step was at work is reported, to about the period."""
    with quick_sampling():
        sampler = statesampler.StateSampler("", CounterFactory())
        sampler.start()
        state = sampler.scoped_state("step", "process")
        began = time.perf_counter()
        with state:
            time.sleep(0.3)
        passed = time.perf_counter() - began
        sampler.stop()
    assert state.sampled_seconds() == pytest.approx(passed, abs=0.1)


def test_beams_own_is_there_behind() -> None:
    """A process that runs other pipelines has them as they were, after an error too."""
    before = statesampler.StateSampler
    with pytest.raises(KeyError), quick_sampling():
        assert statesampler.StateSampler is not before
        raise KeyError
    assert statesampler.StateSampler is before
