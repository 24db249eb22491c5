"""Test that a command that may wait is tried until it can start, its time is over, or it stops."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.commands.patience import try_until
from batchscore.commands.stop import Stop
from batchscore.errors import FailedError, RetryError, StoppedError
from batchscore.phases import Stopwatch
from tests.endings import begin, said_in
from tests.factory import write_job
from tests.waiting import wait_until


@dataclass
class Hours:
    """A clock that passes only when somebody sleeps; at a time it signals."""

    stop: Stop = field(default_factory=Stop)
    now: float = 0.0
    signalled_at: float | None = None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.signalled_at is not None and self.now >= self.signalled_at:
            self.stop.signal = signal.SIGTERM


def attempts(clock: Hours, wait_s: float, ready_at: float, said: list[str]) -> list[float]:
    """Return when attempts were made by a command that can start from a time on."""
    made: list[float] = []

    def attempt(_: Stopwatch) -> None:
        made.append(clock.now)
        if clock.now < ready_at:
            raise RetryError(f"not ready, looked {len(made)} times")

    try_until(attempt, wait_s, clock.stop, said.append, Stopwatch(), clock)
    return made


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_what_becomes_ready_in_time_is_found_within_half_a_minute(
    wait_s: float, ready_at: float
) -> None:
    """Whenever it is ready within the time, an attempt finds it, at most 30 s late."""
    clock = Hours()
    if ready_at > wait_s + 0.001:
        with pytest.raises(RetryError, match="not ready, looked"):
            attempts(clock, wait_s, ready_at, [])
        assert clock.now == pytest.approx(wait_s, abs=0.001)
    elif ready_at <= wait_s:
        made = attempts(clock, wait_s, ready_at, [])
        assert made[-1] - ready_at <= 30.001
        assert len(made) <= 12 + wait_s / 30


def test_each_reason_is_said_once() -> None:
    """What a message counts is no new reason; the error at the end says how long it waited."""
    said: list[str] = []
    with pytest.raises(RetryError, match=r"looked \d+ times; waited 10 min for it$"):
        attempts(Hours(), 600.0, 1e9, said)
    assert said == ["not ready, looked 1 times; waiting for at most 10 min"]


def test_without_waiting_the_error_is_the_attempts_own() -> None:
    """No line is said, and no time passes."""
    clock, said = Hours(), list[str]()
    with pytest.raises(RetryError, match=r"looked 1 times$"):
        attempts(clock, 0, 1.0, said)
    assert (clock.now, said) == (0.0, [])


def test_a_signal_ends_the_waiting_at_once() -> None:
    """The exit code is the signal's, and no attempt follows."""
    clock = Hours(signalled_at=5.0)
    with pytest.raises(StoppedError, match="no run was started") as ended:
        attempts(clock, 7200.0, 1e9, [])
    assert ended.value.exit_code == 128 + signal.SIGTERM
    assert clock.now < 5.5
    assert not clock.stop.is_waiting


def test_what_cannot_pass_is_not_waited_for() -> None:
    """Other errors come through at the first attempt."""

    def attempt(_: Stopwatch) -> None:
        raise FailedError("broken")

    with pytest.raises(FailedError, match="broken"):
        try_until(attempt, 7200.0, Stop(), pytest.fail, Stopwatch(), Hours())


def _waiting_run(tmp_path: Path) -> BaseProcess:
    """Start a run that may wait, and return its process once it waits for its input's marker."""
    job = write_job(tmp_path, {"input.ready": "_SUCCESS"})
    process = begin("run", "--json", "--wait=10m", job, log=tmp_path, stdout=str(tmp_path / "o"))
    wait_until(lambda: "WAITING" in said_in(tmp_path))
    return process


def _ending(process: BaseProcess, tmp_path: Path) -> tuple[int | None, str]:
    process.join()
    return process.exitcode, json.loads((tmp_path / "o").read_text())["status"]


def test_a_run_starts_once_its_input_is_ready(tmp_path: Path) -> None:
    """It says what it waits for, and its own times begin when it stops waiting."""
    (tmp_path / "o").touch()
    process = _waiting_run(tmp_path)
    assert "_SUCCESS: does not exist yet" in said_in(tmp_path)
    (tmp_path / "in/_SUCCESS").touch()
    ready = (tmp_path / "in/_SUCCESS").stat().st_mtime
    assert _ending(process, tmp_path) == (0, "published")
    found = json.loads((tmp_path / "o").read_text())
    assert found["seconds"] <= os.stat(tmp_path / "o").st_mtime - ready


def test_a_waiting_run_can_be_stopped(tmp_path: Path) -> None:
    """SIGTERM ends it with 143 before any work, and the output stays absent."""
    (tmp_path / "o").touch()
    process = _waiting_run(tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert _ending(process, tmp_path) == (143, "interrupted")
    assert not (tmp_path / "out").exists()
    assert "next batch" not in said_in(tmp_path)


@pytest.mark.parametrize("given", ["2", "soon", "0h", "-1h"])
def test_a_time_of_another_form_is_refused(tmp_path: Path, given: str) -> None:
    """The message names the forms that there are."""
    (tmp_path / "o").touch()
    process = begin("run", f"--wait={given}", write_job(tmp_path), log=tmp_path)
    process.join()
    assert process.exitcode == 2
    assert "90m, 26h or 2d" in said_in(tmp_path)
