"""Worker processes, forked from a server that has imported Beam and the model's framework."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

_PRELOADED = "batchscore.engines.preloaded"


def start_server(preloads: Sequence[str] = ()) -> ForkServerContext:
    """Starts the server, if it does not run yet, and returns the context that forks from it.

    It imports for seconds: started early, it does so while this process plans. Ctrl-C, and the end
    of a terminal, do not reach it or what it forks; this process handles them.

    Args:
        preloads: Modules that it imports for the run's model.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED, *preloads])
    # Started first, since starting it unblocks Ctrl-C.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
