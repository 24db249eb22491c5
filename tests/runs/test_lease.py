"""Test that one process at a time may write a slice, whoever comes, stalls or is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import RecordError, RetryError
from batchscore.runs import layout, lease
from batchscore.runs.holder import Holder, holder, last_holder, lease_numbers
from batchscore.runs.lease import Lease, acquire, holds
from batchscore.storage.store import Store
from tests.waiting import wait_until

SLICE = "job,date=2026-11-20"
TAKE = """
import sys
from pathlib import Path
from batchscore.errors import RetryError
from batchscore.runs.lease import acquire
from batchscore.storage.store import Store

print("ready", flush=True)
sys.stdin.readline()
try:
    lease = acquire(Store(sys.argv[1]), sys.argv[2], "run", "r1")
except RetryError as error:
    print(error, flush=True)
else:
    print(f"took {lease.number}", flush=True)
sys.stdin.readline()
"""


class Other:
    """Another process, which takes the slice when it is asked to and keeps it until it ends."""

    def __init__(self, store: Store) -> None:
        command = [sys.executable, "-c", TAKE, store.address, SLICE]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._line() == "ready"

    def start(self) -> None:
        """Lets it take the slice."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def said(self) -> str:
        """What came of it."""
        return self._line()

    def kill(self) -> None:
        """Ends it as the kernel does when memory is short."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output on disk."""
    return Store(str(tmp_path / "out"))


def files(store: Store) -> list[str]:
    """The names of the slice's lease files."""
    return store.names(layout.slice_file(SLICE, "lease"))


def rewrite(store: Store, number: int, /, **facts: Any) -> None:
    """Changes what a lease file says."""
    path = layout.slice_file(SLICE, f"lease/{number:08d}.json")
    store.write_json(path, {**store.read_json(path), **facts})


def age(store: Store, number: int, seconds: float) -> None:
    """Makes a lease file that was written some seconds ago, by the store's clock."""
    written = time.time() - seconds
    path = store.path(layout.slice_file(SLICE, f"lease/{number:08d}.json"))
    os.utime(path, (written, written))


def expire(store: Store, number: int, seconds: float = 61, **facts: Any) -> None:
    """Makes a lease that was not renewed for some seconds."""
    rewrite(store, number, renewed=ago(seconds), **facts)
    age(store, number, seconds)


def ago(seconds: float) -> str:
    """A moment in the past."""
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()


def test_a_slice_is_held_until_it_is_released(store: Store) -> None:
    """Who asks meanwhile learns who holds it; afterwards the next gets a higher number."""
    assert holder(store, SLICE) is None
    with acquire(store, SLICE, "run", "20261120-7f3a") as first:
        assert (first.number, first.is_held()) == (1, True)
        expected = r"slice job,\S+ of /\S+ is held by run 20261120-7f3a, \S+@\S+, pid \d+, since .*"
        with pytest.raises(RetryError, match=expected + r"renewed \d+ s ago\); run again when"):
            acquire(store, SLICE, "run")
        found = holder(store, SLICE)
        assert found is not None
        assert (found.run, found.command, found.number) == ("20261120-7f3a", "run", 1)
    assert (first.is_held(), holder(store, SLICE), holds(store, SLICE, 1)) == (False, None, False)
    with acquire(store, SLICE, "discard") as second:
        assert (second.number, holds(store, SLICE, 2)) == (2, True)
        with pytest.raises(RetryError, match="held by `discard`"):
            acquire(store, SLICE, "run")
    second.release()
    assert files(store) == ["00000002.json"]


def test_slices_do_not_disturb_each_other(store: Store) -> None:
    """Back-fills of different dates are at work side by side."""
    with acquire(store, "a", "run") as one, acquire(store, "b", "run") as two:
        assert (one.is_held(), two.is_held(), one.number, two.number) == (True, True, 1, 1)


