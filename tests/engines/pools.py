"""Beam's own worker pool as another user, which sees nothing of a job but its stores."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port
from tests.waiting import wait_until

NOBODY = 65534
_STARTED = "Started worker pool servicer"
_AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
# As a pool starts its workers; `setpriv` itself may start what the other user may not.
_START_AGAIN = "import subprocess, sys; subprocess.run([sys.argv[1], '-c', ''], check=True)"


@dataclass(frozen=True)
class Pool:
    """A worker pool: its address, the folder that it may write to, and its log."""

    address: str
    folder: Path
    log: Path


@contextmanager
def running_pool(
    environment: Mapping[str, str],
    before: Path | None = None,
    interpreter: str = "",
    root: Path = ROOT,
) -> Iterator[Pool]:
    """Starts a worker pool in an empty folder of another user, and ends it with its workers.

    Args:
        environment: Further variables, such as how stores are reached.
        before: A folder in which its workers look for packages first.
        root: Folder that has batchscore in it, or has not.
        interpreter: Another Python than that of the tests, with packages of its own.
    """
    python, port = interpreter or find_python(), free_port()
    packages = [] if interpreter else [sysconfig.get_path("purelib")]
    with tempfile.TemporaryDirectory(prefix="pool-", dir="/tmp") as home:
        Path(home).chmod(0o755)
        folder, log = Path(home) / "worker", Path(home) / "log"
        folder.mkdir()
        shutil.chown(folder, NOBODY, NOBODY)
        (Path(home) / "bin").mkdir()
        (Path(home) / "bin/python").symlink_to(python)
        variables = {
            **environment,
            "PATH": f"{home}/bin:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(
                [*([str(before)] if before else []), str(root), *packages]
            ),
            "TMPDIR": str(folder),
            "HOME": str(folder),
        }
        main = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
        command = [*_AS_NOBODY, python, *main]
        with open(log, "wb") as out:
            pool = subprocess.Popen(
                command, cwd=folder, env=variables, stdout=out, stderr=out, start_new_session=True
            )
        try:
            wait_until(lambda: pool.poll() is not None or _STARTED in log.read_text(), 60)
            assert pool.poll() is None, log.read_text()
            yield Pool(f"localhost:{port}", folder, log)
        finally:
            os.killpg(pool.pid, signal.SIGKILL)  # Workers do not end with their pool.
            pool.wait()


@cache
def find_python() -> str:
    """Returns a Python of this minor version that another user can start.

    Skips the test where there is none, or nobody may become another user, unless
    BATCHSCORE_REQUIRE is `all`.
    """
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = [os.path.realpath(sys.executable), f"/usr/local/bin/{name}", f"/usr/bin/{name}"]
    if os.geteuid() == 0 and shutil.which("setpriv"):
        for place in filter(os.path.exists, places):
            if _starts_itself(place):
                return place
    message = f"only root can start workers of another user, with a {name} that all may start"
    if os.environ.get("BATCHSCORE_REQUIRE") == "all":
        pytest.fail(message)
    pytest.skip(message)


def _starts_itself(python: str) -> bool:
    """Tells whether the other user can start a Python that starts itself, as pools do."""
    command = [*_AS_NOBODY, python, "-c", _START_AGAIN, python]
    return subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL).returncode == 0
