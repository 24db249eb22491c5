"""Units that make no progress: when they are named, and how often."""

from __future__ import annotations

import pytest

from batchscore.runs import stalls
from batchscore.runs.progress import Doing, WorkerProgress
from batchscore.runs.stalls import Stalls


class Clock:
    """A clock that is set."""

    now = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The launcher's clock."""
    made = Clock()
    monkeypatch.setattr(stalls, "time", made)
    return made


def worker(advanced: float, at: float = 5_000.0, pid: int = 7) -> WorkerProgress:
    """What a worker wrote at a time of its clock, of a unit that had advanced at another."""
    doing = Doing("ab12", "shard 0.parquet", 4_000.0, advanced)
    return WorkerProgress(10, 0, "host-a", pid, at, [doing])


def test_a_unit_without_progress_is_named_once(clock: Clock) -> None:
    """Also where its worker writes nothing any more, and its clock is not the launcher's."""
    watch = Stalls(1_800.0)
    silent = worker(advanced=5_000.0)
    named = []
    for clock.now in (0.0, 299.0, 300.0, 301.0, 900.0):
        named += [(clock.now, text) for text in watch.look([silent])]
    ((at, text),) = named
    assert at == 300.0
    assert "unit ab12 (shard 0.parquet): no batch was finished for 300 seconds" in text
    assert "worker host-a, process 7" in text


def test_a_worker_says_how_long_it_waits(clock: Clock) -> None:
    """A launcher that starts to watch need not wait that long again."""
    assert len([*Stalls(1_800.0).look([worker(4_600.0), worker(4_800.0, pid=8)])]) == 1


def test_a_unit_that_moved_may_be_named_again(clock: Clock) -> None:
    """Each time that it stops is another."""
    watch, named = Stalls(60.0), 0
    for clock.now, advanced in ((0.0, 1.0), (60.0, 1.0), (61.0, 2.0), (121.0, 2.0)):
        named += len([*watch.look([worker(advanced, at=advanced)])])
    assert named == 2


def test_a_job_may_expect_less(clock: Clock) -> None:
    """The bound is five minutes, or what the job says if that is less."""
    found = [[*Stalls(most).look([worker(4_930.0)])] for most in (60.0, 120.0)]
    assert list(map(len, found)) == [1, 0]
