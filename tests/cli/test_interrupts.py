"""Test what Ctrl-C, SIGTERM and a closed terminal ask of a run."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchscore.cli import interrupts
from batchscore.cli.interrupts import Question, stop_on_signals
from batchscore.commands.stop import Stop
from tests.cli.test_app import read_terminal

# A run that takes its time; its stdin becomes the terminal of the process if it is one.
PROGRAM = """import fcntl, os, sys, termios, time
from batchscore.cli.interrupts import stop_on_signals
from batchscore.cli.watch import show_progress
from batchscore.runs.progress import Progress
from batchscore.system.streams import keep_writing

keep_writing()
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
choice, place, form, *end = sys.argv[1:]
with (
    stop_on_signals(choice) as (stop, question),
    show_progress(form == "json", question) as watch,
):
    stop.may_leave = place == "cluster"
    for rows in range(1, 1500):
        watch(Progress(rows, 3000, 1.0))
        if rows == 1:
            print("READY", flush=True)
        time.sleep(0.02)
        if stop.leave or stop.signal:
            break
said = "LEFT" if stop.leave else f"STOPPED {stop.signal}"
for path in end:
    with open(path, "w") as file:
        file.write(said)
print(said)
"""
ASKED = "[l]eave it running"


@contextmanager
def terminal(
    choice: str, place: str, form: str = "text", end: Sequence[Path] = (), before: str = ""
) -> Iterator[int]:
    """A terminal in which the program is under way; `end` gets what it says at its end."""
    mine, theirs = pty.openpty()
    command = [sys.executable, "-c", before + PROGRAM, choice, place, form, *map(str, end)]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    try:
        read_terminal(mine, lambda text: "READY" in text)
        yield mine
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        if not end:
            os.close(mine)


def typed(mine: int, keys: bytes, until: str) -> str:
    """Type something, and return what the terminal shows from then until a text."""
    os.write(mine, keys)
    return read_terminal(mine, lambda text: until in text)


@pytest.mark.slow
def test_a_person_may_go_on_watching_and_then_leave() -> None:
    """Another answer is asked for again; Enter brings the bar back, `l` leaves the run."""
    with terminal("ask", "cluster") as mine:
        asked = typed(mine, b"\x03", ASKED)
        typed(mine, b"what?\n", ASKED)
        watching = typed(mine, b"\n", "rows")
        typed(mine, b"\x03", ASKED)
        left = typed(mine, b"L\n", "LEFT")
    assert "[c]ancel the run" in asked
    assert "/3000" in watching
    assert "leaving the run to its engine" in left


@pytest.mark.slow
def test_a_person_may_cancel() -> None:
    """`c` does, and so does a second Ctrl-C while the question is open."""
    with terminal("ask", "cluster") as mine:
        typed(mine, b"\x03", ASKED)
        answered = typed(mine, b"c\n", "STOPPED 2")
    with terminal("ask", "cluster", "json") as mine:
        typed(mine, b"\x03", ASKED)
        repeated = typed(mine, b"\x03", "STOPPED 2")
    assert all("stopping at the next batch" in text for text in (answered, repeated))


@pytest.mark.slow
def test_a_run_that_ends_with_its_launcher_is_not_asked_about() -> None:
    """The engine `direct` stops at the first Ctrl-C, as before."""
    with terminal("ask", "here") as mine:
        text = typed(mine, b"\x03", "STOPPED 2")
    assert ASKED not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "place", "keys", "said"),
    [
        ("ask", "cluster", b"", "LEFT"),
        ("ask", "cluster", b"\x03", "LEFT"),
        ("cancel", "cluster", b"", "STOPPED 15"),
        ("leave", "here", b"", "STOPPED 15"),
    ],
)
def test_a_closed_terminal_leaves_a_run_that_goes_on(
    choice: str, place: str, keys: bytes, said: str, tmp_path: Path
) -> None:
    """Also while it asks; another run stops. The messages that nobody can read are no error."""
    with terminal(choice, place, end=[tmp_path / "end"]) as mine:
        if keys:
            typed(mine, keys, ASKED)
        os.close(mine)
    assert (tmp_path / "end").read_text() == said


@pytest.mark.slow
@pytest.mark.parametrize("keys", [b"", b"\x03"])
def test_under_nohup_a_closed_terminal_changes_nothing(keys: bytes, tmp_path: Path) -> None:
    """The run is watched to its end; a question that was open is answered by nobody."""
    nohup = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    before = nohup + "import time\ntime.sleep = lambda _, sleep=time.sleep: sleep(0.001)\n"
    with terminal("ask", "cluster", end=[tmp_path / "end"], before=before) as mine:
        if keys:
            typed(mine, keys, ASKED)
        os.close(mine)
    assert (tmp_path / "end").read_text() == "STOPPED None"


@pytest.mark.parametrize(
    ("choice", "numbers", "end"),
    [
        ("ask", [signal.SIGINT], (signal.SIGINT, False)),
        ("ask", [signal.SIGTERM], (signal.SIGTERM, False)),
        ("cancel", [signal.SIGTERM], (signal.SIGTERM, False)),
        ("leave", [signal.SIGTERM], (None, True)),
        ("leave", [signal.SIGINT], (None, True)),
        ("leave", [signal.SIGTERM, signal.SIGTERM], (signal.SIGTERM, False)),
        ("ask", [signal.SIGHUP, signal.SIGHUP], (None, True)),
        ("ask", [signal.SIGTERM, signal.SIGHUP], (signal.SIGTERM, False)),
        ("cancel", [signal.SIGHUP, signal.SIGHUP], (signal.SIGTERM, False)),
    ],
)
def test_without_a_terminal_a_script_decides(
    choice: str,
    numbers: Sequence[int],
    end: tuple[int | None, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default the run stops; one that is to be left can still be stopped."""
    monkeypatch.setattr(sys, "stdin", None)
    with stop_on_signals(choice) as (stop, question):  # type: ignore[arg-type]
        stop.may_leave = True
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0)
    assert (stop.signal, stop.leave) == end
    assert not question.is_open


@pytest.mark.parametrize("choice", ["ask", "leave"])
def test_a_run_that_cannot_be_left_is_stopped(choice: str) -> None:
    """Whatever is chosen for engines whose jobs go on."""
    with stop_on_signals(choice) as (stop, _):  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.signal, stop.leave) == (signal.SIGTERM, False)


def test_an_open_question_ends_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed at the end of the run starts a line."""
    question = Question(Stop())
    assert not question.tick()
    monkeypatch.setattr(interrupts, "_typed_line", lambda: None)
    question.is_open = True
    assert question.tick()
    question.close()
    assert capsys.readouterr().err.endswith("go on watching: \n")
    question.close()
    assert capsys.readouterr().err == ""
