"""The command line, also as `python -m batchscore`: a Ctrl-C while it imports is one line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_STOPPED = "stopped before anything was started"


def main() -> None:
    """Imports the command line and runs it."""
    before = signal.getsignal(signal.SIGINT)
    # A shell that starts a command in the background has it ignore Ctrl-C.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from batchscore.cli import main as command_line

    signal.signal(signal.SIGINT, before)
    command_line()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Ends at once: an import may take a KeyboardInterrupt for a module that is missing."""
    if "--json" in sys.argv:
        document = f'{{"status": "interrupted", "exit_code": 130, "error": "{_STOPPED}"}}\n'
        os.write(1, document.encode())
    os.write(2, f"INTERRUPTED  {_STOPPED}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    main()
