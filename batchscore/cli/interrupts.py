"""What Ctrl-C, SIGTERM and a closed terminal do to a run: stop it, or leave it to its engine."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import click

from batchscore.commands.stop import Stop

OnInterrupt = Literal["ask", "cancel", "leave"]
ON_INTERRUPT: tuple[OnInterrupt, ...] = ("ask", "cancel", "leave")

_AT_ONCE = "stopped immediately; the next run of the slice scores what is left"
_STOPPING = "stopping at the next batch; interrupt again to stop immediately"
_LEAVING = "leaving the run to its engine; interrupt again to cancel it"
_QUESTION = "[c]ancel the run, [l]eave it running, or Enter to go on watching: "
_MOST_BYTES = 1024


class Question:
    """Asks on a terminal whether an interrupted run is cancelled or left; nobody waits for it.

    Attributes:
        is_open: Whether it is to be asked, or waits for its answer.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._is_shown = False
        self.is_open = False

    def tick(self) -> bool:
        """Shows the question once, and takes an answer that was typed; tells whether it is open."""
        if self.is_open and not self._is_shown:
            self._is_shown = True
            click.echo(_QUESTION, err=True, nl=False)
        if self.is_open and (answer := _typed_line()) is not None:
            # What is no answer is asked for again.
            self._is_shown = False
            self.is_open = not self._take(answer)
        return self.is_open

    def close(self) -> None:
        """Ends the line of a question that nobody has answered."""
        if self._is_shown:
            click.echo(err=True)
        self.is_open = self._is_shown = False

    def _take(self, answer: str) -> bool:
        """Acts on an answer; tells whether it was one."""
        if answer in ("c", "cancel"):
            request(self._stop, signal.SIGINT)
        elif answer in ("l", "leave"):
            leave(self._stop)
        else:
            return not answer
        return True


def _typed_line() -> str | None:
    """Returns what was typed, without blanks around; None if nothing was, yet.

    From a terminal that was closed comes nothing: that is what Enter alone types.
    """
    try:
        if not select.select([sys.stdin], [], [], 0)[0]:
            return None
        typed = os.read(sys.stdin.fileno(), _MOST_BYTES)
    except OSError:
        return ""
    return typed.decode(errors="replace").strip().lower()


def request(stop: Stop, number: int) -> None:
    """Asks a run to stop at its next batch."""
    stop.signal, stop.leave = number, False
    if not stop.is_waiting:
        _say(_STOPPING)


def leave(stop: Stop) -> None:
    """Asks the launcher to leave a run, once its engine has it."""
    stop.leave = True
    _say(_LEAVING)


def _say(text: str) -> None:
    # A signal may come while this thread writes to the same stream.
    with suppress(RuntimeError):
        click.echo(text, err=True)


@contextmanager
def stop_on_signals(choice: OnInterrupt = "ask") -> Iterator[tuple[Stop, Question]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; the second ends at once.

    A run that goes on without this process is left, or a person is asked, if that is the choice.
    Without a terminal nobody can be asked, and the run stops. A terminal that is closed asks the
    same of a run that ends with this process, and leaves another one; under nohup it does nothing.
    """
    stop = Stop()
    question = Question(stop)

    def handle(number: int, _frame: object) -> None:
        if stop.signal is not None:
            click.echo(f"INTERRUPTED  {_AT_ONCE}", err=True)
            os._exit(128 + number)
        undecided = stop.may_leave and not stop.leave and not question.is_open
        if undecided and choice == "leave":
            leave(stop)
        elif undecided and choice == "ask" and number == signal.SIGINT and is_attended():
            question.is_open = True
        else:
            question.close()
            request(stop, number)

    def hang_up(number: int, _frame: object) -> None:
        if stop.leave or stop.signal is not None:  # shell and system may both send it
            return
        question.close()
        if stop.may_leave and choice != "cancel":
            leave(stop)
        else:
            request(stop, signal.SIGTERM)

    handlers = {signal.SIGINT: handle, signal.SIGTERM: handle}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handlers[signal.SIGHUP] = hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop, question
    finally:
        question.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_as_usual() -> Iterator[None]:
    """Has signals end a question at once, which nothing else would look at before its answer."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_attended() -> bool:
    """Tells whether somebody can read a question and answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
