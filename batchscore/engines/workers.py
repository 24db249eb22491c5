"""Worker processes, forked from a server that has imported Beam and torch."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_PRELOADED = "batchscore.engines.preloaded"


def start_server() -> ForkServerContext:
    """Starts the server, if it does not run yet, and returns the context that forks from it.

    It imports for seconds: started early, it does so while this process plans.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    forkserver.ensure_running()
    return context
