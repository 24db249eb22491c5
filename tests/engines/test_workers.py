"""Test that the server that workers are forked from is left alone by a terminal."""

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
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: signals.append("signal"))
    context = start_server()
    children = psutil.Process().children
    while not any(child.cpu_times().user > 0.2 for child in children()):
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)
    os.killpg(0, signal.SIGHUP)
    process = context.Process(target=os.getpid)
    process.start()
    process.join()
    print(*signals, process.exitcode)
"""


@pytest.mark.slow
def test_what_a_terminal_sends_while_the_server_imports_reaches_the_launcher_alone(
    tmp_path: Path,
) -> None:
    """The launcher gets Ctrl-C and the terminal's end; the server keeps importing, in silence."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "signal signal 0\n", done.stderr
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
