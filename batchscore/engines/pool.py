"""A pool of Beam workers for an engine elsewhere: `python -m batchscore.engines.pool HOST:PORT`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from batchscore.engines.local import WorkerPool
from batchscore.engines.workers import start_server

_log = logging.getLogger("batchscore.pool")


def main() -> None:
    """Starts workers for whoever asks at an address, until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m batchscore.engines.pool", description=__doc__)
    parser.add_argument("address", metavar="HOST:PORT", help="where to listen, localhost:50000")
    parser.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=[],
        help="imported once for all workers, such as batchscore.models.backends.torch.preloaded",
    )
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    # A worker is forked from a server that has imported these.
    start_server(asked.preload)
    with WorkerPool(_log.warning, address=asked.address) as pool:
        _log.info("listening for TaskManagers at %s", pool.address)
        over.wait()


if __name__ == "__main__":
    main()
