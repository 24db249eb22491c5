"""batchscore's own pool of workers, as a command of this user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers import ROOT, free_port
from tests.waiting import wait_until


@contextmanager
def own_pool(
    log: Path, environment: Mapping[str, str], *packages: Path, preload: str = ""
) -> Iterator[str]:
    """Starts a pool and yields its address; ends it with its workers.

    Args:
        log: Where it says what it does.
        environment: Further variables of its workers.
        packages: Folders in which they look for packages.
        preload: A module that is imported for all of them.
    """
    address = f"localhost:{free_port()}"
    options = ["--preload", preload] if preload else []
    path = os.pathsep.join(map(str, (*packages, ROOT)))
    with log.open("w") as out:
        pool = subprocess.Popen(
            [sys.executable, "-m", "batchscore.engines.pool", address, *options],
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: pool.poll() is not None or "listening" in log.read_text(), 60)
        assert pool.poll() is None, log.read_text()
        yield address
    finally:
        pool.terminate()
        pool.wait(30)
