"""Tests of models in a process of their own that dies, hangs, or answers nonsense."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from batchscore.columnar.arrays import Array
from batchscore.errors import FailedError, StepError
from batchscore.models.backends.registry import backend_of
from batchscore.models.loadable import Model
from batchscore.models.process.host import Host
from batchscore.models.process.proxy import ProcessBackend
from batchscore.models.process.started import TOO_LARGE, describe_end
from tests.backends.faulty import EXIT, HANG, SAY_PID, SEGFAULT
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


def test_a_process_that_is_shared_may_die_of_its_first_rows(mortal: Host, faulty: Model) -> None:
    """A worker goes on with a process of its own; the launcher has tried the model."""
    shared = Host("faulty", 60.0, mortal.share())
    calls = calls_of(shared, faulty)
    for deadly in (rows(SEGFAULT), rows(1, EXIT)):
        with pytest.raises(StepError, match="the model's process"):
            calls.predict(deadly, len(deadly["x"]))()
    assert calls.predict(rows(2), 1)()["score"][0] == 2
    shared.close()


def test_a_model_that_always_dies_is_given_up(mortal: Host, faulty: Model) -> None:
    """One message says how it ends, that it does so each time, and what to do."""
    backend = ProcessBackend(backend_of("faulty"), mortal)
    with pytest.raises(FailedError) as error:
        backend.load(replace(faulty, version="dies"), "cpu")
    assert "the model's process ended with exit code 4, each time; see what it printed" in str(
        error.value
    )


def test_a_process_that_hangs_is_ended(faulty: Model) -> None:
    """The message names the setting; the run is not left waiting."""
    host = Host("faulty", 60.0)
    calls = calls_of(host, faulty)
    calls.predict(rows(1), 1)()
    host.timeout_s = 0.2
    hanging = calls_of(host, faulty)
    with pytest.raises(FailedError, match=r"gave no answer within .* \(runtime.model_timeout\)"):
        hanging.predict(rows(HANG), 1)()
    host.close()


LEAK = """
import sys
from batchscore import processes
from batchscore.models.process import child
processes._MEMORY = sys.argv[1]
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