def test_one_of_many_threads_gets_it(store: Store) -> None:
    """Of eight threads that try at once exactly one gets the slice, time after time."""
    for _ in range(5):
        gate = threading.Barrier(8)

        def take(gate: threading.Barrier = gate) -> Lease | None:
            gate.wait()
            with suppress(RetryError):
                return acquire(store, SLICE, "run")
            return None

        with ThreadPoolExecutor(8) as pool:
            won = [found for found in pool.map(lambda _: take(), range(8)) if found]
        assert len(won) == 1
        won[0].release()


@pytest.mark.slow
def test_one_of_many_processes_gets_it(store: Store) -> None:
    """Of six processes that try at once exactly one gets the slice; killed, it is succeeded."""
    others = [Other(store) for _ in range(6)]
    for other in others:
        other.start()
    said = [other.said() for other in others]
    winners = [other for other, words in zip(others, said, strict=True) if words == "took 1"]
    assert len(winners) == 1
    assert sum("is held by run r1" in words for words in said) == 5
    with pytest.raises(RetryError, match=f"pid {winners[0].process.pid}, "):
        acquire(store, SLICE, "run")
    winners[0].kill()
    assert holder(store, SLICE) is None
    with acquire(store, SLICE, "run") as mine:
        assert (mine.number, holds(store, SLICE, 1), holds(store, SLICE, 2)) == (2, False, True)
    for other in others:
        other.kill()


def test_a_killed_process_that_nobody_waited_for_is_dead(store: Store) -> None:
    """A holder that is a zombie, as in containers without an init, keeps nobody out."""
    other = Other(store)
    other.start()
    assert other.said() == "took 1"
    other.process.kill()
    wait_until(lambda: holder(store, SLICE) is None)
    other.process.communicate()


def test_a_pid_that_is_used_again_is_not_the_holder(store: Store) -> None:
    """A living process that began at another time than the holder keeps nobody out."""
    acquire(store, SLICE, "run")
    rewrite(store, 1, started="1")
    assert holder(store, SLICE) is None


def test_a_process_of_another_machine_is_given_time(store: Store) -> None:
    """Whether a process elsewhere lives is seen by its renewals alone, whatever lives here."""
    acquire(store, SLICE, "run")
    rewrite(store, 1, machine="elsewhere", pid=2**22 + 1, renewed=ago(55))
    with pytest.raises(RetryError, match=r"renewed 5\d s ago"):
        acquire(store, SLICE, "run")
    expire(store, 1)
    with acquire(store, SLICE, "run") as mine:
        assert mine.number == 2


def test_a_holder_that_stalls_is_succeeded(store: Store) -> None:
    """A living process that did not renew its lease loses it, and learns that it did."""
    slow = acquire(store, SLICE, "run")
    expire(store, 1)
    assert slow.is_held()
    with acquire(store, SLICE, "run") as mine:
        assert (slow.is_held(), mine.is_held()) == (False, True)
        slow.release()
        assert mine.is_held()
        assert holds(store, SLICE, 2)


def test_a_late_look_does_not_take_a_slice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looked before others came, went and tidied up, gets no number below theirs."""
    for _ in range(3):
        acquire(store, SLICE, "run").release()
    look, looks = last_holder, [1]

    def look_late(store: Store, slice_: str) -> Holder | None:
        found = look(store, slice_)
        return replace(found, number=looks.pop()) if found and looks else found

    monkeypatch.setattr(lease, "last_holder", look_late)
    mine = acquire(store, SLICE, "run")
    assert (mine.number, mine.is_held()) == (4, True)
    assert files(store) == ["00000003.json", "00000004.json"]


def test_a_lease_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread renews a lease also after the store was out of reach for a while."""
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    looks, numbers = [0], lease_numbers

    def counted(*given: Any) -> list[int]:
        looks[0] += 1
        return numbers(*given)

    monkeypatch.setattr(lease, "lease_numbers", counted)
    with acquire(store, SLICE, "run"):
        folder = Path(store.path(layout.slice_file(SLICE, "lease")))
        away = folder.rename(folder.with_name("away"))
        folder.write_bytes(b"not a folder")
        before = looks[0]
        wait_until(lambda: looks[0] > before + 1)
        folder.unlink()
        away.rename(folder)
        rewrite(store, 1, renewed=ago(59))
        wait_until(lambda: found.age < 5 if (found := holder(store, SLICE)) else False)


