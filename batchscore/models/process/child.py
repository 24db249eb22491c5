"""The model's process: its start, and its end with whoever started it."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from batchscore.messages.addresses import RedactingFormatter
from batchscore.models.backends.protocol import Backend
from batchscore.models.backends.registry import backend_of
from batchscore.models.process.serving import Models, Session
from batchscore.models.process.started import SHARE_OF_MEMORY, TOO_LARGE
from batchscore.system.imports import replaced
from batchscore.system.resources import held_kilobytes, usable_kilobytes

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "/proc/self/oom_score_adj"
_LOOK_SECONDS = 1.0


def main() -> None:
    """Imports a framework and serves connections until the process that started it ends."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    _end_with(settings["parent"])
    _leave_signals_to_parent()
    _set_up_logging(settings["level"])
    _offer_to_memory_killer()
    connection = socket.socket(fileno=settings["connection"])
    with suppress(Exception):  # whoever asks gets the error
        _import_framework(backend_of(settings["format"]))
    gc.freeze()
    gc.enable()  # it was disabled before the first import
    threading.Thread(target=_watch_memory, daemon=True).start()
    _Server(backend_of(settings["format"])).serve(connection)
    # Threads that still compute would keep the process, and nobody waits for what they return.
    os._exit(0)


def _import_framework(backend: Backend) -> None:
    """Imports a backend's framework without what only other uses need, if it does without."""
    with suppress(ImportError), replaced(dict.fromkeys(backend.unneeded)):
        backend.prepare()
        return
    backend.prepare()


class _Server:
    """Serves connections that share one set of loaded models."""

    def __init__(self, backend: Backend) -> None:
        self._models, self._backend = Models(), backend

    def serve(self, connection: socket.socket) -> None:
        Session(self._models, connection, self._backend, self._start).serve()

    def _start(self, connection: socket.socket) -> None:
        threading.Thread(target=self.serve, args=(connection,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Has Linux end this process with its parent, also while native code keeps the interpreter.

    Elsewhere the end of the first connection does it.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _leave_signals_to_parent() -> None:
    """Ignores what a terminal or a service manager sends to all; the parent decides what ends."""
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)


def _set_up_logging(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


def _offer_to_memory_killer() -> None:
    """Has Linux end this process first where memory runs out: the worker can tell of it then."""
    with suppress(OSError), open(_OOM_SCORE, "w", encoding="ascii") as file:
        file.write("500")


def _watch_memory() -> None:
    """Ends a process that leaks before it makes the machine swap."""
    usable = usable_kilobytes()
    while usable is not None:
        if (held_kilobytes() or 0) > SHARE_OF_MEMORY * usable:
            os._exit(TOO_LARGE)
        time.sleep(_LOOK_SECONDS)
