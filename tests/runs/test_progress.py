"""Test that workers' counts add up, are written seldom, and that a stop is honoured."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from batchscore.errors import StoppedError
from batchscore.runs import layout, progress
from batchscore.runs.progress import (
    Counts,
    Pulse,
    Used,
    WorkerProgress,
    beat_all,
    read_counts,
    read_stop,
    request_stop,
    working_on,
)
from batchscore.storage.store import Store
from batchscore.units.unit import Piece, Shard, Unit
from tests.factory import FaultyStore


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with open runs."""
    store = Store(str(tmp_path))
    for run in ("r", "other"):
        store.write_json(layout.plan_file(run), {})
    return store


def make_unit(shards: int) -> Unit:
    """A unit of some shards."""
    shard = [Shard(f"in/{number}.parquet", 1, "", 1) for number in range(shards)]
    return Unit("u", tuple(Piece(each, (0,), (0,), (1,)) for each in shard))


class Clock:
    """A clock that does not move until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def time(self) -> float:
        """Seconds, too."""
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
    found = read_counts(store, "r")
    assert (found.rows, found.rejected, found.workers) == (35, 3, 2)
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
    request_stop(store, "r", "etl@\x1b[31mhost")
    request_stop(store, "r", "ben@host")
    assert read_counts(store, "r") == Counts(stop_requested=True)
    found = read_stop(store, "r")
    assert found is not None
    assert found.by == "etl@\N{REPLACEMENT CHARACTER}[31mhost"
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


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        (1, "shard 0.parquet"),
        (3, "shards 0.parquet, 1.parquet, 2.parquet"),
        (5, "shards 0.parquet, 1.parquet, 2.parquet and 2 others"),
    ],
)
def test_a_worker_names_its_unit(store: Store, clock: Clock, shards: int, words: str) -> None:
    """It says which unit it is on, since when, and when that advanced; once it is done, none."""
    pulse = Pulse(store, "r")
    with working_on("r", make_unit(shards)):
        (found,) = read_counts(store, "r").processes
        assert (found.host, found.pid) == (platform.node(), os.getpid())
        (doing,) = found.units
        assert (doing.unit, doing.shards) == ("u", words)
        assert (doing.since, doing.advanced) == (1_000.0, 1_000.0)
        clock.now += 2.0
        pulse.add(1, unit="u")
        (doing,) = read_counts(store, "r").processes[0].units
        assert (doing.since, doing.advanced) == (1_000.0, 1_002.0)
    clock.now += 2.0
    pulse.add(0)
    assert read_counts(store, "r").processes[0].units == []


def test_a_worker_that_waits_says_that_it_lives(store: Store, clock: Clock) -> None:
    """A beat is written while a unit is worked on, every five seconds, and at no other time."""
    pulses = [Pulse(store, "r"), Pulse(store, "other")]
    beat_all()
    assert read_counts(store, "r").processes == ()
    with working_on("r", make_unit(1)):
        for seconds, at in ((4.0, 1_000.0), (1.0, 1_005.0)):
            clock.now += seconds
            beat_all()
            assert read_counts(store, "r").processes[0].at == at
    clock.now += 9.0
    beat_all()
    assert read_counts(store, "r").processes[0].at == 1_005.0
    assert read_counts(store, "other").processes == ()
    assert len(pulses) == 2


def test_a_beat_of_a_closed_run_writes_nothing(store: Store, clock: Clock) -> None:
    """What a run worked with stays removed."""
    pulse = Pulse(store, "r")
    with working_on("r", make_unit(1)):
        store.remove(layout.work("r"))
        clock.now += 9.0
        pulse.beat()
    assert not store.exists(layout.work("r"))


def test_counts_of_earlier_versions_are_read(store: Store) -> None:
    """They name no worker."""
    store.write_json(f"{layout.progress('r')}/0.json", {"rows": 7, "rejected": 2})
    assert read_counts(store, "r").processes == (WorkerProgress(7, 2),)


def test_a_late_worker_of_a_closed_run_notes_nothing(tmp_path: Path) -> None:
    """It would make the folder of the run again, which nobody removes then."""
    store = Store(str(tmp_path))
    pulse = Pulse(store, "r")
    pulse.note_used(Used(1.0, 2, 3))
    assert not store.exists(layout.progress("r"))
    store.write(layout.plan_file("r"), b"{}")
    pulse.note_used(Used(1.0, 2, 3))
    (found,) = read_counts(store, "r").processes
    assert found.used == Used(1.0, 2, 3)
