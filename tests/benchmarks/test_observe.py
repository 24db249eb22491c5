"""Processes observed from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks.observe import Watcher, list_tree
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1 << 20
# Holds 200 MiB and spends CPU, in a process below the one that is watched, which outlives it.
BUSY = """import subprocess, sys, time
child = "import time\\nheld = b'1' * (200 << 20)\\nwhile time.process_time() < 1: pass\\nprint()"
subprocess.run([sys.executable, "-c", child])
time.sleep(0.5)
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose child is at work for a second."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.DEVNULL) as process:
        yield process


@pytest.mark.slow
def test_a_tree_holds_the_processes_below(busy: subprocess.Popen[bytes]) -> None:
    """A process and its child are listed, and none once they are gone but the one asked for."""
    found = wait_until(lambda: tree if len(tree := list_tree(busy.pid)) > 1 else None)
    assert found is not None
    assert found[0] == busy.pid
    assert len(found) == 2
    busy.wait()
    assert list_tree(busy.pid) == [busy.pid]


@pytest.mark.slow
def test_a_watcher_counts_what_children_use(busy: subprocess.Popen[bytes]) -> None:
    """Memory and CPU-seconds of a child count, the latter also once it is gone."""
    watcher = Watcher(busy.pid)
    began = time.time()
    watcher.start()
    busy.wait()
    watcher.stop()
    used = [watcher.cpu_until(began + each / 4) for each in range(100)]
    assert 200 * MIB < watcher.peaks.pss < 300 * MIB
    assert watcher.peaks.threads == 2
    assert used == sorted(used)
    assert 0.8 < used[-1] < 2
