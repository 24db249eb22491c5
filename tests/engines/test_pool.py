"""The pool of Python workers as a command: where it listens, and where it does not."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batchscore.engines import pool
from batchscore.engines.beam_private import beam_fn_api_pb2
from batchscore.engines.local import WorkerPool
from tests import factory
from tests.engines.own_pools import own_pool
from tests.waiting import wait_until

# The first processes that a pool forks are killed before they reach the runner.
KILLED = """
import os
import signal
from pathlib import Path

from batchscore.engines import local

ENTER = local._work


def enter(*args):
    left = Path(__file__).with_name("left")
    count = int(left.read_text())
    left.write_text(str(count - 1))
    if count > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    ENTER(*args)


local._work = enter
"""


def ends(monkeypatch: pytest.MonkeyPatch, address: str) -> int:
    """Starts a pool that cannot listen, and returns its exit code."""
    monkeypatch.setattr(pool, "start_server", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["pool", address])
    with pytest.raises(SystemExit) as caught:
        pool.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("address", ["", "50000", ":50000", "localhost:", "localhost:99999"])
def test_what_is_no_address_is_an_error(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would listen at another port, or end with a traceback."""
    assert ends(monkeypatch, address) == 2
    assert f"expected HOST:PORT, found {address!r}" in capsys.readouterr().err


def test_a_second_pool_at_an_address_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two would each get some of the requests."""
    with WorkerPool(pytest.fail) as first:
        host, _, port = first.address.rpartition(":")
        with socket.create_connection((host, int(port)), 10):
            assert ends(monkeypatch, first.address) == 1
    assert "another process does, or it is no address of this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, job_server: str
) -> None:
    """The run publishes within seconds; Beam would wait three minutes for the worker."""
    (tmp_path / "killed.py").write_text(KILLED)
    (tmp_path / "left").write_text("2")
    log = tmp_path / "log"
    with own_pool(log, {}, tmp_path, preload="killed") as address:
        flink = {"job_service": job_server, "pool": address}
        runtime = {"runtime": {"engine": "flink", "flink": flink}}
        done = factory.run_json("run", factory.write_job(tmp_path / "job", runtime))
    assert (done["status"], done["rows"]["scored"]) == ("published", 500)
    assert done["seconds"] < 60
    again = re.findall(r"ended with exit code -9 before it reached its runner", log.read_text())
    assert len(again) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_each_time_is_not_started_for_ever(tmp_path: Path) -> None:
    """It is started again as often as the pool says, and then reported as any that died."""
    lost = list[str]()
    with socket.create_server(("localhost", 0)) as silent, WorkerPool(lost.append, again=2) as own:
        endpoint = f"localhost:{silent.getsockname()[1]}"
        own.StartWorker(request_of(endpoint), None)
        for lost_now, started in ((1, 2), (2, 3), (3, 3)):
            own._processes[-1].kill()
            wait_until(partial(has_come, lost, lost_now))
            wait_until(partial(has_come, own._processes, started))
        assert [each.endswith("it is started again") for each in lost] == [True, True, False]


def has_come(items: Sequence[object], count: int) -> bool:
    """Tells whether there are so many."""
    return len(items) == count


def request_of(endpoint: str) -> Any:
    """Returns a runner's request for a worker."""
    control = beam_fn_api_pb2.StartWorkerRequest(worker_id="w")
    control.control_endpoint.url = endpoint
    return control
