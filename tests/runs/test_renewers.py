"""Test the laws of a lease that a launcher and workers of several machines renew."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import LeaseError, RetryError
from batchscore.runs import lease
from batchscore.runs.holder import (
    Holder,
    encode_lease,
    lease_numbers,
    lease_path,
    read_lease,
    utc_now,
)
from batchscore.runs.lease import Heartbeat, Lease, acquire, holds, release
from batchscore.runs.submission import JobState, Submission
from batchscore.storage.store import Store

SLICE = "job,date=2026-11-20"
JOB = Submission("flink", name="batchscore-job", address="flink:8081")
WORKERS = 3
# A launcher or worker acts, or somebody takes the slice since the engine says that the job ended.
ACTIONS = ("beat 0", "beat 1", "beat 2", "renew", "note", "release", "finish", "take")
EVENT = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2))


class Interrupted(Store):
    """A store that lets others act between a look at a lease and its compare-and-swap."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.__dict__["between"] = []

    def exchange(self, relative: str, old: bytes | None, new: bytes, flush: bool = True) -> bool:
        """Compares and swaps, after what others do."""
        between: list[Callable[[], None]] = self.__dict__["between"]
        if between:
            between.pop()()
        return super().exchange(relative, old, new, flush)


class World:
    """Launchers and their workers, each with a clock of its own.

    Args:
        folder: Of the output.
        clocks: Seconds by which the clock of each launcher, and of each worker, is ahead.
        patch: Sets whose clock is asked.
    """

    def __init__(self, folder: str, clocks: list[int], patch: pytest.MonkeyPatch) -> None:
        self.store, self._plain = Interrupted(folder), Store(folder)
        self._clocks, self._patch = clocks, patch
        self.leases: list[Lease] = []
        self.workers: list[list[Heartbeat]] = []
        self.released = set[int]()
        self.gone = set[int]()
        self.take()

    def take(self) -> None:
        """Somebody takes the slice, whose job has ended; its workers may not know."""
        self._at(len(self.leases))
        try:
            taken = acquire(self._plain, SLICE, "run", f"r{len(self.leases)}", _ended)
        except RetryError:
            return
        taken._ended.set()  # the thread of the lease; this test renews
        taken._store = taken._file._store = self.store
        taken.submit(JOB)
        run = f"r{len(self.leases)}"
        self.leases.append(taken)
        self.workers.append(
            [Heartbeat(self.store, SLICE, taken.number, run) for _ in range(WORKERS)]
        )

    def _at(self, actor: int) -> None:
        ahead = timedelta(seconds=self._clocks[actor % len(self._clocks)])
        self._patch.setattr(lease, "utc_now", lambda: datetime.now(timezone.utc) + ahead)

    def act(self, action: str, past: int) -> None:
        """Lets an actor of the newest run act, or one of a run before it."""
        if action == "take":
            return self.take()
        which = self.which(past)
        mine = self.leases[which]
        word, _, worker = action.partition(" ")
        self._at(which + int(worker or 0) + 1)
        if word == "beat":
            self.workers[which][int(worker)].beat()
        elif word == "renew":
            mine._file.renew(lease._waiting_longer, mine._holder)
        elif word == "note":
            mine.note_job("a1b2")
        elif word == "finish":
            release(self.store, SLICE, mine.number, f"r{which}")
        else:
            mine._file.release()
        return None

    def which(self, past: int) -> int:
        """Returns the index of the newest run, or of one so many runs before it."""
        return max(0, len(self.leases) - 1 - past)

    def look(self) -> dict[int, Holder]:
        """Returns what lease files say, by their numbers."""
        return {
            number: read_lease(self._plain, SLICE, number)[1]
            for number in lease_numbers(self._plain, SLICE)
        }


def _ended(_: Submission) -> JobState:
    return "ended"


