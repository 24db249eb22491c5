"""Tests of models in a process of their own that dies, hangs, or answers nonsense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from batchscore.columnar.arrays import Array
from batchscore.errors import FailedError, StepError
from batchscore.models.backends.facts import Call
from batchscore.models.backends.registry import backend_of
from batchscore.models.loadable import Model
from batchscore.models.process import proxy
from batchscore.models.process.host import Host
from batchscore.models.process.lending import Borrowed
from batchscore.models.process.proxy import ProcessBackend
from batchscore.models.process.started import TOO_LARGE, describe_end
from tests.backends.faulty import CLOSE, EXIT, HANG, SAY_PID, SEGFAULT
from tests.models.process.clients import calls_of

pytestmark = pytest.mark.slow


def rows(*values: float) -> dict[str, Array]:
    """Rows of two columns, each with a value that says what the faulty model does."""
    return {"x": np.array([[each, 0] for each in values], np.float32)}


@pytest.fixture
def mortal(faulty: Model) -> Iterator[Host]:
    """A host whose process may die."""
    host = Host("faulty", 60.0)
    yield host
    host.close()


def test_the_call_that_a_process_dies_of_fails_alone(mortal: Host, faulty: Model) -> None:
    """Others that were under way are answered by another process; the error says how it died."""
    calls = calls_of(mortal, faulty)
    before, deadly, after = [calls.predict(rows(each), 1) for each in (1, SEGFAULT, 2)]
    assert [after()["score"][0], before()["score"][0]] == [2, 1]
    with pytest.raises(StepError, match=r"was killed by signal 11 \(SIGSEGV\)") as error:
        deadly()
    assert type(error.value.__cause__).__name__ == "ModelProcessDied"
    with pytest.raises(StepError, match="ended with exit code 3"):
        calls.predict(rows(3, EXIT), 2)
    assert calls.predict(rows(3), 1)()["score"][0] == 3


def test_a_model_that_closes_the_connection_is_named_without_a_traceback(
    mortal: Host, faulty: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """As code does that closes all files of its process; the row fails, and others are scored."""
    calls = calls_of(mortal, faulty)
    with pytest.raises(StepError, match="closed files that the model had not opened"):
        calls.predict(rows(CLOSE), 1)()
    assert calls.predict(rows(5), 1)()["score"][0] == 5
    mortal.close()
    assert capsys.readouterr().err == ""


def test_a_process_starts_without_its_parents_folder(
    mortal: Host, faulty: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody deleted the working directory, it starts in one that exists."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (pid,) = calls_of(mortal, faulty).predict(rows(SAY_PID), 1)()["score"]
    assert psutil.Process(int(pid)).cwd() == "/"


def test_a_process_that_somebody_kills_costs_no_rows(mortal: Host, faulty: Model) -> None:
    """The next call goes to another process."""
    calls = calls_of(mortal, faulty)
    (pid,) = calls.predict(rows(SAY_PID), 1)()["score"]
    os.kill(int(pid), signal.SIGKILL)
    assert calls.predict(rows(4), 1)()["score"][0] == 4


def test_a_dismissed_process_ends_and_another_one_answers(mortal: Host, faulty: Model) -> None:
    """Who finishes a run dismisses it; whoever does the run's work again loses nothing."""
    calls = calls_of(mortal, faulty)
    (pid,) = calls.predict(rows(SAY_PID), 1)()["score"]
    mortal.dismiss()
    (other,) = calls.predict(rows(SAY_PID), 1)()["score"]
    assert other != pid
    mortal.close()
    assert not psutil.pid_exists(int(pid))
    assert not psutil.pid_exists(int(other))


