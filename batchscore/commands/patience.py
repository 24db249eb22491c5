"""Tries a command again as long as what keeps it from starting may pass: `run --wait`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from batchscore.commands.stop import Stop
from batchscore.errors import RetryError, StoppedError
from batchscore.phases import Stopwatch
from batchscore.runs.lateness import hours

T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 1.0, 30.0, 1.5
_LOOK_S = 0.2
# Ages in a message change from attempt to attempt, and say nothing new.
_NUMBER = re.compile("[0-9]+")


class PassingTime(Protocol):
    """Tells the time and lets it pass; the module `time` does both."""

    def monotonic(self) -> float:
        """Returns seconds that only grow."""

    def sleep(self, seconds: float, /) -> None:
        """Returns after so many seconds."""


def try_until(
    attempt: Callable[[Stopwatch], T],
    wait_s: float,
    stop: Stop,
    say: Callable[[str], None],
    watch: Stopwatch,
    clock: PassingTime = time,
) -> T:
    """Returns what an attempt returns, which is made again while it raises RetryError.

    The pauses grow from a second to half a minute. The last attempt is made when the time is over.

    Args:
        attempt: Takes what measures its time, which is a new one for each later attempt.
        wait_s: How long to go on, in seconds; 0 makes one attempt.
        stop: Ends the waiting once its signal is set.
        say: Takes a line for each new reason to wait.
        watch: Measures the first attempt.

    Raises:
        RetryError: The last attempt's, once the time is over.
        StoppedError: A signal came during a pause.
    """
    end, pause_s, said = clock.monotonic() + wait_s, _FIRST_PAUSE_S, ""
    while True:
        try:
            return attempt(watch)
        except RetryError as error:
            left_s = end - clock.monotonic()
            if left_s <= 0:
                raise _last(error, wait_s) from error.__cause__
            if _NUMBER.sub("", str(error)) != said:
                said = _NUMBER.sub("", str(error))
                say(f"{error}; waiting for at most {hours(wait_s)}")
        _pause(min(pause_s, left_s), stop, clock)
        pause_s, watch = min(pause_s * _GROWTH, _LONGEST_PAUSE_S), Stopwatch()


def _last(error: RetryError, wait_s: float) -> RetryError:
    return RetryError(f"{error}; waited {hours(wait_s)} for it") if wait_s else error


def _pause(seconds: float, stop: Stop, clock: PassingTime) -> None:
    """Returns after so many seconds; raises StoppedError as soon as a signal was set."""
    end = clock.monotonic() + seconds
    stop.is_waiting = True
    try:
        while (left_s := end - clock.monotonic()) > 0:
            if stop.signal is not None:
                raise _stopped(stop.signal)
            clock.sleep(min(_LOOK_S, left_s))
    finally:
        stop.is_waiting = False


def _stopped(number: int) -> StoppedError:
    error = StoppedError("stopped while it waited; no run was started")
    error.exit_code = 128 + number
    return error
