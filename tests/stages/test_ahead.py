"""Test that work on a second thread keeps order, stays bounded, tells errors, and ends."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.stages.ahead import WriteBehind, read_ahead
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Fails a test after which more threads run than before it."""
    gc.collect()
    before = threading.active_count()
    yield
    gc.collect()
    assert threading.active_count() <= before


def _wait_for(count: list[int], number: int) -> None:
    """Waits until the list is `number` long; one that grows further gets the time to show it."""
    wait_until(lambda: len(count) >= number)
    time.sleep(0.05)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_items_come_in_order(items: list[int], depth: int) -> None:
    """Whatever the depth, what is read ahead is what the source yields."""
    assert list(read_ahead(iter(items), depth)) == items


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_reading_ahead_is_bounded(depth: int) -> None:
    """While nothing is taken the source is asked for `depth` items and one in the hand."""
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = read_ahead(source(), depth)
    for taken in range(1, 4):
        next(ahead)
        _wait_for(made, taken + depth + 1)
        assert len(made) == taken + depth + 1
    ahead.close()


def test_the_source_runs_concurrently_with_its_reader() -> None:
    """The next item is made while the last one is still being worked on."""
    ready = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        ready.set()
        yield 2

    ahead = read_ahead(source(), 1)
    assert next(ahead) == 1
    assert ready.wait(5)
    assert list(ahead) == [2]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10), st.integers(1, 3))
def test_an_error_comes_after_the_items_before_it(good: int, depth: int) -> None:
    """Items made before the source failed are not lost, and then its own error is raised."""

    def source() -> Iterator[int]:
        yield from range(good)
        raise KeyError("lost")

    seen = []
    with pytest.raises(KeyError, match="lost"):
        for item in read_ahead(source(), depth):
            seen.append(item)
    assert seen == list(range(good))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_early_ends_thread_and_source(taken: int) -> None:
    """A reader that stops in the middle leaves no thread, and the source's clean-up has run."""
    ended = []

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            ended.append(True)

    ahead = read_ahead(source(), 2)
    for _ in range(taken):
        next(ahead)
    ahead.close()
    del ahead
    gc.collect()
    assert ended == ([True] if taken else [])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_work_is_done_in_order(items: list[int], depth: int) -> None:
    """Whatever the depth, all items are worked on in order before close returns."""
    done: list[int] = []
    behind = WriteBehind(done.append, depth)
    for item in items:
        behind.put(item)
    behind.close()
    behind.close()
    assert done == items


def test_a_writer_is_waited_for() -> None:
    """With `depth` items pending and one in work, the next put blocks until one is done."""
    gate = threading.Semaphore(0)
    done: list[int] = []

    def work(item: int) -> None:
        gate.acquire()
        done.append(item)

    behind = WriteBehind(work, 2)
    accepted: list[int] = []

    def put_all() -> None:
        for item in range(5):
            behind.put(item)
            accepted.append(item)

    putting = threading.Thread(target=put_all)
    putting.start()
    _wait_for(accepted, 3)
    assert accepted == [0, 1, 2]
    gate.release()
    _wait_for(accepted, 4)
    assert accepted == [0, 1, 2, 3]
    gate.release(10)
    putting.join()
    behind.close()
    assert done == [0, 1, 2, 3, 4]


def test_an_error_of_the_work_reaches_put_and_close() -> None:
    """After an error nothing more is worked on, no put blocks, and every call raises the error."""
    done = []

    def work(item: int) -> None:
        if item == 1:
            raise KeyError("disk")
        done.append(item)

    behind = WriteBehind(work, 1)
    with pytest.raises(KeyError, match="disk"):
        for item in range(100):
            behind.put(item)
    for _ in range(2):
        with pytest.raises(KeyError, match="disk"):
            behind.close()
    assert done == [0]


def test_an_error_of_the_last_item_reaches_close() -> None:
    """What goes wrong after the last put is not lost."""
    behind: WriteBehind[int] = WriteBehind(lambda item: list[None]()[item], 5)
    behind.put(1)
    with pytest.raises(IndexError):
        behind.close()


def test_what_comes_after_the_end_is_refused() -> None:
    """Nobody waits for a thread that has ended, however many items come."""
    done: list[int] = []
    behind = WriteBehind(done.append, 1)
    behind.put(1)
    behind.close()
    for _ in range(3):
        with pytest.raises(ValueError, match="after the end"):
            behind.put(2)
    assert done == [1]
