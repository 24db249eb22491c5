"""What Ctrl-C and SIGTERM do to a run: stop it, or leave it to an engine that goes on alone."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Returns what was typed, without blanks around; None if nothing was, yet."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return None
    return os.read(sys.stdin.fileno(), _MOST_BYTES).decode(errors="replace").strip().lower()


def request(stop: Stop, number: int) -> None:
    """Asks a run to stop at its next batch."""
    stop.signal, stop.leave = number, False
    click.echo(_STOPPING, err=True)


def leave(stop: Stop) -> None:
    """Asks the launcher to leave a run, once its engine has it."""
    stop.leave = True
    click.echo(_LEAVING, err=True)


@contextmanager
def stop_on_signals(choice: OnInterrupt = "ask") -> Iterator[tuple[Stop, Question]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; the second ends at once.

    A run that goes on without this process is left, or a person is asked, if that is the choice.
    Without a terminal nobody can be asked, and the run stops.
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
        elif undecided and choice == "ask" and number == signal.SIGINT and _is_attended():
            question.is_open = True
        else:
            question.close()
            request(stop, number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, question
    finally:
        question.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_attended() -> bool:
    """Tells whether somebody can read a question and answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
