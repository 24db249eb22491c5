"""Test that every figure of a run has its name, and that the limit is the busiest thread's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchscore.telemetry import STAGES, THREADS, limiting_stage

NAMES = [stage.name for stage in STAGES]


def test_each_stage_is_on_one_thread() -> None:
    """The threads hold every stage once, in the order that a row passes them."""
    assert [name for thread in THREADS for name in thread] == NAMES


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e6)))
def test_the_limiting_stage_is_of_the_busiest_thread(seconds: dict[str, float]) -> None:
    """No thread is busier than the named stage's, and no stage of that thread takes longer."""
    named = limiting_stage(seconds, 0.0, 1)
    busy = {thread: sum(seconds.get(name, 0.0) for name in thread) for thread in THREADS}
    thread = next(thread for thread in THREADS if named in thread)
    assert busy[thread] == max(busy.values())
    assert seconds.get(named, 0.0) == max(seconds.get(name, 0.0) for name in thread)


def test_two_short_stages_of_one_thread_outweigh_a_longer_one() -> None:
    """What shares a thread adds up: profile and write together are slower than infer."""
    assert (
        limiting_stage({"infer": 3.0, "profile": 2.0, "write": 2.5, "read": 1.0}, 6.0, 1) == "write"
    )


def test_start_up_limits_a_run_whose_threads_were_idle() -> None:
    """Where no worker's busiest thread worked half of the time, starting is what took it."""
    seconds = {"read": 2.0, "infer": 1.0}
    assert limiting_stage(seconds, 3.0, 1) == "read"
    assert limiting_stage(seconds, 5.0, 1) == "start-up"
    assert limiting_stage(seconds, 3.0, 2) == "start-up"
