"""Test that a lease is judged rightly whatever the clocks of its holder and its reader say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from batchscore.errors import RetryError
from batchscore.runs import holder, layout, lease
from batchscore.runs.holder import Holder, encode_lease, lease_path
from batchscore.runs.lease import acquire, holds
from batchscore.storage.store import Store

SLICE = "job,date=2026-11-20"
DAYS = 3 * 86_400.0


class Watch:
    """A clock that only goes on when somebody waits; `then` happens in the first wait."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.now, self.waits, self._then = 0.0, 0, then

    def sleep(self, seconds: float) -> None:
        """Waits without taking time."""
        self.now += seconds
        self.waits += 1
        if self.waits == 1:
            self._then()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output whose slice a run on another machine holds."""
    store = Store(str(tmp_path / "out"))
    renew(store, 0.0)
    return store


def renew(store: Store, ahead: float, released: bool = False) -> None:
    """Writes the lease as another machine does whose clock is ahead, or behind."""
    now = (datetime.now(timezone.utc) + timedelta(seconds=ahead)).isoformat()
    process = ("run", "me", "there", 2**22 + 1, "1", "elsewhere")
    found = Holder(1, "r1", *process, since=now, renewed=now, released=released)
    store.write(lease_path(SLICE, 1), encode_lease(found))


def written(store: Store, seconds: float) -> None:
    """Dates the lease file, which the store's clock does, some seconds from now."""
    path = store.path(layout.slice_file(SLICE, "lease/00000001.json"))
    os.utime(path, (time.time() + seconds,) * 2)


def watch(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None) -> Watch:
    """Gives the lease a clock that takes no time."""
    clock = Watch(then)
    monkeypatch.setattr(lease, "_sleep", clock.sleep)
    monkeypatch.setattr(lease, "_monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize("ahead", [-DAYS, -90, 90, DAYS])
def test_a_living_holder_with_a_wrong_clock_keeps_the_slice(store: Store, ahead: float) -> None:
    """The store dates the renewal, and the message says that a clock is wrong."""
    renew(store, ahead)
    with pytest.raises(RetryError, match=r"held by run r1.*renewed just now; the clock of"):
        acquire(store, SLICE, "run")
    assert holds(store, SLICE, 1)


@pytest.mark.parametrize("ahead", [-DAYS, 0, 90, DAYS])
def test_a_dead_holder_with_a_wrong_clock_keeps_nobody_out(store: Store, ahead: float) -> None:
    """A minute after the last renewal the slice is free, and nobody waits for it."""
    renew(store, ahead - 61)
    written(store, -61)
    with acquire(store, SLICE, "run") as mine:
        assert mine.number == 2
    assert store.names(layout.slice_file(SLICE, "lease")) == ["00000002.json"]


def test_a_reader_with_a_wrong_clock_takes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is days ahead does not take a lease that was renewed just now."""
    renew(store, 0)
    now = datetime.now(timezone.utc) + timedelta(seconds=DAYS)
    monkeypatch.setattr(holder, "utc_now", lambda: now)
    monkeypatch.setattr(lease, "utc_now", lambda: now)
    with pytest.raises(RetryError, match="held by run r1"):
        acquire(store, SLICE, "run")


def test_a_lease_of_a_clock_that_was_set_back_is_watched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store's clock was ahead, too, the lease ends after a minute without a renewal."""
    renew(store, DAYS)
    written(store, DAYS)
    clock = watch(monkeypatch)
    with acquire(store, SLICE, "run") as mine:
        assert (mine.number, clock.now) == (2, 60.0)


def test_a_watched_lease_that_is_renewed_is_alive(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first renewal tells, so that nobody waits for a minute."""
    renew(store, DAYS)
    written(store, DAYS)
    clock = watch(monkeypatch, lambda: renew(store, DAYS + 10))
    with pytest.raises(RetryError, match="held by run r1"):
        acquire(store, SLICE, "run")
    assert clock.waits == 1


def test_a_watched_lease_that_is_given_back_is_free(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it gets it then."""
    renew(store, DAYS)
    written(store, DAYS)
    clock = watch(monkeypatch, lambda: renew(store, DAYS, released=True))
    with acquire(store, SLICE, "run") as mine:
        assert (mine.number, clock.waits) == (2, 1)


def test_a_store_without_times_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease in a store that dates no file is judged by what changes."""
    store = Store("memory://lease-clocks")
    renew(store, DAYS)
    clock = watch(monkeypatch)
    with acquire(store, SLICE, "run") as mine:
        assert (mine.number, clock.now) == (2, 60.0)
