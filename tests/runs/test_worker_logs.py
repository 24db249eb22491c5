"""Logs of worker processes as files of an output: read, bounded, and removed by age."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from batchscore.runs import layout, worker_logs
from batchscore.runs.worker_logs import (
    LogLine,
    WorkerLog,
    has_room,
    read_logs,
    remove_logs,
    write_log,
)
from batchscore.storage.store import Store

LINE = LogLine(1.0, "WARNING", "mine", "a\nb")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output."""
    return Store(str(tmp_path))


def test_logs_are_read_by_their_start(store: Store) -> None:
    """Each process has its own file; those of other runs are not among them."""
    logs = [WorkerLog("b", 1, 2.0, 0, [LINE]), WorkerLog("a", 2, 1.0, 7, [LINE, LINE])]
    for log in logs:
        write_log(store, "s", "r", str(log.pid), log)
    write_log(store, "s", "other", "1", logs[0])
    assert read_logs(store, "s", "r") == logs[::-1]
    assert read_logs(store, "s", "none") == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"host": 1}', b"\xff", b"{" * 99, b" " * 2**21])
def test_a_damaged_log_is_left_out(store: Store, content: bytes) -> None:
    """Whatever somebody wrote in its place, the others are shown."""
    log = WorkerLog("a", 1, 1.0, 0, [LINE])
    write_log(store, "s", "r", "1", log)
    store.write(f"{layout.logs('s', 'r')}/0.json", content)
    assert read_logs(store, "s", "r") == [log]


def test_a_run_has_room_for_so_many_processes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that starts workers again and again does not fill the output."""
    monkeypatch.setattr(worker_logs, "MOST_PROCESSES", 2)
    assert has_room(store, "s", "r")
    for pid in range(3):
        write_log(store, "s", "r", str(pid), WorkerLog("a", pid, 1.0))
    assert not has_room(store, "s", "r")
    assert len(read_logs(store, "s", "r")) == 2


def test_logs_past_retention_are_removed(store: Store) -> None:
    """Those of the slice's runs that are older than so many days; a run's name has its day."""
    now = datetime.now(timezone.utc)
    names = [f"{now - timedelta(days=days):%Y%m%d}-abcd" for days in (0, 6, 9)]
    for slice_ in ("s", "t"):
        for name in names:
            write_log(store, slice_, name, "1", WorkerLog("a", 1, 1.0))
    remove_logs(store, "s", 7)
    assert store.names(f"{layout.LOGS}/s") == sorted(names[:2])
    assert store.names(f"{layout.LOGS}/t") == sorted(names)