def check(world: World, before: dict[int, Holder], now: dict[int, Holder]) -> None:
    """The laws, whatever happened between two looks."""
    newest = world.leases[-1].number
    assert max(now) == newest == len(world.leases)
    assert [n for n in range(newest + 2) if holds(Store(world.store.address), SLICE, n)] == (
        [] if now[newest].released else [newest]
    )
    world.gone |= before.keys() - now.keys()
    assert not world.gone & now.keys(), "a lease that was removed is back"
    for number, found in now.items():
        assert found.run == f"r{number - 1}"
        if number in before and before[number].released:
            assert found == before[number], "a lease that was given back lives again"


@settings(max_examples=120, deadline=None)
@given(
    events=st.lists(st.tuples(EVENT, st.none() | EVENT), max_size=14),
    clocks=st.lists(st.sampled_from([-86_400, -90, 0, 0, 5, 90, 86_400]), min_size=4, max_size=4),
)
def test_one_number_counts_whoever_renews(
    events: list[tuple[tuple[str, int], tuple[str, int] | None]], clocks: list[int]
) -> None:
    """None is given back and lives again, or is removed and comes back, and none extends another.

    Each actor may be interrupted between its look and its write by any other.
    """
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(folder, clocks, patch)
        before = world.look()
        for (action, past), other in events:
            if other is not None:
                world.store.__dict__["between"].append(partial(world.act, *other))
            own = world.which(past) + 1
            old = {number: found for number, found in before.items() if number != own}
            world.act(action, past)
            interrupted = other is not None and not world.store.__dict__["between"]
            world.store.__dict__["between"].clear()
            now = world.look()
            check(world, before, now)
            if action.startswith(("beat", "renew", "note")) and not interrupted:
                assert {n: found for n, found in now.items() if n in old} == old
            before = now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output on disk."""
    return Store(str(tmp_path))


def current(store: Store) -> Holder:
    """What the first lease says."""
    return read_lease(store, SLICE, 1)[1]


def test_a_first_beat_ends_the_wait_for_workers(store: Store) -> None:
    """The deadline is over at once; afterwards the lease needs a renewal a minute."""
    with acquire(store, SLICE, "run", "r1") as mine:
        mine.submit(JOB)
        waiting = current(store).submission
        assert waiting is not None
        assert waiting.deadline is not None
        assert current(store).patience == pytest.approx(lease.QUEUE_SECONDS, abs=5)
        assert Heartbeat(store, SLICE, 1, "r1").beat()
        assert current(store).submission == JOB
        assert mine.note_job("a1b2")
        assert current(store).submission == replace(JOB, job="a1b2")


def test_of_many_workers_about_one_writes(store: Store) -> None:
    """Who sees that another one renewed the lease since its last look leaves it at that."""
    with acquire(store, SLICE, "run", "r1") as mine:
        mine.submit(JOB)
        workers = [Heartbeat(store, SLICE, 1, "r1") for _ in range(20)]
        first = [bool(worker.beat()) for worker in workers]
        later = [sum(bool(worker.beat()) for worker in workers) for _ in range(10)]
        assert sum(first) == 1
        assert sum(later) <= 10
        assert all(a + b >= 1 for a, b in pairwise(later))


def test_a_job_that_waits_for_slots_gets_more_time(store: Store) -> None:
    """Whoever asks the engine and hears that it is alive moves the deadline on."""
    mine = acquire(store, SLICE, "run", "r1")
    mine.submit(JOB)
    mine.note_job("a1b2", detached=True)
    then = [utc_now() + timedelta(seconds=ago) for ago in (-1700, 100)]
    job = replace(JOB, job="a1b2", detached=True, deadline=then[1].isoformat())
    old = replace(current(store), renewed=then[0].isoformat(), submission=job)
    store.write(lease_path(SLICE, 1), encode_lease(old))
    with pytest.raises(RetryError, match="no worker has started yet"):
        acquire(store, SLICE, "run", "r2", lambda _: "alive")
    waiting = current(store)
    assert waiting.age < 60
    assert waiting.patience == pytest.approx(lease.QUEUE_SECONDS, abs=5)
    assert not waiting.released


class Counting(Store):
    """A store that counts what is asked of it."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.__dict__["asked"] = []

    def names(self, relative: str = "") -> list[str]:
        """Lists a folder."""
        self.__dict__["asked"].append("names")
        return super().names(relative)

    def read(self, relative: str, most: int | None = None) -> bytes:
        """Reads a file."""
        self.__dict__["asked"].append("read")
        return super().read(relative, most)


