"""Test that workers' counts add up, are written seldom, and that a stop is honoured."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.errors import StoppedError
from batchscore.runs import layout, progress
from batchscore.runs.progress import Counts, Pulse, read_counts, read_stop, request_stop
from batchscore.storage.store import Store
from tests.factory import FaultyStore


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with open runs."""
    store = Store(str(tmp_path))
    for run in ("r", "other"):
        store.write_json(layout.plan_file(run), {})
    return store


class Clock:
    """A clock that does not move until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that pulses go by."""
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_the_counts_of_all_workers_add_up(store: Store, clock: Clock) -> None:
    """Rows are added over the workers of one run and no other."""
    first, second, other = Pulse(store, "r"), Pulse(store, "r"), Pulse(store, "other")
    for pulse, rows in ((first, 10), (second, 5), (other, 100)):
        pulse.add(rows, rejected=rows // 5)
    clock.now += 1.5
    first.add(20)
    assert read_counts(store, "r") == Counts(rows=35, rejected=3, workers=2)
    assert read_counts(store, "none") == Counts()


def test_a_worker_writes_at_most_once_a_second(tmp_path: Path, store: Store, clock: Clock) -> None:
    """A thousand blocks in less than a second make one small file; what was counted is not lost."""
    counting = FaultyStore(str(tmp_path))
    pulse = Pulse(counting, "r")
    for _ in range(1_000):
        pulse.add(1)
    assert (counting.__dict__["changes"], read_counts(store, "r").rows) == (1, 1)
    clock.now += 1.0
    pulse.add(1)
    assert (counting.__dict__["changes"], read_counts(store, "r").rows) == (2, 1_001)


def test_a_stop_is_honoured_at_the_next_tick(store: Store, clock: Clock) -> None:
    """Within the second work goes on; after it the worker is stopped."""
    pulse = Pulse(store, "r")
    pulse.add(1)
    request_stop(store, "r")
    pulse.add(1)
    clock.now += 1.0
    with pytest.raises(StoppedError):
        pulse.add(1)
    Pulse(store, "other").add(1)


def test_a_stop_says_who_wants_it(store: Store) -> None:
    """The counts show that there is one; the first counts, and the launcher's own has no name."""
    assert (read_counts(store, "r"), read_stop(store, "r")) == (Counts(), None)
    request_stop(store, "r", "ada@\x1b[31mhost")
    request_stop(store, "r", "ben@host")
    assert read_counts(store, "r") == Counts(stop_requested=True)
    found = read_stop(store, "r")
    assert found is not None
    assert found.by == "ada@\N{REPLACEMENT CHARACTER}[31mhost"
    request_stop(store, "own")
    assert (read_counts(store, "own").stop_requested, read_stop(store, "own")) == (True, None)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"by": 1, "at": 2}', b"\xff"])
def test_a_stop_that_cannot_be_read_is_one(store: Store, content: bytes) -> None:
    """Whoever could write it may stop the run, and is not known."""
    store.write(f"{layout.progress('r')}/stop", content)
    found = read_stop(store, "r")
    assert found is not None
    assert found.by == "somebody unknown"


@pytest.mark.parametrize("content", [b"", b'{"ro', b"{}", b"\xff"])
def test_a_count_that_cannot_be_read_is_left_out(
    store: Store, clock: Clock, content: bytes
) -> None:
    """A damaged count makes the bar wrong for a second, and nothing else."""
    Pulse(store, "r").add(7)
    store.write(f"{layout.progress('r')}/0.json", content)
    assert read_counts(store, "r").rows == 7


def test_a_worker_whose_run_was_closed_stops(store: Store, clock: Clock) -> None:
    """One that outlived its launcher ends once another run has put things in order."""
    pulse = Pulse(store, "r")
    pulse.add(1)
    store.remove(layout.work("r"))
    clock.now += 1.0
    with pytest.raises(StoppedError, match="closed"):
        pulse.add(1)
    assert not store.exists(layout.work("r"))


def test_a_count_that_cannot_be_written_is_left_out(tmp_path: Path, store: Store) -> None:
    """A worker goes on when its count finds no place."""
    (tmp_path / layout.progress("r")).write_bytes(b"a file where a folder should be")
    Pulse(store, "r").add(7)
