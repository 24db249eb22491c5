"""What a worker process logs and prints, as it is kept in the output."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscore.job import load_job
from batchscore.plan import make_plan
from batchscore.runs.failures import recorded
from batchscore.runs.worker_logs import MOST_BYTES, LogLine, WorkerLog, read_logs
from batchscore.worker import log
from batchscore.worker.log import keep_log, save_log
from batchscore.worker.spec import RunSpec
from tests import factory

Kept = Callable[[], list[tuple[str, str, str]]]


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """A run of an output."""
    return factory.run_spec(make_plan(load_job(str(factory.write_job(tmp_path)))))


@pytest.fixture
def kept(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Yields what returns level, source and message of what is kept, since its first call.

    That has to come from the test, since pytest gives it other streams than fixtures.
    """
    root = logging.getLogger()
    level, levels = root.level, {each: each.level for each in root.handlers}
    monkeypatch.setattr(log, "_kept", None)
    root.setLevel(logging.ERROR)

    def look() -> list[tuple[str, str, str]]:
        if log._kept is not None:
            return [(each.level, each.source, each.message) for each in lines(spec)]
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, getattr(sys, stream))
        keep_log(spec)
        return []

    yield look
    assert log._kept is not None
    root.removeHandler(log._kept)
    root.setLevel(level)
    for handler, before in levels.items():
        handler.setLevel(before)


def read(spec: RunSpec) -> WorkerLog:
    """Writes what was not yet, and returns the log of this process."""
    save_log()
    (found,) = read_logs(spec.output, spec.slice, spec.identity.run)
    return found


def lines(spec: RunSpec) -> list[LogLine]:
    """The lines of this process."""
    return read(spec).lines


def test_what_code_logs_and_prints_is_kept(kept: Kept, spec: RunSpec) -> None:
    """Messages with their logger, printed lines with their stream, warnings; and the process."""
    kept()
    logging.getLogger("mine").info("%d rows", 7)
    print("one\ntwo", 3)
    sys.stderr.write("no end")
    assert kept() == [
        ("INFO", "mine", "7 rows"),
        ("INFO", "stdout", "one"),
        ("INFO", "stdout", "two 3"),
    ]
    whole = read(spec)
    assert (whole.host, whole.pid, whole.left_out) == (platform.node(), os.getpid(), 0)


def test_news_of_libraries_are_not_kept(kept: Kept) -> None:
    """Beam and the clients of stores tell much at the level INFO; what they warn of is kept."""
    kept()
    for name in ("apache_beam.runners", "botocore.credentials"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).info("news")
        logging.getLogger(name).warning("careful")
    assert kept() == [
        ("WARNING", "apache_beam.runners", "careful"),
        ("WARNING", "botocore.credentials", "careful"),
    ]


def test_what_was_shown_before_is_shown_and_no_more(
    spec: RunSpec, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process's own handlers keep their level, and its streams what is written to them."""
    kept()
    shown = [handler.level for handler in logging.getLogger().handlers if handler is not log._kept]
    assert all(level >= logging.ERROR for level in shown)
    print("printed")
    assert "printed" in capsys.readouterr().out
    assert kept() == [("INFO", "stdout", "printed")]


def test_secrets_and_half_characters_do_not_get_in(kept: Kept) -> None:
    """Credentials in addresses are hidden, and a text that no file can hold is spelled."""
    kept()
    logging.warning("from s3://user:secret@bucket/x")
    print("https://host/x?token=secret")
    logging.warning("half \ud800 and \x1b[31m")
    found = [message for _, _, message in kept()]
    assert found == [
        "from s3://***@bucket/x",
        "https://host/x?token=***",
        "half \\ud800 and \x1b[31m",
    ]


def test_the_last_lines_of_a_long_log_are_kept(kept: Kept, spec: RunSpec) -> None:
    """The file is bounded, a long line is cut, and what was left out is counted."""
    kept()
    print("x" * 10_000_000)
    for number in range(5_000):
        logging.warning("line %d", number)
    found = read(spec)
    assert found.lines[-1].message == "line 4999"
    assert found.left_out == 5_001 - len(found.lines)
    (file,) = (Path(spec.output.address) / "_batchscore/logs").rglob("*.json")
    assert MOST_BYTES // 4 < file.stat().st_size < 2 * MOST_BYTES
    print("y" * 5_000)
    assert len(lines(spec)[-1].message) == 2_001


def test_a_line_that_repeats_is_kept_once(kept: Kept, spec: RunSpec) -> None:
    """With how often it came."""
    kept()
    for _ in range(1_000):
        logging.warning("again")
    logging.warning("other")
    assert [(each.message, each.times) for each in lines(spec)] == [("again", 1_000), ("other", 1)]


def test_a_log_is_written_seldom(
    kept: Kept, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most once in five seconds while work goes on, and not if there is nothing new."""
    kept()
    written = list[WorkerLog]()
    monkeypatch.setattr(log, "write_log", lambda *given: written.append(given[-1]))
    for _ in range(100):
        logging.warning("x")
        save_log(now=False)
    assert len(written) == 1
    save_log()
    save_log()
    assert [each.lines[0].times for each in written] == [1, 100]


def test_a_log_that_cannot_be_written_fails_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work goes on, and the lines are written once the output takes them."""
    kept()

    def full(*_: object) -> None:
        logging.warning("of the store itself")
        raise OSError(28, "No space left on device")

    logging.warning("first")
    with monkeypatch.context() as patch:
        patch.setattr(log, "write_log", full)
        save_log()
    assert kept() == [("WARNING", "root", "first")]


def test_a_message_that_cannot_be_made_fails_nothing(kept: Kept) -> None:
    """As with the standard library's handlers."""
    kept()
    logging.warning("%d rows", "seven")
    assert any("Logging error" in message for _, _, message in kept())


def test_a_failure_is_noted_once(kept: Kept, spec: RunSpec) -> None:
    """Written at once; what Beam logs of it too is left out."""
    kept()
    with pytest.raises(ValueError, match="wrong"), recorded(spec.output, spec.identity.run):
        raise ValueError("all wrong")
    (found,) = read_logs(spec.output, spec.slice, spec.identity.run)
    logging.getLogger("apache_beam.worker").error("unexpected ValueError: all wrong [while…]")
    assert kept() == [("ERROR", "batchscore", "unexpected ValueError: all wrong")]
    assert found.lines[0].level == "ERROR"


def test_another_run_of_the_process_has_a_log_of_its_own(kept: Kept, spec: RunSpec) -> None:
    """What was logged before belongs to the run before."""
    kept()
    other = factory.run_spec(
        make_plan(load_job(f"{spec.scoring.base}/job.yaml")), run="20260102-0000"
    )
    logging.warning("first")
    keep_log(other)
    keep_log(other)
    logging.warning("second")
    assert kept() == [("WARNING", "root", "first")]
    assert [each.message for each in lines(other)] == ["second"]