def test_a_lease_that_was_succeeded_is_not_renewed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of a lost lease ends, and leaves the files to the successor."""
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    lost = acquire(store, SLICE, "run")
    store.write(layout.slice_file(SLICE, "lease/00000002.json"), b"{}")
    wait_until(lambda: not lost._renewer.is_alive())
    store.remove(layout.slice_file(SLICE, "lease/00000001.json"))
    lost.release()
    assert files(store) == ["00000002.json"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"number": 1}', "\xff"],
)
def test_a_damaged_lease_is_reported(store: Store, text: str) -> None:
    """A file that is no lease is an error that names it and what to do."""
    path = layout.slice_file(SLICE, "lease/00000001.json")
    store.write(path, text.encode("latin-1"))
    for ask in (lambda: acquire(store, SLICE, "run"), lambda: holder(store, SLICE)):
        with pytest.raises(
            RecordError, match=r"lease /\S+00000001.json: damaged .*remove the file"
        ):
            ask()
    store.remove(path)
    acquire(store, SLICE, "run").release()


WRONG = {"number": 2, "pid": 0, "renewed": "yesterday", "started": 1, "released": "no"}


@pytest.mark.parametrize("name", WRONG)
def test_a_lease_with_a_wrong_fact_is_damaged(store: Store, name: str) -> None:
    """No fact of a lease is taken for what it is not."""
    acquire(store, SLICE, "run").release()
    rewrite(store, 1, **{name: WRONG[name]})
    with pytest.raises(RecordError, match="damaged"):
        acquire(store, SLICE, "run")


def test_a_time_without_a_zone_is_damaged(store: Store) -> None:
    """A time that could be of any zone is not compared."""
    acquire(store, SLICE, "run").release()
    rewrite(store, 1, renewed=datetime(2026, 11, 20).isoformat())
    with pytest.raises(RecordError, match="damaged"):
        holder(store, SLICE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["take", "release", "expire", "other"]), max_size=12))
def test_whatever_happens_one_holds(events: list[str]) -> None:
    """A slice is given when nobody keeps it, to one at a time, under numbers that only grow."""
    with tempfile.TemporaryDirectory() as folder:
        store, taken, free = Store(folder), list[Lease](), True
        for event in events:
            if event == "take" and free:
                taken.append(acquire(store, SLICE, "run"))
                free = False
            elif event == "take":
                with pytest.raises(RetryError):
                    acquire(store, SLICE, "run")
            elif event == "release" and taken:
                taken[-1].release()
                free = True
            elif event == "expire" and taken and not free:
                expire(store, taken[-1].number, 100)
                free = True
            elif event == "other" and len(taken) > 1:
                taken[0].release()
            assert [one.number for one in taken] == list(range(1, len(taken) + 1))
            assert not any(one.is_held() for one in taken[:-1])
            assert (holder(store, SLICE) is None) == free
        for one in taken:
            one.release()


def test_a_lease_file_can_be_read_by_people(store: Store) -> None:
    """A lease says who holds it, where and since when, with times in UTC."""
    with acquire(store, SLICE, "run", "r1"):
        facts = json.loads(store.read(layout.slice_file(SLICE, "lease/00000001.json")))
    assert set(facts) == set(Holder.__dataclass_fields__) - {"submission"}
    assert facts["since"].endswith("+00:00")


def test_runs_side_by_side_need_conditional_puts(tmp_path: Path) -> None:
    """Elsewhere a second slice is refused while one is held, and taken when it is given back."""
    for store in (Store(str(tmp_path)), Store(f"memory://{tmp_path.name}")):
        first = acquire(store, "first", "run", "r1")
        if store.is_conditional:
            acquire(store, "second", "run", "r2").release()
        else:
            with pytest.raises(
                RetryError, match=r"held by run r1.*side by side need .* S3"
            ) as reported:
                acquire(store, "second", "run", "r2")
            assert reported.value.exit_code == 4
        first.release()
        acquire(store, "second", "run", "r2").release()
