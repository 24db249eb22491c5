"""A pool of Beam workers for an engine elsewhere: `python -m batchscore.engines.pool HOST:PORT`."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import threading

from batchscore.engines.local import WorkerPool
from batchscore.engines.workers import start_server

_log = logging.getLogger("batchscore.pool")
_ADDRESS = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_MOST_PORT = 65_535
# A worker that is killed so often before it reaches its runner has not enough memory.
_AGAIN = 5


def main() -> None:
    """Starts workers for whoever asks at an address, until SIGTERM, SIGHUP or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m batchscore.engines.pool", description=__doc__)
    where = "where to listen, localhost:50000; who reaches it can run code here"
    parser.add_argument("address", metavar="HOST:PORT", type=_address, help=where)
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
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: over.set())
    # A worker is forked from a server that has imported these.
    start_server(asked.preload)
    try:
        with WorkerPool(_log.warning, address=asked.address, again=_AGAIN) as pool:
            _log.info("listening for TaskManagers at %s", pool.address)
            over.wait()
    except RuntimeError:  # gRPC says no more than that
        parser.exit(
            1,
            f"the pool cannot listen at {asked.address}: another process does, or it is no address "
            "of this machine; end that process, or choose another address\n",
        )


def _address(text: str) -> str:
    """Returns HOST:PORT as it is; gRPC would take the rest of a port that is too large."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > _MOST_PORT:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, found {text!r}")
    return text


if __name__ == "__main__":
    main()