def test_a_beat_costs_a_list_and_a_read(store: Store) -> None:
    """And a compare-and-swap, if it is this worker that renews the lease."""
    with acquire(store, SLICE, "run", "r1") as mine:
        mine.submit(JOB)
        counting = Counting(store.address)
        first, second = (Heartbeat(counting, SLICE, 1, "r1") for _ in range(2))
        assert [first.beat(), second.beat(), first.beat()] == [True, False, True]
        asked = counting.__dict__["asked"]
        asked.clear()
        assert not second.beat()
        assert asked == ["names", "read"]


def test_a_lease_without_its_launcher_lives_by_its_workers(store: Store) -> None:
    """A launcher that left renews no more, and gives nothing back; the last worker does."""
    mine = acquire(store, SLICE, "run", "r1")
    mine.submit(JOB)
    assert mine.note_job("a1b2", detached=True)
    mine.release()
    assert (current(store).released, mine._renewer.is_alive()) == (False, False)
    assert current(store).submission == replace(
        JOB, job="a1b2", detached=True, deadline=getattr(current(store).submission, "deadline", "")
    )
    worker = Heartbeat(store, SLICE, 1, "r1")
    assert worker.beat()
    release(store, SLICE, 1, "r1")
    assert (current(store).released, worker.beat()) == (True, None)
    assert set(store.read_json(lease_path(SLICE, 1))) == set(Holder.__dataclass_fields__) - {
        "submission"
    }


def test_nobody_submits_under_a_lease_that_another_run_took(store: Store) -> None:
    """A launcher that slept until then fails before its engine gets anything."""
    slow = acquire(store, SLICE, "run", "r1")
    store.create_new(lease_path(SLICE, 2), encode_lease(replace(current(store), number=2)))
    with pytest.raises(LeaseError, match="r1 does not hold slice"):
        slow.submit(JOB)
    assert not slow.note_job("a1b2")


STATES: tuple[JobState, ...] = ("alive", "ended", "gone", "unknown")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("seconds", [5, 90])
def test_the_engine_decides_before_the_clock(
    store: Store, state: JobState, detached: bool, seconds: int
) -> None:
    """A living job keeps the slice, however old the last sign; one that ended keeps it no more."""
    mine = acquire(store, SLICE, "run", "r1")
    mine.submit(JOB)
    mine.note_job("a1b2", detached=True)
    then = (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()
    job = replace(JOB, job="a1b2", detached=detached)
    found = replace(current(store), renewed=then, machine="elsewhere", submission=job)
    store.write(lease_path(SLICE, 1), encode_lease(found))
    seen = Path(store.path(lease_path(SLICE, 1)))
    os.utime(seen, (time.time() - seconds,) * 2)
    recent = seconds < 60 and not (state == "ended" and detached)
    asked = list[Submission]()

    def ask(submission: Submission) -> JobState:
        asked.append(submission)
        return state

    if state == "alive" or recent:
        expected = r"held by run r1 \(engine flink, job a1b2\).*`batchscore wait \S+ r1`"
        with pytest.raises(RetryError, match=expected):
            acquire(store, SLICE, "run", "r2", ask)
    else:
        with acquire(store, SLICE, "run", "r2", ask) as taken:
            assert taken.before == found
    assert asked == [job]