def test_workers_share_the_process_that_takes_the_place(
    mortal: Host, faulty: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """One death costs one message that everybody sees, and no worker starts a process."""
    workers = [Host("faulty", 60.0, mortal.share()) for _ in range(3)]
    models = [calls_of(each, faulty, key="a run") for each in workers]
    before = {int(calls.predict(rows(SAY_PID), 1)()["score"][0]) for calls in models}
    waiting = [calls.predict(rows(SAY_PID), 1) for calls in models]
    with pytest.raises(StepError, match="the model's process ended with exit code 3"):
        models[0].predict(rows(1, EXIT), 2)()
    after = {int(outputs()["score"][0]) for outputs in waiting}
    after |= {int(calls.predict(rows(SAY_PID), 1)()["score"][0]) for calls in models}
    assert (len(before), len(after - before)) == (1, 1)
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= len(said) <= 2  # the second one where the call died alone
    assert {*said} == {"the model's process ended with exit code 3; another one takes its place"}
    # Commands print errors, and warnings with --debug.
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"][: len(said)]


def test_only_the_guilty_row_of_several_workers_is_blamed(mortal: Host, faulty: Model) -> None:
    """Calls are made one at a time among all workers, so none dies of another one's row."""

    def score(number: int, what: int) -> list[float | None]:
        calls = calls_of(Host("faulty", 60.0, mortal.share()), faulty, key="a run")
        found: list[float | None] = []
        for value in (number, number + 1, what, number + 2):
            try:
                found.append(float(calls.predict(rows(value), 1)()["score"][0]))
            except StepError:
                found.append(None)
        return found

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(score, (10, 20, 30, 40), (13, SEGFAULT, 33, EXIT)))
    assert done == [[10, 11, 13, 12], [20, 21, None, 22], [30, 31, 33, 32], [40, 41, None, 42]]


def test_a_worker_that_ends_gives_its_turn_back(mortal: Host) -> None:
    """Others would wait for it for ever."""
    connection = mortal.share()
    with pytest.raises(FailedError, match="is gone"), Borrowed(connection).turn():
        connection.shutdown(socket.SHUT_RDWR)
        with mortal.turn():
            pass


def test_a_model_that_always_dies_is_given_up(mortal: Host, faulty: Model) -> None:
    """One message says how it ends, that it does so each time, and what to do."""
    backend = ProcessBackend(backend_of("faulty"), mortal)
    with pytest.raises(FailedError) as error:
        backend.load(replace(faulty, version="dies"), "cpu")
    assert "the model's process ended with exit code 4, each time; see what it printed" in str(
        error.value
    )


def test_a_model_that_hangs_from_the_start_is_given_up(mortal: Host, faulty: Model) -> None:
    """The message names the setting; the run is not left waiting."""
    calls = calls_of(mortal, faulty)
    calls.predict(rows(1), 1)  # starts the process
    hanging = calls.predict(rows(HANG), 1)
    mortal.timeout_s = 0.2
    with pytest.raises(FailedError, match=r"no answer within 0 seconds; .* runtime.model_timeout"):
        hanging()


def test_a_row_on_which_the_model_hangs_fails_alone(
    mortal: Host, faulty: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is killed, and the next call goes to another one."""
    monkeypatch.setattr(proxy, "_LEAST_S", 1.0)
    backend = ProcessBackend(backend_of("faulty"), mortal)
    calls = backend.load(faulty, "cpu").called(Call(batch_rows=1_000_000))
    (pid,) = calls.predict(rows(SAY_PID), 1)()["score"]
    os.kill(int(pid), signal.SIGKILL)
    assert calls.predict(rows(4), 1)()["score"][0] == 4
    with pytest.raises(StepError, match="gave no answer within 1 second") as error:
        calls.predict(rows(HANG), 1)()
    assert type(error.value.__cause__).__name__ == "ModelProcessDied"
    assert calls.predict(rows(5), 1)()["score"][0] == 5


@pytest.mark.parametrize(
    ("call", "rows", "seconds"),
    [
        (None, 1, 1800),
        (Call(batch_rows=1000), 1000, 1800),
        (Call(batch_rows=1000), 500, 900),
        (Call(batch_rows=1000), 1, 10),
        (Call(batch_rows=1000, compile=True), 1, 1800),
    ],
)
def test_fewer_rows_get_less_time(call: Call | None, rows: int, seconds: float) -> None:
    """So a row is isolated in about the time of two batches; compiling takes its time anyway."""
    assert proxy._patience_s(1800.0, call, rows) == seconds


LEAK = """
import sys
from batchscore.system import resources
from batchscore.models.process import child
resources._MEMORY = sys.argv[1]
child._watch_memory()
"""


def test_a_process_that_holds_too_much_ends_itself(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Before the machine swaps, or its container is killed with all that is in it."""
    limit = tmp_path_factory.mktemp("limit") / "memory.max"
    limit.write_text(f"{1 << 20}\n")
    done = subprocess.run([sys.executable, "-c", LEAK, str(limit)], check=False, timeout=600)
    assert done.returncode == TOO_LARGE
    assert describe_end(done.returncode) == "held more than 80% of this machine's memory"
