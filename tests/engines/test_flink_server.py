"""Test what becomes of a pipeline whose job server dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from batchscore.engines import flink
from batchscore.engines.background import Background
from batchscore.engines.flink_server import await_pipeline
from batchscore.errors import FailedError
from tests import factory
from tests.servers import free_port


class Gone(grpc.RpcError):
    """What gRPC raises where nobody answers any more."""

    def details(self) -> str:
        """Says why."""
        return "Socket closed"


class Pipeline:
    """What Beam returns for a pipeline.

    Args:
        state: Its state; None if the server is dead.
        error: What waiting for it ends with.
    """

    def __init__(self, state: str | None, error: Exception) -> None:
        self._state, self._error = state, error

    @property
    def state(self) -> str:
        """Asks the server."""
        if self._state is None:
            raise Gone
        return self._state

    def wait_until_finish(self) -> None:
        """Ends at once."""
        raise self._error

    def cancel(self) -> None:
        """Nobody cancels it."""


def handle(job: str) -> Background:
    """A pipeline that Flink has under a job's id, or does not have."""
    made = Background(lambda _: [])
    made.job = job
    return made


@pytest.mark.parametrize(
    ("state", "error", "unheard"),
    [
        (None, Gone(), "Socket closed"),
        (None, RuntimeError("it failed in state RUNNING"), "Socket closed"),
        ("RUNNING", RuntimeError("it failed in state RUNNING"), "it failed in state RUNNING"),
        ("FAILED", RuntimeError("a shard has a hole"), None),
        ("CANCELLED", RuntimeError("it was cancelled"), None),
    ],
)
def test_only_the_server_says_that_a_pipeline_has_ended(
    state: str | None, error: Exception, unheard: str | None
) -> None:
    """Without its word, the job that Flink has may go on."""
    mine = handle("c0ffee")
    with pytest.raises(type(error)):
        await_pipeline(Pipeline(state, error), mine)
    assert mine.unheard == unheard


def test_a_server_that_dies_before_flink_has_the_job_is_named() -> None:
    """Nobody can follow a job that has no id."""
    mine = handle("")
    expected = r"before Flink had the job \(Socket closed\); start the job server, and run again"
    with pytest.raises(FailedError, match=expected):
        await_pipeline(Pipeline(None, Gone()), mine)
    assert mine.unheard is None


_STREAMS = """
import threading
from batchscore.engines.flink_server import _silence_streams
from tests.engines.test_flink_server import Gone

def lose(error): raise error
_silence_streams()
for error in (Gone(), ValueError("another")):
    thread = threading.Thread(target=lose, args=[error])
    thread.start()
    thread.join()
"""


def test_a_lost_stream_prints_no_trace() -> None:
    """Other errors of threads are printed as ever."""
    done: Any = subprocess.run(
        [sys.executable, "-c", _STREAMS], capture_output=True, text=True, check=True
    )
    assert "Gone" not in done.stderr
    assert "ValueError: another" in done.stderr


@pytest.mark.slow
def test_a_server_that_dies_before_it_gets_the_pipeline_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listened when the run started; Beam would wait for it for minutes."""
    monkeypatch.setattr(flink, "require_listener", lambda *_: None)
    monkeypatch.setattr(flink, "SERVER_SECONDS", 1)
    section = {"job_service": f"localhost:{free_port()}", "pool": "localhost:1"}
    job = factory.write_job(tmp_path, {"runtime": {"engine": "flink", "flink": section}})
    found = factory.run_json("run", job)
    assert (found["status"], found["exit_code"]) == ("failed", 1)
    assert "job server stopped answering before Flink had the job (it does" in found["error"]
