"""Test that the server that workers are forked from is left alone by a terminal's Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import factory

INTERRUPTED = """
import os, signal, sys, time
import psutil
from batchscore.engines.workers import start_server

if __name__ == "__main__":
    signals = []
    os.setpgrp()
    signal.signal(signal.SIGINT, lambda *_: signals.append("signals"))
    context = start_server()
    children = psutil.Process().children
    while not any(child.cpu_times().user > 0.2 for child in children()):
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)
    process = context.Process(target=os.getpid)
    process.start()
    process.join()
    print(*signals, process.exitcode)
"""


@pytest.mark.slow
def test_a_ctrl_c_while_the_server_imports_reaches_the_launcher_alone(tmp_path: Path) -> None:
    """The launcher gets the signal, the server keeps importing, and nothing prints a traceback."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "signals 0\n", done.stderr
    assert "Traceback" not in done.stderr


# Workers import it before they read anything.
POST = """
import multiprocessing, sys

if multiprocessing.parent_process() is not None:
    assert "pandas" in sys.modules

def score(values):
    return values
"""


@pytest.mark.slow
def test_workers_of_a_job_with_functions_are_forked_with_pandas(tmp_path: Path) -> None:
    """Arrow would import it in each worker; the server does it once, while the launcher plans."""
    settings = {"runtime.workers": 2, "postprocess": {"function": "post.py:score"}}
    job = factory.write_job(tmp_path, settings)
    (tmp_path / "post.py").write_text(POST)
    command = [sys.executable, "-m", "batchscore", "run", str(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
