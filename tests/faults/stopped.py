"""A command that stops itself before each change of its output and after each flush."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import batchscore.cli
import batchscore.plan.work
from tests.faults.victim import name_step
from tests.faults.worlds import UNIT_ROWS


class Stopper:
    """Notes each step of the process in a file, and stops until SIGCONT comes."""

    def __init__(self, output: str, steps: str) -> None:
        self._output = output
        self._steps = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._flush = os.fsync

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        """Stops before a change of the output."""
        if name := name_step(event, args, self._output):
            self._stop(name)

    def flush(self, fd: Any) -> None:
        """Flushes, and stops after it."""
        self._flush(fd)
        self._stop(f"flush {os.readlink(f'/proc/self/fd/{fd}')[len(self._output) + 1 :]}")

    def _stop(self, name: str) -> None:
        os.write(self._steps, f"{name}\n".encode())
        # To this thread, which then does nothing more; the others stop with it.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _skip(fd: Any) -> None:
    """Flushes nothing."""


def main() -> None:
    """Runs a command: the output, a file for steps, whether it flushes, and the command's words."""
    output, steps, flushes, *words = sys.argv[1:]
    stopper = Stopper(output, steps)
    os.fsync = stopper.flush if flushes == "yes" else _skip
    batchscore.plan.work.UNIT_ROWS = UNIT_ROWS
    sys.addaudithook(stopper.see)
    sys.argv = ["batchscore", *words]
    batchscore.cli.main()


if __name__ == "__main__":
    main()
